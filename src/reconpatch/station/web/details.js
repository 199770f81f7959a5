// What else an operator says of a defect: of which kind it is, and where. Drawn on the photo, or left to
// the heat map.

import * as api from "./api.js";
import { during, h } from "./dom.js";
import { t } from "./words.js";

const NARROW = 0.01; // of the photo's longer side, the thinnest brush
const MOST_KINDS = 12; // to choose from by one press, the most frequent ones
const MOST_STROKES = 200; // as the service takes them
const MOST_POINTS = 2000; // of all strokes together

/** What is said of a part beside "good" or "defect". */
export const detailsOf = (part) => ({ kind: part.feedback_kind, place: part.feedback_place || [] });

/** A form below the feedback buttons; `keep(part, details)` sends it, `hold()` keeps the part on the screen. */
export function defectDetails(stage, { keep, hold }) {
  let part = null;
  let key = ""; // what is in the form, so that it is not written over while somebody fills it in
  let strokes = [];
  let open = false; // whether the last of them goes on; not where there are as many as the service takes
  const known = h("datalist", { id: "kinds" });
  const kind = h("input", { id: "kind", maxlength: 64, list: "kinds", autocomplete: "off", placeholder: t("details.kind_hint"), onfocus: hold, oninput: mark });
  const chips = h("div", { class: "row kinds", role: "group", "aria-label": t("details.known") });
  const draw = h("button", { type: "button", id: "draw", "aria-pressed": "false", onclick: () => { hold(); pen(draw.getAttribute("aria-pressed") !== "true"); } }, t("details.draw"));
  const brush = h("input", { type: "range", id: "brush", min: 1, max: 12, value: 4, "aria-label": t("details.brush") });
  const clear = h("button", { type: "button", class: "quiet", onclick: () => { strokes = []; drawn(); } }, t("details.clear"));
  const where = h("p", { class: "where" });
  const save = h("button", { type: "submit", class: "primary", id: "keep", "data-needs": "feedback" }, t("details.keep"));
  const form = h("form", { class: "details", hidden: true, "aria-label": t("details.label"), onsubmit: send },
    chips, h("label", {}, t("details.kind"), " ", kind, known), h("div", { class: "row" }, draw, brush, clear), where, save);

  function drawn() {
    stage.draw(strokes);
    clear.hidden = !strokes.length;
    where.textContent = strokes.length ? t("details.drawn", { n: strokes.length }) : t("details.not_drawn");
  }

  const points = () => strokes.reduce((sum, one) => sum + one.points.length, 0);

  function pen(on) {
    draw.setAttribute("aria-pressed", on);
    brush.hidden = !on;
    stage.pen(on && {
      width: () => Math.max(1, NARROW * Number(brush.value) * Math.max(part.width, part.height)),
      begin(stroke) {
        open = strokes.length < MOST_STROKES && points() < MOST_POINTS;
        if (open) { strokes = [...strokes, stroke]; drawn(); }
      },
      go(point) { if (open && points() < MOST_POINTS) { strokes.at(-1).points.push(point); drawn(); } },
    });
  }

  /** Which of the kinds to choose from is in the field. */
  function mark() {
    for (const one of chips.children) one.setAttribute("aria-pressed", one.dataset.kind === kind.value.trim());
  }

  function send(event) {
    event.preventDefault();
    const said = { kind: kind.value.trim() || null, place: strokes };
    during(save, () => keep(part, said));
  }

  return {
    element: form,
    /** Show what is said of a part; nothing of one that is not called a defect. */
    show(now) {
      const next = now && now.feedback === "defect" ? `${now.id}-${now.feedback_count}` : "";
      form.hidden = !next;
      if (next === key) return;
      key = next;
      part = now;
      strokes = next ? detailsOf(now).place.map((one) => ({ ...one, points: [...one.points] })) : [];
      kind.value = next ? now.feedback_kind || "" : "";
      mark();
      pen(false);
      drawn();
      if (next) suggest(now.product);
    },
  };

  async function suggest(product) {
    try {
      const { kinds } = await api.defects(product);
      known.replaceChildren(...kinds.map((one) => h("option", { value: one.name })));
      const most = [...kinds].sort((a, b) => b.confirmed - a.confirmed).slice(0, MOST_KINDS);
      chips.replaceChildren(...most.map((one) => h("button", { type: "button", "data-kind": one.name, onclick: () => { hold(); kind.value = kind.value === one.name ? "" : one.name; mark(); } }, one.name)));
      mark();
    } catch { /* a kind can be typed all the same */ }
  }
}
