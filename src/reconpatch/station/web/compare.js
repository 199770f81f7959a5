// A photo and the good photo that it was compared with, side by side: both are moved and enlarged as one,
// around the worst patch and the good one that is closest to it.

import * as api from "./api.js";
import { h, showPicture } from "./dom.js";
import { t } from "./words.js";

const [NEAREST, FARTHEST] = [0.5, 40]; // patches that a pane is wide
const STEP = 1.3;
const LARGEST = 4096; // pixels of the longer side that are asked for

/** Open the comparison of a record. */
export function openComparison(record) {
  const { closest } = record;
  let [across, x, y] = [4, 0, 0]; // patches from left to right, and the middle, in patches from the patch's own
  const pointers = new Map(); // of fingers and mice that are down: [x, y]
  const ours = pane(t("why.worst_alt"), closest.patch_box, record.width);
  const theirs = pane(t("why.closest_alt"), closest.thumbnail_box, null);
  const panes = [ours, theirs];
  const heat = h("input", { type: "checkbox", onchange: draw });
  const warm = new Image();
  warm.addEventListener("load", draw);
  showPicture(ours.image, api.picture(record.id, "picture", { size: LARGEST }), (why) => ours.gone(why));
  showPicture(warm, api.picture(record.id, "heatmap", { size: LARGEST }), () => {});
  showPicture(theirs.image, api.picture(record.id, "closest"), () => theirs.gone(t("why.no_pictures")));

  const button = (key, label, does) => h("button", { type: "button", "aria-label": label, title: label, onclick: does }, key);
  const dialog = h("dialog", { class: "comparing", "aria-labelledby": "comparing-title", onkeydown: press },
    h("div", { class: "row" }, h("h2", { id: "comparing-title" }, t("compare.title")),
      button("+", t("compare.nearer"), () => zoom(1 / STEP)), button("−", t("compare.farther"), () => zoom(STEP)), button("1:1", t("compare.reset"), reset),
      h("label", {}, heat, " ", t("stage.heat")), h("form", { method: "dialog" }, h("button", { autofocus: true }, t("close")))),
    h("div", { class: "panes" }, h("figure", {}, ours.canvas, ours.note, h("figcaption", {}, record.name)), h("figure", {}, theirs.canvas, theirs.note, h("figcaption", {}, closest.photo))),
    h("p", {}, t("compare.keys")));
  const resized = new ResizeObserver(draw);
  dialog.addEventListener("close", () => { resized.disconnect(); dialog.remove(); });
  document.body.append(dialog);
  dialog.showModal();
  for (const one of panes) resized.observe(one.canvas);

  function pane(label, box, width) {
    const image = new Image();
    const note = h("p", { class: "note", hidden: true });
    const canvas = h("canvas", { role: "img", "aria-label": label, onpointerdown: down, onpointermove: move, onpointerup: up, onpointercancel: up, onwheel: wheel });
    image.addEventListener("load", draw);
    return { image, canvas, note, box, width, gone(why) { note.textContent = why; note.hidden = false; canvas.hidden = true; } };
  }

  function draw() {
    for (const one of panes) drawPane(one, one === ours && heat.checked && warm.naturalWidth ? warm : null);
  }

  function drawPane({ image, canvas, box, width }, over) {
    const { clientWidth: w, clientHeight: h_ } = canvas;
    if (!image.naturalWidth || !w) return;
    canvas.width = w * devicePixelRatio;
    canvas.height = h_ * devicePixelRatio;
    const pen = canvas.getContext("2d");
    const full = width ?? image.naturalWidth; // the box is in pixels of the photo, which may come smaller
    const [x0, y0, x1, y1] = box ?? [0, 0, full, full * image.naturalHeight / image.naturalWidth];
    const patch = Math.max(x1 - x0, y1 - y0);
    const scale = canvas.width / (across * patch); // pixels of the pane in one of the photo
    pen.imageSmoothingEnabled = scale * full / image.naturalWidth < 3; // enlarged further, pixels are shown as such
    pen.translate(canvas.width / 2 - scale * ((x0 + x1) / 2 + x * patch), canvas.height / 2 - scale * ((y0 + y1) / 2 + y * patch));
    const [wide, high] = [full * scale, full * scale * image.naturalHeight / image.naturalWidth];
    pen.drawImage(image, 0, 0, wide, high);
    if (over) { pen.globalAlpha = 0.6; pen.drawImage(over, 0, 0, wide, high); pen.globalAlpha = 1; }
    for (const [colour, line] of [["#000", 5], ["#27e1ff", 3]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      if (box) pen.strokeRect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
    }
    canvas.dataset.view = [across, x, y].map((one) => one.toFixed(3)).join(" ");
  }

  /** Show so many times as much; what is at `at`, in patches from the middle, stays there. */
  function zoom(by, at = [0, 0]) {
    const next = Math.min(FARTHEST, Math.max(NEAREST, across * by));
    x += at[0] * (1 - next / across);
    y += at[1] * (1 - next / across);
    across = next;
    draw();
  }

  function pan(dx, dy) { x += dx; y += dy; draw(); }

  function reset() { [across, x, y] = [4, 0, 0]; draw(); }

  /** Where something is on a pane, in patches from its middle. */
  function at(event, canvas) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left - box.width / 2) / box.width * across, (event.clientY - box.top - box.height / 2) / box.width * across];
  }

  function wheel(event) {
    event.preventDefault();
    zoom(event.deltaY > 0 ? STEP : 1 / STEP, at(event, event.currentTarget));
  }

  function down(event) {
    event.currentTarget.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  function move(event) {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const unit = across / event.currentTarget.clientWidth;
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, now);
    if (other) {
      const apart = ([ax, ay]) => Math.max(1, Math.hypot(ax - other[0], ay - other[1]));
      zoom(apart(before) / apart(now));
    } else pan((before[0] - now[0]) * unit, (before[1] - now[1]) * unit);
  }

  function up(event) { pointers.delete(event.pointerId); }

  function press(event) {
    const far = across / 10;
    const does = { "+": () => zoom(1 / STEP), "-": () => zoom(STEP), 0: reset, ArrowLeft: () => pan(-far, 0), ArrowRight: () => pan(far, 0), ArrowUp: () => pan(0, -far), ArrowDown: () => pan(0, far) }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }
}
