// The photo with what was found on it, and what its worst patch was compared with.

import * as api from "./api.js";
import { h, number, percent, showPicture, svg } from "./dom.js";
import { kindText } from "./items.js";
import { rich, significant, t } from "./words.js";

export function photoStage() {
  const photo = h("img", { class: "photo", alt: "" });
  const heat = h("img", { class: "heat", alt: "" });
  const frames = svg("svg", { class: "frames", "aria-hidden": "true" });
  const drawing = svg("svg", { class: "drawing", "aria-hidden": "true", onpointerdown: down, onpointermove: move });
  const gone = h("p", { class: "gone", hidden: true });
  const opacity = h("input", { type: "range", id: "opacity", min: 0, max: 100, value: localStorage.getItem("opacity") ?? 60, oninput: fade });
  const framed = h("input", { type: "checkbox", id: "framed", checked: localStorage.getItem("framed") !== "no", onchange: frame });
  const box = h("div", { class: "picture" }, photo, heat, frames, drawing, gone);
  const element = h("figure", { class: "stage" }, box,
    h("figcaption", {},
      h("label", { for: "opacity" }, t("stage.heat")), opacity,
      h("span", { class: "scale", role: "img", "aria-label": t("stage.scale") }),
      h("span", { class: "scale-text" }, t("stage.scale_text")),
      h("label", {}, framed, " ", t("stage.frames"))));
  let last = Number(opacity.value) || 60;
  let shown = null;
  let pen = null; // what somebody draws with
  let sides = [1, 1]; // of the photo, in pixels
  let before = [0, 0]; // the last point that was drawn
  photo.addEventListener("load", () => { photo.hidden = false; });
  heat.addEventListener("load", () => { heat.hidden = false; });
  fade();
  frame();

  function fade() {
    heat.style.opacity = opacity.value / 100;
    opacity.setAttribute("aria-valuetext", `${opacity.value} %`);
    localStorage.setItem("opacity", opacity.value);
    if (Number(opacity.value)) last = Number(opacity.value);
  }

  function frame() {
    frames.classList.toggle("off", !framed.checked);
    localStorage.setItem("framed", framed.checked ? "yes" : "no");
  }

  /** Where on the photo the pointer is, in its pixels. */
  function at(event) {
    const box = drawing.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * sides[0], (event.clientY - box.top) / box.height * sides[1]];
  }

  function down(event) {
    if (!pen || event.button) return;
    event.preventDefault();
    drawing.setPointerCapture(event.pointerId);
    before = at(event);
    pen.begin({ width: pen.width(), points: [before] });
  }

  function move(event) {
    if (!pen || !drawing.hasPointerCapture(event.pointerId)) return;
    const point = at(event);
    if (Math.hypot(point[0] - before[0], point[1] - before[1]) < pen.width() / 4) return; // within what is covered
    before = point;
    pen.go(point);
  }

  function rectangle([x0, y0, x1, y1], kind) {
    return svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: kind, "vector-effect": "non-scaling-stroke" });
  }

  return {
    element,
    show(record) {
      if (shown === record.id) return;
      shown = record.id;
      const { width, height } = record;
      const size = 1600;
      gone.hidden = true;
      photo.hidden = heat.hidden = true; // the photo before does not stay under a verdict that is not its own
      photo.alt = t("stage.alt", { name: record.name, n: record.regions.length });
      showPicture(photo, api.picture(record.id, "picture", { size }), (reason) => { gone.textContent = reason; gone.hidden = false; });
      showPicture(heat, api.picture(record.id, "heatmap", { size }), () => {});
      sides = [width, height];
      drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
      photo.width = width;
      photo.height = height;
      box.style.setProperty("--ratio", `${width} / ${height}`);
      box.style.setProperty("--aspect", width / height);
      frames.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const patch = record.closest.patch_box;
      frames.replaceChildren(
        ...record.regions.flatMap((region) => [rectangle(region.box, "halo"), rectangle(region.box, "region")]),
        ...(patch ? [rectangle(patch, "halo"), rectangle(patch, "patch")] : []));
    },
    /** Show strokes that were drawn on the photo. */
    draw(strokes) {
      drawing.replaceChildren(...strokes.map(({ width, points }) => svg("polyline", {
        points: [...points, points.at(-1)].map((point) => point.join()).join(" "), "stroke-width": width })));
    },
    /** Let somebody draw: `width()` of a stroke, `begin(stroke)`, and `go(point)` for each point more; or false. */
    pen(given) {
      pen = given || null;
      drawing.classList.toggle("on", Boolean(pen));
    },
    toggleHeat() {
      opacity.value = Number(opacity.value) ? 0 : last;
      fade();
    },
    toggleFrames() {
      framed.checked = !framed.checked;
      frame();
    },
  };
}

