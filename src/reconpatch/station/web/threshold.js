// Threshold: a histogram of scores with the threshold as a line to drag, and what it would do.

import * as api from "./api.js";
import { confirmed } from "./changes.js";
import { during, h, number, percent, plainNumber, said, svg, toast } from "./dom.js";
import { called } from "./items.js";
import { t, whole } from "./words.js";

const [HEIGHT, LEFT, BOTTOM, TOP] = [340, 46, 44, 26];
const RESCORED = 200; // photos of the past that are scored again, at most
const WAIT = 150; // milliseconds after the last move before the service is asked

export function thresholdView(main, page) {
  let data = null;
  let etag = null; // of what is in service, as it is shown here
  let value = 0;
  let timer = 0;
  let asked = 0; // counts questions, so that an answer that was overtaken is dropped
  let closed = false;
  let axis = null;
  let WIDTH = 900; // pixels of the chart, so that its text stays as large as other text
  let BINS = 60;

  const chart = svg("svg", { class: "histogram" });
  const exact = h("input", { type: "number", id: "exact", step: "any", min: 0, onchange: () => move(Number(exact.value)) });
  const rate = h("input", { type: "number", id: "rate", step: "any", min: 0.0001, max: 99, placeholder: "1", onchange: () => byRate() });
  const effect = h("div", { class: "effect", "aria-live": "polite" });
  const promise = h("p", { class: "promise" });
  const apply = h("button", { type: "button", class: "primary", "data-needs": "change", onclick: put }, t("threshold.apply"));
  const reset = h("button", { type: "button", onclick: () => move(data.threshold) }, t("threshold.reset"));
  const again = h("button", { type: "button", id: "rescore", onclick: rescore }, t("threshold.again"));
  const past = h("p", { class: "note warn", role: "status", hidden: true }, h("span", {}), " ", again);
  const handle = svg("g", { class: "handle", tabindex: 0, role: "slider", "aria-label": t("view.threshold"), onkeydown: press });
  const line = svg("line", { y1: TOP - 8, y2: HEIGHT - BOTTOM });
  const grip = svg("rect", { y: TOP - 24, width: 86, height: 22, rx: 4 });
  const label = svg("text", { y: TOP - 8, "text-anchor": "middle" });
  handle.append(svg("rect", { class: "catch", y: 0, width: 44, height: HEIGHT - BOTTOM, x: -22 }), line, grip, label);

  main.append(h("div", { class: "threshold" },
    h("h1", {}, t("threshold.title", { product: page.product })),
    h("p", {}, t("threshold.about")),
    past,
    h("div", { class: "chart" }, chart),
    h("ul", { class: "legend" },
      h("li", {}, h("i", { class: "key good" }), t("threshold.key.below")), h("li", {}, h("i", { class: "key anomalous" }), t("threshold.key.above")),
      h("li", {}, h("i", { class: "key calibration" }), t("threshold.key.calibration")),
      h("li", {}, h("i", { class: "key dot good" }), called("good")), h("li", {}, h("i", { class: "key dot defect" }), called("defect"))),
    h("div", { class: "row controls" },
      h("label", {}, t("view.threshold"), " ", exact), h("label", {}, t("threshold.rate"), " ", rate), apply, reset),
    effect, promise));
  load();

  async function load() {
    try {
      await page.refresh(); // what a change is asked of (If-Match) is not newer than what is shown
      etag = page.facts?.etag;
      data = await api.scores(page.product);
    } catch (error) {
      toast(said(error), { kind: "error" });
      return;
    }
    if (closed) return;
    value = data.threshold;
    draw();
    move(value);
    offerPast();
  }

  /** Offer to score photos again that were judged on another scale, where there are any. */
  async function offerPast() {
    const known = new Set(data.recent.map((one) => one.id));
    const last = (await api.records({ product: page.product, limit: RESCORED }).catch(() => ({ records: [] }))).records;
    const others = last.filter((record) => !known.has(record.id)).length;
    past.hidden = !others;
    tellPast(t("threshold.others", { others, n: last.length }));
  }

  const tellPast = (text) => { past.firstChild.textContent = text; };

  /** What the version in service makes of photos that other versions judged. */
  function rescore() {
    during(again, async () => {
      const known = new Set(data.recent.map((one) => one.id));
      let cursor = null;
      let done = 0;
      do {
        const found = await api.rescored(page.product, page.facts.version, { limit: 20, cursor });
        if (closed) return;
        for (const one of found.items) {
          done += 1;
          if (!known.has(one.id)) data.recent.push({ id: one.id, score: one.rescored, anomalous: one.anomalous, feedback: one.feedback });
        }
        cursor = found.cursor;
        tellPast(t("threshold.scored", { n: done }));
        draw();
        move(value, { ask: false });
      } while (cursor && done < RESCORED);
      again.hidden = true;
    });
  }

  // --- Drawing -----------------------------------------------------------------------------------

  const x = (score) => LEFT + (WIDTH - LEFT - 12) * Math.min(1, (score - axis.low) / (axis.high - axis.low));

  function draw() {
    WIDTH = Math.max(260, Math.round(chart.getBoundingClientRect().width) || 900);
    const photos = Math.max(data.recent.length, data.calibration.length);
    BINS = clamp(Math.round(Math.min(WIDTH / 15, 4 * Math.sqrt(photos))), 16, 100);
    chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    const recent = data.recent.map((one) => one.score);
    const all = [...recent, ...data.calibration, data.threshold];
    const most = Math.max(...data.calibration, data.threshold);
    const low = Math.min(...all);
    const high = Math.max(1.15 * most, Math.min(Math.max(...all) * 1.02, 3 * most));
    const room = (high - low) * 0.04 || 1;
    axis = { low: Math.max(0, low - room), high: high + room };
    axis.beyond = recent.filter((score) => score > axis.high).length;
    const ours = shares(recent);
    const theirs = shares(data.calibration);
    const top = Math.max(...ours, ...theirs, 0.01);
    const y = (share) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * Math.sqrt(share / top);
    const step = (WIDTH - LEFT - 12) / BINS;
    chart.replaceChildren(...grid(top, y),
      ...ours.map((share, i) => share && svg("rect", { class: "bar", "data-from": edge(i), x: LEFT + i * step + 0.5, width: step - 1, y: Math.min(y(share), HEIGHT - BOTTOM - 3), height: Math.max(3, HEIGHT - BOTTOM - y(share)) })).filter(Boolean),
      svg("path", { class: "calibration", d: outline(theirs, y, step) }),
      ...data.recent.filter((one) => one.feedback).map((one) => svg("circle", { class: `dot ${one.feedback}`, cx: x(one.score), cy: HEIGHT - BOTTOM - 8, r: 5 }, svg("title", {}, `${called(one.feedback)}, ${number(one.score)}`))),
      svg("line", { class: "in-service", x1: x(data.threshold), x2: x(data.threshold), y1: TOP, y2: HEIGHT - BOTTOM }),
      handle);
  }

  const edge = (bin) => axis.low + (bin / BINS) * (axis.high - axis.low);

  function shares(scores) {
    const bins = new Array(BINS).fill(0);
    for (const score of scores) bins[Math.min(BINS - 1, Math.floor((BINS * (score - axis.low)) / (axis.high - axis.low)))] += 1;
    return bins.map((n) => n / Math.max(1, scores.length));
  }

  function outline(bins, y, step) {
    const points = bins.flatMap((share, i) => [[LEFT + i * step, y(share)], [LEFT + (i + 1) * step, y(share)]]);
    return `M${points.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L")}`;
  }

  function grid(top, y) {
    const lines = [0.1, 0.4, 1].map((part) => top * part).map((share) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 12, y1: y(share), y2: y(share) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, percent(Number(share.toPrecision(1 + (share >= 0.1))))),
    ]);
    const marks = ticks(axis.low, axis.high, WIDTH / 100).map((score) => svg("text", { class: "tick", x: x(score), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, number(score)));
    const title = svg("text", { class: "tick", x: WIDTH - 12, y: HEIGHT - 8, "text-anchor": "end" }, axis.beyond ? t("threshold.axis_beyond", { n: axis.beyond }) : t("threshold.axis"));
    return [...lines.flat(), ...marks, title, svg("line", { class: "axis", x1: LEFT, x2: WIDTH - 12, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM })];
  }

  // --- Moving the line ---------------------------------------------------------------------------

  function move(to, { ask = true } = {}) {
    if (!data || !Number.isFinite(to)) return;
    value = Math.max(0, to);
    handle.setAttribute("transform", `translate(${x(value)} 0)`);
    const shift = Math.min(0, WIDTH - 46 - x(value)) + Math.max(0, 46 - x(value));
    grip.setAttribute("x", shift - 43);
    label.setAttribute("x", shift);
    label.textContent = number(value);
    handle.setAttribute("aria-valuemin", 0);
    handle.setAttribute("aria-valuemax", axis.high);
    handle.setAttribute("aria-valuenow", value);
    handle.setAttribute("aria-valuetext", number(value));
    if (document.activeElement !== exact) exact.value = plainNumber(value);
    for (const bar of chart.querySelectorAll(".bar")) bar.classList.toggle("above", Number(bar.dataset.from) >= value);
    const unchanged = value === data.threshold;
    apply.disabled = reset.disabled = unchanged;
    tell();
    if (ask) clearTimeout(timer);
    if (ask) timer = setTimeout(expect, WAIT);
  }

  function tell() {
    const above = (list) => list.filter((one) => one.score > value).length;
    const { recent } = data;
    const now = recent.filter((one) => one.anomalous).length;
    effect.replaceChildren(
      figure("then", whole(above(recent)), t("threshold.then", { n: recent.length, now })),
      goods, defects, expected);
  }

  const goods = figure("goods", "…", t("threshold.goods"));
  const defects = figure("defects", "…", t("threshold.defects"));
  const expected = figure("expected", "…", t("threshold.expected"));

  async function expect(query = value === data.threshold ? {} : { score: value }) {
    const mine = ++asked;
    try {
      const told = await api.preview(page.product, query);
      if (closed || mine !== asked) return told;
      const [low, high] = told.false_alarm_range;
      expected.replaceChildren(h("b", {}, percent(told.false_alarm_rate)), h("span", {}, t("threshold.expected_range", { low: percent(low), high: percent(high) })));
      promise.replaceChildren(said(told.promise));
      tellConfirmed(told.confirmed);
      if (told.confirmed.unscored) timer = setTimeout(() => expect(query), 2000);
      return told;
    } catch (error) {
      promise.replaceChildren(said(error));
      return null;
    }
  }

  /** What the line makes of all parts that somebody has judged, however old. */
  function tellConfirmed(c) {
    const later = c.unscored ? `; ${t("threshold.unscored", { n: c.unscored })}` : "";
    goods.replaceChildren(h("b", {}, t("of", { n: c.false_alarms_then, of: c.goods })), h("span", {}, `${t("threshold.goods_now", { now: c.false_alarms_now })}${later}`));
    defects.replaceChildren(h("b", {}, t("of", { n: c.missed_then, of: c.defects })), h("span", {}, `${t("threshold.defects_now", { now: c.missed_now })}${later}`));
    defects.classList.toggle("worse", c.missed_then > c.missed_now);
  }

  async function byRate() {
    if (!rate.value) return;
    const told = await expect({ false_alarm_rate: Number(rate.value) / 100 });
    if (told) move(told.threshold);
  }

  function press(event) {
    const unit = (axis.high - axis.low) / 200;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    if (event.key === "Home") move(data.threshold);
    else if (event.key in steps) move(value + unit * steps[event.key]);
    else return;
    event.preventDefault();
  }

  chart.addEventListener("pointerdown", (event) => {
    if (!data || event.button) return;
    chart.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    drag(event);
    chart.addEventListener("pointermove", drag);
  });
  for (const end of ["pointerup", "pointercancel"]) chart.addEventListener(end, () => chart.removeEventListener("pointermove", drag));

  function drag(event) {
    event.preventDefault();
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    move(axis.low + ((at - LEFT) / (WIDTH - LEFT - 12)) * (axis.high - axis.low));
  }

  function put() {
    during(apply, async () => {
      const before = page.facts.version;
      let version;
      try {
        version = await confirmed({
          change: (confirm) => api.setThreshold(page.product, { score: value, confirm }, etag),
          look: () => api.preview(page.product, { score: value }),
          title: t("threshold.ask", { threshold: number(value) }),
        });
      } catch (error) {
        if (page.tellConflict(error, load)) return;
        throw error;
      }
      if (!version) return;
      page.tellSwap(version, before, load, t("threshold.told", { version: version.number, threshold: number(version.threshold) }));
      await load();
    }, t("putting")).then(() => move(value));
  }

  const resized = new ResizeObserver(() => { if (data) { draw(); move(value, { ask: false }); } });
  resized.observe(chart);

  return { close() { closed = true; clearTimeout(timer); resized.disconnect(); } };
}

const clamp = (n, low, high) => Math.min(Math.max(n, low), high);

const figure = (kind, value, words) => h("p", { class: `figure ${kind}` }, h("b", {}, value), h("span", {}, words));

/** Round numbers along an axis. */
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}
