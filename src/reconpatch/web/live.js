// Live: the newest verdict large, its photo with heat map and frames, what it was compared with,
// and a strip of the photos before it.

import * as api from "./api.js";
import { count, during, h, number, percent, photoChooser, speak, svg, time, toast } from "./dom.js";
import { webcamPanel } from "./webcam.js";

const STRIP = 24;
const EVERY = 1000; // milliseconds between two looks at the records

export function liveView(main, page, [wanted]) {
  let records = [];
  let chosen = null; // the record that is shown
  let follow = !wanted;
  let closed = false;
  let asked = 0; // counts looks, so that an answer that was overtaken is dropped
  const tiles = new Map();

  // --- What is on the screen ---------------------------------------------------------------------

  const verdict = h("p", { class: "verdict", id: "verdict" }, "No photo yet");
  const facts = h("p", { class: "facts" });
  const stage = photoStage();
  const why = h("section", { class: "why", "aria-label": "Why" });
  const said = h("p", { class: "said" });
  const good = h("button", { type: "button", class: "say good", onclick: () => say("good", good) }, "This was good ", h("kbd", {}, "G"));
  const defect = h("button", { type: "button", class: "say defect", onclick: () => say("defect", defect) }, "This was a defect ", h("kbd", {}, "D"));
  const back = h("button", { type: "button", class: "quiet", onclick: () => say(null, back) }, "Take back");
  const feedback = h("section", { class: "feedback", "aria-label": "What was it really?" }, good, defect, said, back);
  const strip = h("ol", { class: "strip", "aria-label": "Last photos, newest first" });
  const newest = h("button", { type: "button", class: "newest", onclick: followNewest }, "Follow the newest");
  const choose = photoChooser("file", inspectAll, "Choose photos ", h("kbd", {}, "O"));
  const webcam = webcamPanel((blob) => page.inspect([blob]).then(look));
  const wallHint = h("p", { class: "wall-hint" }, "Wall view: W ends it");

  main.append(
    h("div", { class: "live" },
      h("div", { class: "shown" }, h("div", { class: "headline" }, verdict, facts), stage.element),
      h("div", { class: "beside" }, feedback, why,
        h("section", { class: "source", "aria-label": "Photos" },
          h("h2", {}, "Inspect"),
          h("p", {}, "Drop photos anywhere, or"),
          h("div", { class: "row" },
            choose, webcam.button),
          webcam.element)),
      h("section", { class: "last", "aria-label": "Last photos" },
        h("div", { class: "row" }, h("h2", {}, "Last photos"), newest), strip)), wallHint);
  show(null);
  start();

  // --- Records -----------------------------------------------------------------------------------

  async function start() {
    if (wanted) await open(Number(wanted));
    look();
  }

  async function open(id) {
    try {
      const record = await api.record(id);
      if (record.product !== page.product) page.choose(record.product);
      follow = false;
      show(record);
    } catch (error) {
      toast(error.message, { kind: "error" });
      follow = true;
    }
  }

  async function look() {
    clearTimeout(look.timer);
    const mine = ++asked;
    try {
      const found = (await api.records({ product: page.product, limit: STRIP })).records;
      if (closed || mine !== asked) return;
      if (follow && found.length && (!chosen || found[0].id !== chosen.id)) show(found[0]);
      drawStrip(found);
    } catch { /* the header says that there is no answer */ }
    if (!closed && mine === asked) look.timer = setTimeout(look, EVERY);
  }

  function drawStrip(found) {
    records = found;
    const wantedIds = new Set(found.map((record) => record.id));
    for (const [id, tile] of tiles) if (!wantedIds.has(id)) { tile.element.remove(); tiles.delete(id); }
    let before = strip.firstChild;
    for (const record of found) {
      let tile = tiles.get(record.id);
      if (!tile) { tile = stripTile(record, () => pick(record.id)); tiles.set(record.id, tile); }
      tile.show(record, chosen && chosen.id === record.id);
      if (tile.element !== before) strip.insertBefore(tile.element, before);
      else before = before.nextSibling;
    }
    newest.hidden = follow;
  }

  function pick(id) {
    const record = records.find((one) => one.id === id);
    if (!record) return;
    follow = record.id === records[0].id;
    show(record);
    drawStrip(records);
  }

  function step(by) {
    const at = records.findIndex((one) => chosen && one.id === chosen.id);
    const next = records[at + by];
    if (next) { pick(next.id); tiles.get(next.id).element.scrollIntoView({ block: "nearest", inline: "nearest" }); }
  }

  function followNewest() {
    follow = true;
    if (records.length) pick(records[0].id);
  }

  // --- One record --------------------------------------------------------------------------------

  function show(record) {
    chosen = record;
    main.querySelector(".live").classList.toggle("empty", !record);
    for (const element of [stage.element, feedback, why]) element.hidden = !record;
    if (!record) {
      verdict.className = "verdict none";
      facts.textContent = "Drop a photo anywhere on this page, choose one, or let a program send them.";
      return;
    }
    verdict.className = `verdict ${record.anomalous ? "anomalous" : "good"}`;
    verdict.replaceChildren(h("span", { class: "mark", "aria-hidden": "true" }, record.anomalous ? "✕" : "✓"), record.anomalous ? "ANOMALOUS" : "GOOD");
    facts.replaceChildren(
      h("b", { class: "name" }, record.name), ` · ${time(record.time)} · score `, h("b", {}, number(record.score)),
      ` ${record.anomalous ? ">" : "≤"} threshold ${number(record.threshold)} · version ${record.version}`);
    speak(`${record.name}: ${record.anomalous ? "anomalous" : "good"}, score ${number(record.score)}`);
    stage.show(record);
    why.replaceChildren(...explained(record));
    showFeedback();
  }

  function showFeedback() {
    good.setAttribute("aria-pressed", chosen.feedback === "good");
    defect.setAttribute("aria-pressed", chosen.feedback === "defect");
    back.hidden = !chosen.feedback;
    said.textContent = chosen.feedback ? `Called ${chosen.feedback === "good" ? "good" : "a defect"}, ${time(chosen.feedback_time)}.` : "";
  }

  async function say(what, button) {
    if (!chosen) return;
    const id = chosen.id;
    await during(button, async () => {
      const record = await api.feedback(id, what);
      if (chosen && chosen.id === id) { chosen = record; showFeedback(); }
      speak(what ? `${record.name} was ${what === "good" ? "good" : "a defect"}` : "taken back");
      look();
    });
  }

  async function inspectAll(files) {
    follow = true;
    await page.inspect(files);
    look();
  }

  return {
    go([id]) {
      if (id) open(Number(id)).then(look);
      else followNewest();
      return true;
    },
    drop: inspectAll,
    close() {
      closed = true;
      clearTimeout(look.timer);
      webcam.stop();
      document.body.classList.remove("wall");
    },
    keys: {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), n: followNewest,
      g: () => say("good", good), d: () => say("defect", defect), u: () => say(null, back),
      h: stage.toggleHeat, r: stage.toggleFrames, o: () => choose[0].click(), c: webcam.toggle,
      " ": webcam.capture, w: () => document.body.classList.toggle("wall"),
      Escape: () => document.body.classList.remove("wall"),
    },
  };
}

