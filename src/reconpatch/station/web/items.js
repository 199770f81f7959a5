// Records of verdicts, and failures: photos that came to none; both are rows of a history.

/** What a record or a failure is known by; a failure that is not in the database yet has no number. */
export const keyOf = (item) => (item.error ? `failure ${item.time}` : item.id);
export const kindOf = (record) => (record.anomalous ? "anomalous" : "good");
export const markOf = (record) => (record.anomalous ? "✕" : "✓");
export const wordOf = (record) => (record.anomalous ? "ANOMALOUS" : "GOOD");
/** The kind of confirmed defects that a verdict is most like, or that it is like none of them. */
export function kindText({ name, similarity, near }) {
  const much = similarity.toFixed(2);
  return near ? `${name} (similarity ${much})` : `none of these (most similar: ${name}, ${much})`;
}
export const CALLED = { good: "called good", defect: "called a defect" };

/** Records and failures, each newest first, as one list; records keep their order, whatever the clock did. */
export function merged(records, failures) {
  const [all, rest] = [[], [...failures]];
  for (const one of records) {
    while (rest.length && new Date(rest[0].time) > new Date(one.time)) all.push(rest.shift());
    all.push(one);
  }
  return [...all, ...rest].map((one) => ({ ...one, key: keyOf(one) }));
}
