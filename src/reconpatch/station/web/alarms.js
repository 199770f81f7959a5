// Drift alarms of the product on the screen: those that are open, who acknowledged which, and what was done.

import * as api from "./api.js";
import { during, h, said, time } from "./dom.js";
import { t } from "./words.js";

const LINES = 50; // of the history

/** A section of a view; `load` asks for the alarms, `changed` is told of an acknowledgement. */
export function driftSection(page, changed = () => {}) {
  const element = h("section", { class: "drifted", "aria-label": t("models.drift"), hidden: true });

  async function load() {
    element.hidden = !page.facts;
    if (!page.facts) return;
    const drift = await api.drift(page.product);
    const now = JSON.stringify([page.product, drift.open]);
    if (element.dataset.shown === now) return; // somebody may be writing
    element.dataset.shown = now;
    const past = h("div", {});
    const history = h("details", { ontoggle: () => history.open && drawPast(past) }, h("summary", {}, t("models.all_alarms")), past);
    element.replaceChildren(h("h2", {}, t("models.drift")), ...(drift.open.length ? open(drift.open) : [h("p", { role: "status" }, t("models.no_alarm", { n: drift.photos }))]), history);
  }

  function open(alarms) {
    const by = h("input", { id: "ack-by", maxlength: 80, required: true, value: api.operator.name, autocomplete: "name" });
    const note = h("input", { id: "ack-note", maxlength: 500 });
    const seen = h("button", { type: "submit", class: "primary", id: "acknowledge", "data-needs": "feedback" }, t("models.acknowledge", { n: alarms.length }));
    function send(event) {
      event.preventDefault();
      api.operator.name = by.value;
      const given = { by: by.value.trim(), note: note.value.trim(), up_to: alarms[0].id }; // none that is not shown
      during(seen, async () => { await api.acknowledge(page.product, given); await load(); changed(); });
    }
    return [
      h("ul", { class: "alarms" }, alarms.map((alarm) => h("li", { class: "note warn" }, h("b", {}, "⚠ "), t("models.alarm", { time: time(alarm.time), version: alarm.version }), " ", said(alarm.message), " ", h("a", { href: `#live/${alarm.record}` }, `#${alarm.record}`)))),
      h("form", { class: "row controls", onsubmit: send },
        h("label", {}, t("models.seen_by"), " ", by), h("label", {}, t("models.done"), " ", note), seen),
    ];
  }

  async function drawPast(past) {
    try {
      const { alarms } = await api.alarms(page.product, { limit: LINES });
      past.replaceChildren(alarms.length ? driftLines(alarms) : t("models.no_alarms"));
    } catch (error) {
      past.replaceChildren(said(error));
    }
  }

  return { element, load };
}

/** Alarms as a list: when, why, and who acknowledged each. */
export const driftLines = (alarms) => h("ul", { class: "alarms" }, alarms.map((alarm) => h("li", {},
  t("models.alarm", { time: time(alarm.time), version: alarm.version }), " ", said(alarm.message), " ",
  h("i", {}, alarm.acknowledged ? `${t("models.acknowledged", { by: alarm.acknowledged_by, time: time(alarm.acknowledged) })} ${alarm.note || ""}` : t("models.open")))));
