// Shifts: what a time came to, of all products and of one by shift, day or lot; each number leads to its
// records.

import * as api from "./api.js";
import { driftSection } from "./alarms.js";
import { drawDefects, drawTrend } from "./shift_charts.js";
import { h, local, percent, said, svg, toast } from "./dom.js";
import { dayOf, hour, moment } from "./plant_time.js";
import { t, whole } from "./words.js";

const EVERY = 30000; // milliseconds between two looks at a time that goes on
const COUNTS = ["inspected", "anomalous", "failed", "false_alarms", "misses"];
const OF = { // which records a number counts
  inspected: {},
  anomalous: { verdict: "anomalous" },
  failed: { verdict: "failed" },
  false_alarms: { verdict: "anomalous", feedback: "good" },
  misses: { verdict: "good", feedback: "defect" },
};

export function shiftsView(main, page, rest) {
  const given = new URLSearchParams(rest[0] || "");
  let closed = false;
  let timer = 0;
  let asked = 0;
  let plant = null; // zone and shifts, as the service says
  const choices = ["now", "before", "today", "yesterday", "7", "30", "other"];
  const when = h("select", { id: "shift-time", onchange: load }, choices.map((key) => h("option", { value: key, selected: key === (given.get("since") ? "other" : "now") }, t(`shifts.time.${key}`))));
  const from = h("input", { type: "datetime-local", id: "shift-from", step: 900, onchange: load, value: local(given.get("since")) });
  const to = h("input", { type: "datetime-local", id: "shift-to", step: 900, onchange: load, value: local(given.get("until")) });
  const lot = h("input", { id: "shift-lot", maxlength: 100, onchange: load, value: given.get("lot") || "" });
  const by = h("select", { id: "shift-by", onchange: load }, ["shift", "day", "lot"].map((key) => h("option", { value: key }, t(`shifts.by.${key}`))));
  const other = [h("label", {}, t("history.from"), " ", from), h("label", {}, t("history.before"), " ", to)];
  const span = h("p", { class: "span", role: "status" });
  const all = h("div", { class: "scroll" });
  const rows = h("div", { class: "scroll" });
  const trend = h("section", { "aria-label": t("shifts.scores") });
  const defects = h("section", { "aria-label": t("shifts.defects") });
  const drifted = driftSection(page);
  const report = h("a", { class: "button", id: "shift-report" }, t("shifts.report"));
  const csv = h("a", { class: "button", download: "records.csv" }, "CSV");
  const zip = h("a", { class: "button", id: "shift-zip", download: "records.zip" }, t("shifts.zip"));

  main.append(h("div", { class: "shifts" },
    h("h1", {}, t("view.shifts")),
    h("form", { class: "row controls", onsubmit: (event) => event.preventDefault() },
      h("label", {}, t("history.time"), " ", when), other, h("label", {}, t("history.lot"), " ", lot), report, csv, zip),
    span,
    h("h2", {}, t("shifts.all")), all,
    h("div", { class: "row by" }, h("h2", {}, page.product), h("label", {}, t("shifts.by"), " ", by)), rows,
    h("div", { class: "charts" }, trend, defects),
    drifted.element));
  load();

  /** The time that is asked for, or null: none was given whole. */
  function wanted() {
    const shifts = plant.shifts;
    const days = (n, skip = 0) => {
      const found = [...new Set(shifts.map((one) => one.day))].slice(skip, skip + n);
      const inside = shifts.filter((one) => found.includes(one.day));
      return { since: inside.at(-1).since, until: inside[0].until };
    };
    if (when.value === "now") return shifts[0];
    if (when.value === "before") return shifts[1];
    if (when.value === "today") return days(1);
    if (when.value === "yesterday") return days(1, 1);
    if (when.value === "7") return days(7);
    if (when.value === "30") return { since: new Date(new Date(days(1).since) - 29 * 86400000).toISOString(), until: days(1).until };
    if (!from.value || !to.value) return null;
    return { since: new Date(from.value).toISOString(), until: new Date(to.value).toISOString() };
  }

  async function load() {
    clearTimeout(timer);
    const mine = ++asked;
    for (const label of other) label.hidden = when.value !== "other";
    try {
      plant = await api.shifts();
      const time = wanted();
      if (!time) return;
      const query = { since: time.since, until: time.until, lot: lot.value.trim() };
      const product = page.product;
      const [overview, told, scores, places] = await Promise.all([
        api.shiftNumbers({ ...query, by: "product" }), api.shiftNumbers({ ...query, by: by.value, product }),
        api.shiftTrend({ ...query, product }), api.shiftPlaces({ ...query, product })]);
      if (closed || mine !== asked) return;
      span.textContent = t("shifts.span", { since: moment(time.since, plant.zone), until: moment(time.until, plant.zone), zone: plant.zone });
      const drift = new Map((page.service.state?.products || []).map((one) => [one.name, one.drift]));
      all.replaceChildren(table(overview.rows, query, [t("product")], (row) => [h("th", { scope: "row" }, h("button", { type: "button", class: "link", onclick: () => { page.choose(row.product); page.again(); } }, row.product))], drift));
      rows.replaceChildren(table(told.rows, query, heads(), first));
      drawTrend(trend, scores.segments, plant.zone, (point) => link(product, { ...query, since: point.since, until: point.until, verdict: "good" }));
      drawDefects(defects, places);
      drifted.load();
      report.href = `#report/shift/${new URLSearchParams({ product, ...query })}`;
      csv.href = api.address("/records.csv", { product, ...query });
      zip.href = api.address("/records.zip", { product, ...query });
      if (["now", "today", "7", "30"].includes(when.value)) timer = setTimeout(load, EVERY);
    } catch (error) {
      if (!closed && mine === asked) toast(said(error), { kind: "error" });
    }
  }

  const heads = () => ({ shift: [t("shifts.day"), t("shifts.shift")], day: [t("shifts.day")], lot: [t("history.lot"), t("history.time")] })[by.value];

  function first(row) {
    if (by.value === "lot") return [h("th", { scope: "row" }, row.lot ?? t("shifts.no_lot")), h("td", {}, `${moment(row.since, plant.zone)} – ${moment(row.until, plant.zone)}`)];
    const date = h("th", { scope: "row" }, dayOf(row.day));
    return by.value === "day" ? [date] : [date, h("td", {}, `${row.shift}, ${hour(row.since, plant.zone)}–${hour(row.until, plant.zone)}`)];
  }

  return { close() { closed = true; clearTimeout(timer); }, again: load };
}

