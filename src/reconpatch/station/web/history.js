// History: records by product, verdict, feedback and time, page by page, and as CSV; photos that failed
// stand among them.

import * as api from "./api.js";
import { h, local, number, said, showPicture, time, toast } from "./dom.js";
import { called, kindOf, kindText, markOf, merged, verdictOf, verdictWord } from "./items.js";
import { t } from "./words.js";

const ALWAYS = ["product", "verdict", "feedback", "since", "until"];
const SEARCHED = ["name", "serial", "lot", "id", "score_least", "score_most", "place"];
const ROWS = [["top", 0, "0.3333"], ["middle", "0.3333", "0.6667"], ["bottom", "0.6667", 1]];
const COLUMNS = [["left", 0, "0.3333"], ["centre", "0.3333", "0.6667"], ["right", "0.6667", 1]];
/** Ninths of the photo, and each as the service takes it: left, top, right, bottom. */
const PLACES = ROWS.flatMap(([row, top, bottom]) => COLUMNS.map(([column, left, right]) => [`${row}_${column}`, [left, top, right, bottom].join()]));
const PAGE = 50;
const MOST = 1000; // failures asked for at once

export function historyView(main, page, rest) {
  let cursors = [null]; // of each page up to the one shown; null is the first
  let asked = 0;
  let failed = { all: [], cursor: null, more: true }; // what was loaded of the failures, newest first
  let ends = [null]; // times at which each page begins: where the one before ended

  const select = (name, options, value = "") => h("select", { id: `filter-${name}`, onchange: first, value }, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  const filters = {
    product: select("product", [["", t("history.all")], ...[...page.names, ...page.retired].map((name) => [name, name])], page.product),
    verdict: select("verdict", [["", t("history.all")], ["good", verdictWord("small", "good")], ["anomalous", verdictWord("small", "anomalous")], ["failed", t("verdict.none_small")]]),
    feedback: select("feedback", [["", t("history.all")], ["any", t("history.any")], ["none", t("history.none")], ["good", called("good")], ["defect", called("defect")]]),
    since: h("input", { type: "datetime-local", id: "filter-since", onchange: first }),
    until: h("input", { type: "datetime-local", id: "filter-until", onchange: first }),
    name: h("input", { id: "filter-name", maxlength: 255, onchange: first, autocomplete: "off" }),
    lot: h("input", { id: "filter-lot", maxlength: 100, onchange: first, autocomplete: "off" }),
    serial: h("input", { id: "filter-serial", maxlength: 100, onchange: first, autocomplete: "off" }),
    id: h("input", { type: "number", id: "filter-id", min: 1, step: 1, onchange: first }),
    score_least: h("input", { type: "number", id: "filter-score_least", step: "any", onchange: first }),
    score_most: h("input", { type: "number", id: "filter-score_most", step: "any", onchange: first }),
    place: select("place", [["", t("history.anywhere")], ...PLACES.map(([key, place]) => [place, t(`place.${key}`)])]),
  };
  const names = { product: t("product"), verdict: t("history.verdict"), feedback: t("history.feedback"), since: t("history.from"), until: t("history.before"), name: t("history.name"), lot: t("history.lot"), serial: t("live.serial"), id: t("history.id"), score_least: t("history.score_least"), score_most: t("history.score_most"), place: t("history.place") };
  for (const [name, value] of new URLSearchParams(rest[0] || "")) { // of a link to the records of a number
    if (name in filters) filters[name].value = name === "since" || name === "until" ? local(value) : value;
  }
  const labelled = (name) => h("label", {}, names[name], " ", filters[name]);
  const rows = h("tbody");
  const none = h("p", { class: "note", hidden: true }, t("history.empty"));
  const newer = h("button", { type: "button", onclick: () => turn(-1) }, t("history.newer"));
  const older = h("button", { type: "button", onclick: () => turn(1) }, t("history.older"));
  const where = h("span", { role: "status" });
  const csv = h("a", { class: "button", download: "records.csv" }, t("history.csv"));
  let next = null;

  main.append(h("div", { class: "history" },
    h("h1", {}, t("view.history")),
    h("form", { class: "row controls", onsubmit: (event) => event.preventDefault() },
      ALWAYS.map(labelled), h("details", { class: "search", open: SEARCHED.some((name) => filters[name].value) }, h("summary", {}, t("history.search")), h("div", { class: "row controls" }, SEARCHED.map(labelled))),
      h("button", { type: "button", class: "quiet", onclick: clear }, t("history.clear"))),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [[t("history.photo")], [t("history.time")], [t("history.name")], [t("history.verdict")], [t("history.score"), "n"], [t("history.threshold"), "n wide"], ["p", "n wide"], [t("history.version"), "n wide"], [t("history.feedback")]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows)),
    none,
    h("div", { class: "row" }, newer, where, older, csv)));
  first();

  function query() {
    const given = Object.fromEntries(Object.entries(filters).map(([name, control]) => [name, control.value]));
    for (const name of ["since", "until"]) if (given[name]) given[name] = new Date(given[name]).toISOString();
    return given;
  }

  function clear() {
    for (const control of Object.values(filters)) control.value = "";
    first();
  }

  function first() {
    cursors = [null];
    ends = [null];
    failed = { all: [], cursor: null, more: true };
    load();
  }

  function turn(by) {
    if (by > 0 && next) cursors.push(next);
    else if (by < 0 && cursors.length > 1) cursors.pop();
    else return;
    load();
  }

  async function load() {
    const mine = ++asked;
    const given = query();
    const only = given.verdict === "failed";
    csv.href = api.address("/records.csv", given);
    csv.hidden = only; // the CSV is one of records
    for (const name of ["feedback", ...SEARCHED]) filters[name].disabled = only;
    const searched = SEARCHED.some((name) => given[name]);
    let found;
    let between;
    try {
      if (only) {
        const { failures, cursor } = await api.failures({ product: given.product, since: given.since, until: given.until, limit: PAGE, cursor: cursors.at(-1) });
        found = { records: failures, cursor };
        between = [];
      } else {
        found = await api.records({ ...given, limit: PAGE, cursor: cursors.at(-1) });
        between = given.verdict || searched || !["", "none"].includes(given.feedback) ? [] : await failures(given, found);
      }
    } catch (error) {
      toast(said(error), { kind: "error" });
      return;
    }
    if (mine !== asked) return;
    next = found.cursor;
    ends[cursors.length] = found.records.at(-1)?.time ?? null;
    const all = merged(found.records, between);
    rows.replaceChildren(...all.map((one) => (one.error ? failureRow(one) : row(one))));
    none.hidden = all.length > 0;
    newer.disabled = cursors.length < 2;
    older.disabled = !next;
    where.textContent = all.length ? t("history.page", { n: cursors.length }) : "";
  }

  /** The failures between the times at which a page of records begins and ends. */
  async function failures({ product, since, until }, found) {
    const at = (text, otherwise) => (text ? new Date(text).getTime() : otherwise);
    const oldest = Math.max(at(found.cursor && found.records.at(-1)?.time, -Infinity), at(since, -Infinity));
    const newest = Math.min(at(ends[cursors.length - 1], Infinity), at(until, Infinity));
    while (failed.more && !failed.all.some((one) => new Date(one.time) < oldest)) {
      const mine = failed;
      const answer = await api.failures({ product, since, until, limit: MOST, cursor: mine.cursor });
      if (mine !== failed) return []; // other filters now
      mine.all.push(...answer.failures);
      mine.cursor = answer.cursor;
      mine.more = answer.cursor !== null;
    }
    return failed.all.filter((one) => new Date(one.time) >= oldest && new Date(one.time) < newest);
  }

  return { keys: { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1) } };
}

