// Changes of what is in service that the service asks to confirm, because confirmed defects would be missed.

import * as api from "./api.js";
import { ask, h, sentence } from "./dom.js";
import { t } from "./words.js";

const LOOKS = 60; // at what confirmed parts score, before somebody is asked without knowing it

/** Go back to a version; where confirmed defects would be missed, ask first. Null: left alone. */
export async function rollBack(product, number, etag) {
  return confirmed({
    change: (confirm) => api.rollBack(product, { number, confirm }, etag),
    look: () => api.previewVersion(product, number),
    title: t("changes.back_title", { version: String(number) }),
  });
}

/**
 * Make a change that the service asks to confirm (409) when confirmed defects would be missed.
 *
 * `look` has it score the confirmed parts, as long as some have no score yet. Null: left alone.
 */
export async function confirmed({ change, look, title }) {
  for (let looks = 0; ; looks += 1) {
    try {
      return await change(false);
    } catch (error) {
      const figures = error.status === 409 && error.values.confirmed;
      if (!figures) throw error;
      if (!figures.unscored || looks >= LOOKS) return (await ask(title, described(error), t("changes.yes"))) ? change(true) : null;
    }
    await look();
  }
}

/** What the service says of confirmed parts, for the question whether to go on. */
function described(error) {
  const c = error.values.confirmed;
  const line = (text, now, then, of) => h("tr", { class: then > now ? "worse" : "" },
    h("th", { scope: "row" }, text), h("td", { class: "n" }, t("of", { n: now, of })), h("td", { class: "n" }, t("of", { n: then, of })));
  return [
    h("p", { class: "note error" }, sentence(error.message)),
    h("table", { class: "confirmed" },
      h("caption", {}, t("changes.caption")),
      h("thead", {}, h("tr", {}, ["", t("changes.now"), t("changes.then")].map((text) => h("th", { scope: "col", class: text && "n" }, text)))),
      h("tbody", {},
        line(t("changes.missed"), c.missed_now, c.missed_then, c.defects),
        line(t("changes.flagged"), c.false_alarms_now, c.false_alarms_then, c.goods))),
    c.unscored > 0 && h("p", {}, t("changes.unscored", { n: c.unscored })),
    c.gone > 0 && h("p", {}, t("changes.gone", { n: c.gone })),
    c.missed.length > 0 && h("details", {}, h("summary", {}, t("changes.which")),
      h("ul", {}, c.missed.map((one) => h("li", {}, one.name)))),
  ];
}
