// History: records by product, verdict, feedback and time, page by page, and as CSV.

import * as api from "./api.js";
import { h, number, time, toast } from "./dom.js";

const PAGE = 50;

export function historyView(main, page) {
  let cursors = [null]; // of each page up to the one shown; null is the first
  let asked = 0;

  const select = (name, options, value = "") => h("select", { id: `filter-${name}`, onchange: first, value }, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  const filters = {
    product: select("product", [["", "all"], ...page.products.map((one) => [one.name, one.name])], page.product),
    verdict: select("verdict", [["", "all"], ["good", "good"], ["anomalous", "anomalous"]]),
    feedback: select("feedback", [["", "all"], ["any", "any"], ["none", "none"], ["good", "called good"], ["defect", "called a defect"]]),
    since: h("input", { type: "datetime-local", id: "filter-since", onchange: first }),
    until: h("input", { type: "datetime-local", id: "filter-until", onchange: first }),
  };
  const names = { product: "Product", verdict: "Verdict", feedback: "Feedback", since: "From", until: "Before" };
  const rows = h("tbody");
  const none = h("p", { class: "note", hidden: true }, "No record fits.");
  const newer = h("button", { type: "button", onclick: () => turn(-1) }, "← Newer");
  const older = h("button", { type: "button", onclick: () => turn(1) }, "Older →");
  const where = h("span", { role: "status" });
  const csv = h("a", { class: "button", download: "records.csv" }, "CSV of all that fit");
  let next = null;

  main.append(h("div", { class: "history" },
    h("h1", {}, "History"),
    h("form", { class: "row controls", onsubmit: (event) => event.preventDefault() },
      Object.entries(filters).map(([name, control]) => h("label", {}, names[name], " ", control)),
      h("button", { type: "button", class: "quiet", onclick: clear }, "Clear")),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [["Photo"], ["Time"], ["Name"], ["Verdict"], ["Score", "n"], ["Threshold", "n wide"], ["p", "n wide"], ["Version", "n wide"], ["Feedback"]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows)),
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
    csv.href = api.address("/records.csv", query());
    let found;
    try {
      found = await api.records({ ...query(), limit: PAGE, cursor: cursors.at(-1) });
    } catch (error) {
      toast(error.message, { kind: "error" });
      return;
    }
    if (mine !== asked) return;
    next = found.cursor;
    rows.replaceChildren(...found.records.map(row));
    none.hidden = found.records.length > 0;
    newer.disabled = cursors.length < 2;
    older.disabled = !next;
    where.textContent = found.records.length ? `page ${cursors.length}` : "";
  }

  return { keys: { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1) } };
}

function row(record) {
  const open = `#live/${record.id}`;
  const image = h("img", { alt: "", loading: "lazy", src: api.picture(record.id, "picture", { size: 96 }) });
  image.addEventListener("error", () => { image.hidden = true; });
  const kind = record.anomalous ? "anomalous" : "good";
  const feedback = { good: "called good", defect: "called a defect" }[record.feedback] || "";
  return h("tr", {},
    h("td", { class: "thumb" }, h("a", { href: open, tabindex: -1, "aria-hidden": "true" }, image)),
    h("td", {}, h("time", { datetime: record.time, title: record.time }, time(record.time))),
    h("td", { class: "name" }, h("a", { href: open }, record.name)),
    h("td", {}, h("span", { class: `pill ${kind}` }, record.anomalous ? "✕ anomalous" : "✓ good")),
    h("td", { class: "n" }, number(record.score)),
    h("td", { class: "n wide" }, number(record.threshold)),
    h("td", { class: "n wide" }, number(record.p_value)),
    h("td", { class: "n wide" }, record.version),
    h("td", {}, feedback));
}
