// Records of verdicts, and failures: photos that came to none; both are rows of a history.

import { chosen } from "./settings.js";
import { fixed, t } from "./words.js";

/** What a record or a failure is known by; a failure that is not in the database yet has no number. */
export const keyOf = (item) => (item.error ? `failure ${item.time}` : item.id);
export const kindOf = (record) => (record.anomalous ? "anomalous" : "good");
export const markOf = (record) => (record.anomalous ? "✕" : "✓");
/** The verdict in large letters, and as a word of a sentence; in the words that somebody chose. */
export const wordOf = (record) => verdictWord("large", kindOf(record));
export const verdictOf = (record) => verdictWord("small", kindOf(record));
export const verdictWord = (size, kind) => (chosen("verdicts") === "ok-ng" ? t(`verdict.short.${kind}`) : t(`verdict.${size}.${kind}`));
/** The kind of confirmed defects that a verdict is most like, or that it is like none of them. */
export function kindText({ name, similarity, near }) {
  const values = { name, similarity: fixed(similarity, 2) };
  return near ? t("kind.near", values) : t("kind.far", values);
}
/** What was said of a part, in words; "" where nothing was. */
export const called = (feedback) => (feedback ? t(`called.${feedback}`) : "");

/** Records and failures, each newest first, as one list; records keep their order, whatever the clock did. */
export function merged(records, failures) {
  const [all, rest] = [[], [...failures]];
  for (const one of records) {
    while (rest.length && new Date(rest[0].time) > new Date(one.time)) all.push(rest.shift());
    all.push(one);
  }
  return [...all, ...rest].map((one) => ({ ...one, key: keyOf(one) }));
}
