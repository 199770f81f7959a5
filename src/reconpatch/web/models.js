// Models: what is in service and where it comes from, learning from feedback, and the way back.

import * as api from "./api.js";
import { count, during, h, number, percent, time, toast } from "./dom.js";

export function modelsView(main, page) {
  let closed = false;
  const rows = h("tbody");
  const detail = h("section", { class: "detail", "aria-live": "polite" });
  const learn = h("section", { class: "learn" });
  const title = h("h1", {}, `Model of ${page.product}`);
  const drifted = h("p", { class: "note", role: "status" });
  const summary = h("div", { class: "effect" });

  main.append(h("div", { class: "models" }, title, summary, drifted, learn,
    h("h2", {}, "Versions"),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [["Version", "n"], ["Made"], ["How"], ["From", "n"], ["Threshold", "n"], [""]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows)),
    detail));
  load();

  async function load() {
    try {
      await page.refresh();
      const [versions, told, drift] = await Promise.all([api.versions(page.product), feedback(), api.drift(page.product)]);
      if (closed) return;
      overview(versions.find((one) => one.in_service));
      rows.replaceChildren(...versions.reverse().map(row));
      drawLearn(told);
      drifted.textContent = drift.last || `No drift found in ${count(drift.photos, "photo")} of this version.`;
      drifted.className = `note ${drift.last ? "warn" : ""}`;
    } catch (error) {
      toast(error.message, { kind: "error" });
    }
  }

  function overview(version) {
    const { facts } = page;
    const figure = (value, words) => h("p", { class: "figure" }, h("b", {}, value), h("span", {}, words));
    summary.replaceChildren(
      figure(String(version.number), `version in service, since ${time(version.in_service_since)}`),
      figure(number(facts.threshold), "threshold"),
      figure(percent(facts.false_alarm_rate), "of good photos flagged by mistake, expected"),
      figure(facts.good_photos.toLocaleString("en-GB"), "good photos known"));
    show(version.number, false);
  }

  // --- Versions ----------------------------------------------------------------------------------

  function row(version) {
    const back = h("button", { type: "button", "data-version": version.number, onclick: () => rollBack(version, back) }, "Put into service");
    return h("tr", { class: version.in_service ? "current" : "" },
      h("td", { class: "n" }, h("button", { type: "button", class: "link", "aria-label": `Where version ${version.number} comes from`, onclick: () => show(version.number, true) }, version.number)),
      h("td", {}, h("time", { datetime: version.created }, time(version.created))),
      h("td", {}, version.note),
      h("td", { class: "n" }, version.parent ?? "–"),
      h("td", { class: "n" }, number(version.threshold)),
      h("td", {}, version.in_service ? h("b", {}, "in service") : back));
  }

  function rollBack(version, button) {
    const before = page.facts.version;
    during(button, async () => {
      await api.rollBack(page.product, version.number);
      page.tellSwap(version, before, load);
      await load();
    });
  }

  async function show(number_, scroll) {
    let version;
    try {
      version = await api.version(page.product, number_);
    } catch (error) {
      detail.replaceChildren(h("p", { class: "note error" }, error.message));
      return;
    }
    if (closed) return;
    const facts = [["Promise", version.promise], ["Good photos", version.good_photos.toLocaleString("en-GB")],
      ["File", `${version.file}, SHA-256 ${version.sha256}`], ["Fingerprint", version.fingerprint]];
    detail.replaceChildren(h("h2", {}, `Version ${version.number}`),
      h("dl", { class: "figures" }, facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
      h("details", {}, h("summary", {}, "Provenance"), tree(version.provenance)),
      h("details", {}, h("summary", {}, "Settings"), version.settings.map(tree)));
    if (scroll) detail.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  // --- Learning ----------------------------------------------------------------------------------

  async function feedback() {
    const of = (query) => api.records({ product: page.product, limit: 1000, ...query }).then((found) => found.records.length);
    const [alarms, defects] = await Promise.all([of({ feedback: "good", verdict: "anomalous" }), of({ feedback: "defect" })]);
    return { alarms, defects };
  }

  function drawLearn({ alarms, defects }) {
    const attempt = h("button", { type: "button", id: "try", disabled: !alarms, onclick: tryIt }, "See what it would change");
    const result = h("div", { class: "result", role: "status" });
    learn.replaceChildren(h("h2", {}, "Learn from feedback"),
      h("p", {}, alarms ? `${count(alarms, "flagged photo")} called good can be learned; ${count(defects, "photo")} called a defect ${defects === 1 ? "checks" : "check"} that nothing is unlearned.`
        : "Nothing to learn yet: on Live, say of a flagged photo that it was good."),
      attempt, result);

    function tryIt() {
      during(attempt, async () => {
        result.replaceChildren("Learning a copy …");
        try {
          const { comparison } = await api.update(page.product, { dry: true });
          result.replaceChildren(...outcome(comparison));
        } catch (error) {
          result.replaceChildren(h("p", { class: "note error" }, error.message));
        }
      });
    }
  }

  function outcome(comparison) {
    const { missed, changes } = comparison;
    const go = h("button", { type: "button", class: missed.length ? "danger" : "primary", id: "update", onclick: () => update(go, missed.length > 0) }, missed.length ? "Update all the same" : "Update");
    return [
      h("ul", { class: "changes" }, changes.map((text) => h("li", {}, text))),
      missed.length ? h("p", { class: "note error", role: "alert" }, `It would miss ${count(missed.length, "confirmed defect")} that the model finds now: ${missed.slice(0, 5).join(", ")}.`) : h("p", { class: "note ok" }, "No confirmed defect would be missed."),
      go,
    ];
  }

  function update(button, force) {
    during(button, async () => {
      const before = page.facts.version;
      const { version } = await api.update(page.product, { force });
      page.tellSwap(version, before, load);
      await load();
    });
  }

  return { close() { closed = true; } };
}

/** Nested values as nested lists of names and values. */
function tree(values) {
  if (values === null || typeof values !== "object") return h("span", {}, values === null ? "–" : String(values));
  if (Array.isArray(values) && values.every((value) => typeof value !== "object")) return h("span", {}, values.join(", ") || "–");
  return h("dl", { class: "tree" }, Object.entries(values).flatMap(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, tree(value))]));
}