/** The closest good patch beside the worst one, and the figures behind the verdict. */
export function explained(record) {
  const { closest, regions } = record;
  const none = h("p", { class: "note", hidden: true }, t("why.no_pictures"));
  const whole = h("img", { class: "closest", alt: t("why.whole_alt", { name: closest.photo }) });
  const [ours, theirs] = [crop(t("why.worst_alt")), crop(t("why.closest_alt"))];
  const worst = regions.length ? [...regions].sort((a, b) => b.peak_value - a.peak_value)[0] : null;
  whole.addEventListener("load", () => { if (closest.thumbnail_box) theirs.draw(whole, closest.thumbnail_box, 1); });
  showPicture(whole, api.picture(record.id, "closest"), () => { whole.hidden = theirs.hidden = true; none.hidden = false; });
  const photo = new Image();
  photo.addEventListener("load", () => { if (closest.patch_box) ours.draw(photo, closest.patch_box, photo.naturalWidth / record.width); });
  showPicture(photo, api.picture(record.id, "picture", { size: 1600 }), () => {});
  return [
    h("h2", {}, t("why.title")),
    h("div", { class: "compared" },
      h("figure", {}, ours, h("figcaption", {}, t("why.worst"))),
      h("figure", {}, theirs, none, h("figcaption", {}, t("why.closest")))),
    h("figure", { class: "whole" }, whole, h("figcaption", {}, rich("why.it_is_in", { name: h("b", {}, closest.photo) }))),
    h("dl", { class: "figures" },
      h("dt", {}, t("why.score")), h("dd", {}, t("why.figures", { score: number(record.score), threshold: number(record.threshold) })),
      h("dt", {}, t("why.among")), h("dd", {}, t("why.p", { share: percent(record.p_value), p: significant(record.p_value, 2) })),
      record.kind && h("dt", {}, t("why.kind")), record.kind && h("dd", { id: "kind-of-defect" }, kindText(record.kind)),
      record.whole && h("dt", {}, t("why.whole")), record.whole && h("dd", { id: "as-a-whole" }, t("why.as_a_whole")),
      h("dt", {}, t("why.regions")), h("dd", {}, regions.length ? t("why.worst_at", { n: regions.length, place: worst.peak.join(", ") }) : t("why.no_regions"))),
  ];
}

/** A canvas for a patch and three times as much around it, the patch framed. */
function crop(label) {
  const canvas = h("canvas", { class: "crop", width: 240, height: 240, role: "img", "aria-label": label });
  canvas.draw = (image, box, scale) => {
    const [x0, y0, x1, y1] = box.map((value) => value * scale);
    const side = Math.min(3 * Math.max(x1 - x0, y1 - y0), image.naturalWidth, image.naturalHeight);
    const left = clamp((x0 + x1 - side) / 2, 0, image.naturalWidth - side);
    const top = clamp((y0 + y1 - side) / 2, 0, image.naturalHeight - side);
    const pen = canvas.getContext("2d");
    const zoom = canvas.width / side;
    pen.drawImage(image, left, top, side, side, 0, 0, canvas.width, canvas.height);
    for (const [colour, width] of [["#000", 5], ["#27e1ff", 3]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.strokeRect((x0 - left) * zoom, (y0 - top) * zoom, (x1 - x0) * zoom, (y1 - y0) * zoom);
    }
  };
  return canvas;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));
