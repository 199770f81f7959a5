// Changes of what is in service that the service asks to confirm, because confirmed defects would be missed.

import * as api from "./api.js";
import { ask, count, h } from "./dom.js";

/** Go back to a version; where confirmed defects would be missed, ask first. Null: left alone. */
export async function rollBack(product, number, etag) {
  return confirmed((confirm) => api.rollBack(product, { number, confirm }, etag), `Go back to version ${number} all the same?`);
}

/** Make a change that the service asks to confirm (409) when confirmed defects would be missed. */
export async function confirmed(change, title) {
  try {
    return await change(false);
  } catch (error) {
    if (error.status !== 409 || !error.values.confirmed) throw error;
    return (await ask(title, figures(error), "Yes, do it all the same")) ? change(true) : null;
  }
}

/** What the service says of confirmed parts, for the question whether to go on. */
function figures(error) {
  const c = error.values.confirmed;
  const line = (text, now, then, of) => h("tr", { class: then > now ? "worse" : "" },
    h("th", { scope: "row" }, text), h("td", { class: "n" }, `${now} of ${of}`), h("td", { class: "n" }, `${then} of ${of}`));
  return [
    h("p", { class: "note error" }, error.message),
    h("table", { class: "confirmed" },
      h("caption", {}, "What it would make of the parts that somebody has judged"),
      h("thead", {}, h("tr", {}, ["", "now", "then"].map((text) => h("th", { scope: "col", class: text && "n" }, text)))),
      h("tbody", {},
        line("defects missed", c.missed_now, c.missed_then, c.defects),
        line("good parts flagged", c.false_alarms_now, c.false_alarms_then, c.goods))),
    c.unscored > 0 && h("p", {}, `${count(c.unscored, "confirmed part")} ${c.unscored === 1 ? "is" : "are"} not scored yet and may change this.`),
    c.missed.length > 0 && h("details", {}, h("summary", {}, "Which would be missed"),
      h("ul", {}, c.missed.map((one) => h("li", {}, one.name)))),
  ];
}
