// Reports to print, or to keep as PDF through the browser: of one record, and of a shift or any other time.

import * as api from "./api.js";
import { driftLines } from "./alarms.js";
import { h, number, percent, said, showPicture } from "./dom.js";
import { called, kindText, markOf, wordOf } from "./items.js";
import { moment } from "./plant_time.js";
import { drawDefects, drawTrend } from "./shift_charts.js";
import { table } from "./shifts.js";
import { t, whole } from "./words.js";

const LISTED = 100; // anomalous records of a shift

export function reportView(main, page, rest) {
  const paper = h("article", { class: "paper" });
  const zip = h("a", { class: "button", download: "records.zip", hidden: true }, t("shifts.zip"));
  const print = h("button", { type: "button", class: "primary", id: "print", disabled: true, onclick: () => globalThis.print() }, t("report.print"));
  main.append(h("div", { class: "report" }, h("div", { class: "row unprinted" }, print, zip, h("a", { href: rest[0] === "shift" ? `#shifts/${rest[1]}` : `#live/${rest[0]}` }, t("report.back"))), paper));
  load();

  async function load() {
    try {
      const { zone } = await api.shifts();
      const parts = rest[0] === "shift" ? await ofShift(new URLSearchParams(rest[1] || ""), zone, zip) : await ofRecord(rest[0], zone, zip);
      paper.replaceChildren(...parts, h("footer", {}, t("report.made", { time: moment(new Date().toISOString(), zone), zone })));
      await Promise.all([...paper.querySelectorAll("img")].map(loaded)); // what is printed is whole
      zip.hidden = print.disabled = false;
    } catch (error) {
      paper.replaceChildren(h("p", { class: "note error", role: "alert" }, said(error)));
    }
  }

  return {};
}

/** Until a picture is there, or it is known that it does not come. */
const loaded = (image) => new Promise((done) => {
  if (image.complete && image.naturalWidth) done();
  image.addEventListener("load", done);
  new MutationObserver(() => !image.isConnected && done()).observe(image.parentElement, { childList: true });
});

function figure(id, kind, words, query = { size: 800 }) {
  const image = h("img", { alt: words });
  const box = h("figure", {}, image, h("figcaption", {}, words));
  showPicture(image, api.picture(id, kind, query), (why) => image.replaceWith(h("p", { class: "note" }, why)));
  return box;
}