function row(record) {
  const open = `#live/${record.id}`;
  const image = h("img", { alt: "", loading: "lazy" });
  showPicture(image, api.picture(record.id, "picture", { size: 96 }), () => { image.hidden = true; });
  const feedback = [called(record.feedback), record.feedback_kind].filter(Boolean).join(": ");
  return h("tr", {},
    h("td", { class: "thumb" }, h("a", { href: open, tabindex: -1, "aria-hidden": "true" }, image)),
    h("td", {}, h("time", { datetime: record.time, title: record.time }, time(record.time))),
    h("td", { class: "name" }, h("a", { href: open }, record.name), (record.serial || record.lot) && h("small", {}, ` ${[record.serial, record.lot].filter(Boolean).join(" · ")}`)),
    h("td", {}, h("span", { class: `pill ${kindOf(record)}` }, `${markOf(record)} ${verdictOf(record)}`), record.kind && h("small", {}, ` ${kindText(record.kind)}`)),
    h("td", { class: "n" }, number(record.score)),
    h("td", { class: "n wide" }, number(record.threshold)),
    h("td", { class: "n wide" }, number(record.p_value)),
    h("td", { class: "n wide" }, record.version),
    h("td", {}, feedback));
}

/** A photo that came to no verdict, and why. */
function failureRow(failure) {
  return h("tr", { class: "failed" },
    h("td", { class: "thumb" }),
    h("td", {}, h("time", { datetime: failure.time, title: failure.time }, time(failure.time))),
    h("td", { class: "name" }, failure.name),
    h("td", {}, h("span", { class: "pill failed" }, `! ${t("verdict.none_small")}`)),
    h("td", { colspan: 5, class: "why" }, said(failure.error)));
}