/** A table of numbers; `begin` gives the first cells of a row, `drift` the open alarms of each product. */
export function table(rows, query, heads, begin, drift = null) {
  if (!rows.length) return h("p", { class: "note" }, t("shifts.nothing"));
  const n = [...COUNTS.map((key) => [t(`shifts.count.${key}`), "n"])];
  const head = [...heads.map((text) => [text]), ...n.slice(0, 2), [t("shifts.ng_rate")], n[2], n[3], [t("shifts.false_rate")], n[4], ...(drift ? [[t("models.drift")]] : [])];
  return h("table", { class: "numbers" },
    h("thead", {}, h("tr", {}, head.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
    h("tbody", {}, rows.map((row) => {
      const of = { ...query, since: row.since, until: row.until, ...(row.lot ? { lot: row.lot } : {}) };
      const cell = (key) => h("td", { class: "n" }, row[key] ? h("a", { href: link(row.product, { ...of, ...OF[key] }), "data-count": key }, whole(row[key])) : "0");
      const alarms = drift?.get(row.product) || 0;
      return h("tr", {}, begin(row), cell("inspected"), cell("anomalous"), h("td", {}, interval(row.ng)), cell("failed"), cell("false_alarms"),
        h("td", {}, interval(row.false_alarm, row.promised)), cell("misses"),
        drift && h("td", {}, alarms ? h("a", { href: "#models", class: "pill failed" }, t("drift.pill", { n: alarms })) : t("shifts.no_drift")));
    })));
}

/** A rate with its interval, and whether it keeps what was promised. */
function interval(rate, promised = null) {
  if (rate.share === null) return "–";
  const range = `${percent(rate.low)} – ${percent(rate.high)}`;
  if (promised === null) return [h("b", {}, percent(rate.share)), h("small", {}, ` ${range}`)];
  const kept = rate.low > promised ? "broken" : rate.high <= promised ? "kept" : "open";
  return [h("b", {}, percent(rate.share)), h("small", {}, ` ${range} `), bar(rate, promised), h("br"),
    h("small", { class: `promise ${kept}` }, t(`shifts.promise.${kept}`, { rate: percent(promised) }))];
}

/** The interval as a bar, and the promised rate as a line across. */
function bar(rate, promised) {
  const most = Math.max(rate.high, 1.5 * promised);
  const x = (share) => 2 + (96 * share) / most;
  return svg("svg", { class: "interval", viewBox: "0 0 100 14", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", { x: x(rate.low), width: Math.max(1.5, x(rate.high) - x(rate.low)), y: 4, height: 6 }),
    svg("line", { x1: x(promised), x2: x(promised), y1: 0, y2: 14 }));
}

/** Where the records of a number are listed. */
export function link(product, query) {
  const given = Object.entries({ product, ...query }).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return `#history/${new URLSearchParams(given)}`;
}