const facts = (pairs) => h("dl", { class: "figures" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

// --- One record --------------------------------------------------------------------------------------

async function ofRecord(id, zone, zip) {
  const record = await api.record(id);
  const version = await api.version(record.product, record.version).catch(() => null); // its model may be gone
  zip.href = api.address(`/records/${record.id}/zip`);
  const feedback = [called(record.feedback), record.feedback_kind].filter(Boolean).join(": ");
  const regions = record.regions.map((one, at) => h("tr", {}, h("td", { class: "n" }, whole(at + 1)), h("td", { class: "n" }, `${one.peak[0]}, ${one.peak[1]}`),
    h("td", { class: "n" }, `${one.box[2] - one.box[0]} × ${one.box[3] - one.box[1]}`), h("td", { class: "n" }, whole(one.area)), h("td", { class: "n" }, number(one.peak_value))));
  return [
    h("header", {}, h("h1", {}, t("report.record", { id: String(record.id) })), h("p", { class: `stamp ${record.anomalous ? "anomalous" : "good"}` }, `${markOf(record)} ${wordOf(record)}`)),
    facts([[t("product"), record.product], [t("history.name"), record.name], [t("history.lot"), record.lot], [t("report.serial"), record.serial],
      [t("history.time"), `${moment(record.time, zone)} (${zone})`],
      [t("history.score"), `${number(record.score)} (${t("history.threshold")} ${number(record.threshold)}, p ${number(record.p_value)})`],
      [t("report.kind"), record.kind && kindText(record.kind)],
      [t("why.whole"), record.whole ? t("why.as_a_whole") : null],
      [t("history.feedback"), feedback && `${feedback}, ${moment(record.feedback_time, zone)}`]]),
    h("div", { class: "pictures" }, figure(record.id, "picture", t("report.photo")), figure(record.id, "overlay", t("report.overlay")),
      figure(record.id, "closest", t("report.closest"), {}), record.feedback_place && figure(record.id, "mask", t("report.drawn"), {})),
    ...(regions.length ? [h("h2", {}, t("report.regions")), h("table", {},
      h("thead", {}, h("tr", {}, ["#", t("report.peak"), t("report.size"), t("report.area"), t("report.value")].map((text) => h("th", { scope: "col", class: "n" }, text)))), h("tbody", {}, regions))] : []),
    h("h2", {}, t("report.proof")),
    facts([[t("history.version"), whole(record.version)], [t("report.promise"), version && said(version.promise)],
      [t("report.fingerprint"), h("code", {}, record.fingerprint)], [t("report.file"), h("code", {}, record.photo)]]),
  ].filter(Boolean);
}

// --- A shift -----------------------------------------------------------------------------------------

async function ofShift(given, zone, zip) {
  const product = given.get("product");
  const query = { since: given.get("since"), until: given.get("until"), lot: given.get("lot") || "" };
  const [sums, numbers, trend, places, flagged, drift] = await Promise.all([
    api.shiftNumbers({ ...query, by: "product", product }), api.shiftNumbers({ ...query, by: "shift", product }), api.shiftTrend({ ...query, product }),
    api.shiftPlaces({ ...query, product }), api.records({ ...query, product, verdict: "anomalous", limit: LISTED }), api.alarms(product, { limit: 1000 })]);
  zip.href = api.address("/records.zip", { product, ...query });
  const [scores, defects] = [h("section", {}), h("section", {})];
  drawTrend(scores, trend.segments, zone, () => location.hash);
  drawDefects(defects, places);
  const alarms = drift.alarms.filter((one) => one.time >= query.since && one.time < query.until);
  const [sum] = sums.rows;
  const name = numbers.rows.length === 1 ? `${numbers.rows[0].shift}, ` : "";
  return [
    h("header", {}, h("h1", {}, t("report.shift", { product }))),
    h("p", {}, `${name}${t("shifts.span", { since: moment(query.since, zone), until: moment(query.until, zone), zone })}`, query.lot && ` · ${t("history.lot")} ${query.lot}`),
    ...(sum ? [h("div", { class: "effect" }, [[whole(sum.inspected), "inspected"], [`${whole(sum.anomalous)} · ${percent(sum.ng.share ?? 0)}`, "anomalous"], [whole(sum.failed), "failed"], [whole(sum.false_alarms), "false_alarms"], [whole(sum.misses), "misses"]]
      .map(([value, key]) => h("p", { class: "figure" }, h("b", {}, value), h("span", {}, t(`shifts.count.${key}`)))))] : []),
    h("div", { class: "scroll" }, table(numbers.rows, query, [t("shifts.shift")], (row) => [h("th", { scope: "row" }, row.shift, h("br"), moment(row.since, zone))])),
    h("p", { class: "where" }, t("report.rates")),
    scores, defects,
    ...(alarms.length ? [h("h2", {}, t("models.drift")), driftLines(alarms)] : []),
    h("h2", {}, t("report.flagged", { n: flagged.records.length })),
    flagged.cursor && h("p", { class: "where" }, t("report.newest", { n: LISTED })),
    h("ul", { class: "flagged" }, flagged.records.map((record) => {
      const image = h("img", { alt: "" });
      showPicture(image, api.picture(record.id, "overlay", { size: 240 }), () => image.remove());
      return h("li", {}, image, h("div", {}, h("a", { href: `#report/${record.id}` }, `#${record.id}`), ` ${record.name}`, h("br"), `${moment(record.time, zone)} · ${number(record.score)}`,
        h("br"), [called(record.feedback), record.feedback_kind ?? (record.kind && kindText(record.kind))].filter(Boolean).join(", ")));
    })),
  ].filter(Boolean);
}