// --- The photo with what was found ---------------------------------------------------------------

function photoStage() {
  const photo = h("img", { class: "photo", alt: "" });
  const heat = h("img", { class: "heat", alt: "" });
  const frames = svg("svg", { class: "frames", "aria-hidden": "true" });
  const gone = h("p", { class: "gone", hidden: true }, "The photo is no longer stored; its record is.");
  const opacity = h("input", { type: "range", id: "opacity", min: 0, max: 100, value: localStorage.getItem("opacity") ?? 60, oninput: fade });
  const framed = h("input", { type: "checkbox", id: "framed", checked: localStorage.getItem("framed") !== "no", onchange: frame });
  const box = h("div", { class: "picture" }, photo, heat, frames, gone);
  const element = h("figure", { class: "stage" }, box,
    h("figcaption", {},
      h("label", { for: "opacity" }, "Heat map"), opacity,
      h("span", { class: "scale", role: "img", "aria-label": "Colours of the heat map: nothing below three quarters of the threshold, yellow at it, deep red at twice the threshold and beyond" }),
      h("span", { class: "scale-text" }, "1 × … 2 × threshold"),
      h("label", {}, framed, " Frames")));
  let last = Number(opacity.value) || 60;
  let shown = null;
  photo.addEventListener("error", () => { if (shown) { gone.hidden = false; photo.hidden = heat.hidden = true; } });
  heat.addEventListener("error", () => { heat.hidden = true; });
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
      heat.hidden = true;
      photo.alt = `${record.name}, ${count(record.regions.length, "anomalous region")}`;
      photo.src = api.picture(record.id, "picture", { size });
      heat.src = api.picture(record.id, "heatmap", { size });
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
function explained(record) {
  const { closest, regions } = record;
  const none = h("p", { class: "note", hidden: true }, "The model holds no pictures of its good photos.");
  const whole = h("img", { class: "closest", alt: `The good photo ${closest.photo}, its closest patch framed` });
  const [ours, theirs] = [crop("The worst patch and what is around it"), crop("The closest good patch and what is around it")];
  const worst = regions.length ? [...regions].sort((a, b) => b.peak_value - a.peak_value)[0] : null;
  whole.addEventListener("error", () => { whole.hidden = theirs.hidden = true; none.hidden = false; });
  whole.addEventListener("load", () => { if (closest.thumbnail_box) theirs.draw(whole, closest.thumbnail_box, 1); });
  whole.src = api.picture(record.id, "closest");
  const photo = new Image();
  photo.addEventListener("load", () => { if (closest.patch_box) ours.draw(photo, closest.patch_box, photo.naturalWidth / record.width); });
  photo.src = api.picture(record.id, "picture", { size: 1600 });
  return [
    h("h2", {}, "Why"),
    h("div", { class: "compared" },
      h("figure", {}, ours, h("figcaption", {}, "Worst patch of this photo")),
      h("figure", {}, theirs, none, h("figcaption", {}, "Closest good patch"))),
    h("figure", { class: "whole" }, whole, h("figcaption", {}, "It is in ", h("b", {}, closest.photo))),
    h("dl", { class: "figures" },
      h("dt", {}, "Score"), h("dd", {}, `${number(record.score)}, threshold ${number(record.threshold)}`),
      h("dt", {}, "Among good photos"), h("dd", {}, `at most about ${percent(record.p_value)} score this high (p = ${Number(record.p_value.toPrecision(2))})`),
      h("dt", {}, "Regions"), h("dd", {}, regions.length ? `${regions.length}; the worst at ${worst.peak.join(", ")}` : "none")),
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

// --- The strip -----------------------------------------------------------------------------------

function stripTile(record, onPick) {
  const image = h("img", { alt: "", loading: "lazy", src: api.picture(record.id, "picture", { size: 160 }) });
  image.addEventListener("error", () => { image.hidden = true; });
  const told = h("span", { class: "told" });
  const button = h("button", { type: "button", onclick: onPick }, image,
    h("span", { class: "tag", "aria-hidden": "true" }, record.anomalous ? "✕" : "✓"), told,
    h("span", { class: "score" }, number(record.score)));
  const element = h("li", { class: record.anomalous ? "anomalous" : "good" }, button);
  return {
    element,
    show(now, current) {
      const words = { good: "called good", defect: "called a defect" };
      button.setAttribute("aria-label", `${now.name}, ${now.anomalous ? "anomalous" : "good"}, score ${number(now.score)}${now.feedback ? `, ${words[now.feedback]}` : ""}`);
      button.title = `${now.name}\n${time(now.time)}`;
      told.textContent = now.feedback === "good" ? "good" : now.feedback === "defect" ? "defect" : "";
      told.className = `told ${now.feedback || ""}`;
      if (current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    },
  };
}
