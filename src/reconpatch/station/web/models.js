// Models: what is in service and where it comes from, drift, learning from feedback, the way back, who
// changed what, and which products there are.

import { driftSection } from "./alarms.js";
import * as api from "./api.js";
import { rollBack } from "./changes.js";
import { ask, during, h, number, percent, said, time, toast } from "./dom.js";
import { t, whole } from "./words.js";

const LINES = 50; // of a history

export function modelsView(main, page) {
  let closed = false;
  let etag = null; // of what is in service, as it is shown here
  const rows = h("tbody");
  const detail = h("section", { class: "detail", "aria-live": "polite" });
  const learn = h("section", { class: "learn" });
  const teach = h("section", { class: "learn", "aria-label": t("models.teach") });
  const title = h("h1", {}, t("models.title", { product: page.product }));
  const drifted = driftSection(page, load);
  const trail = h("details", { class: "trail", ontoggle: () => trail.open && drawTrail() }, h("summary", {}, t("models.trail")), h("div", {}));
  const products = h("section", { class: "products", "aria-label": t("models.products") });
  const strays = h("p", { class: "note warn", hidden: true });
  const summary = h("div", { class: "effect" });

  main.append(h("div", { class: "models" }, title, summary, drifted.element, learn, teach,
    h("h2", {}, t("models.versions")),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [[t("models.version"), "n"], [t("models.made"), ""], [t("models.how"), ""], [t("models.from"), "n"], [t("view.threshold"), "n"], [h("span", { class: "unseen" }, t("actions"))]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows)),
    detail, trail, products, strays));
  load();

  async function load() {
    try {
      await page.refresh(); // what a change is asked of (If-Match) is not newer than what is shown
      etag = page.facts?.etag;
      drawProducts();
      const [{ versions }, told, stray, defects, fits] = await Promise.all([api.versions(page.product), feedback(), api.orphans(), api.defects(page.product), api.fit(), drifted.load()]);
      if (closed) return;
      strays.replaceChildren(said(stray.sentence || ""));
      strays.hidden = !stray.sentence;
      overview(versions.find((one) => one.in_service));
      rows.replaceChildren(...versions.reverse().map(row));
      drawLearn(told);
      drawTeach(defects, fits);
      if (trail.open) drawTrail();
    } catch (error) {
      toast(said(error), { kind: "error" });
    }
  }

  /** Do what a button asks for, and show what came of it; where somebody else was first, who and what. */
  function change(button, work, doing) {
    during(button, async () => {
      try {
        if (await work() === null) return;
      } catch (error) {
        if (page.tellConflict(error, load)) return;
        throw error;
      }
      await load();
    }, doing);
  }

  function overview(version) {
    const { facts } = page;
    if (!facts || !version) {
      const out = page.out.find((one) => one.name === page.product);
      summary.replaceChildren(h("p", { class: "note error", role: "alert" }, out ? t("models.out", { why: out.error }) : t("models.out_none")));
      return;
    }
    const figure = (value, words) => h("p", { class: "figure" }, h("b", {}, value), h("span", {}, words));
    summary.replaceChildren(
      figure(String(version.number), t("models.in_service_since", { time: time(version.in_service_since) })),
      figure(number(facts.threshold), t("view.threshold")),
      figure(percent(facts.false_alarm_rate), t("models.expected")),
      figure(whole(facts.good_photos), t("models.good_known")));
    show(version.number, false);
  }

  // --- Who changed what --------------------------------------------------------------------------

  async function drawTrail() {
    try {
      const { changes } = await api.changes(page.product, { limit: LINES });
      trail.lastChild.replaceChildren(h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, [t("models.when"), t("models.what"), t("models.by"), t("models.note")].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, changes.map((one) => h("tr", {}, h("td", {}, h("time", { datetime: one.time }, time(one.time))), h("td", {}, said(one.what)), h("td", {}, one.by || "–"), h("td", {}, said(one.note), told(one.figures))))))));
    } catch (error) {
      trail.lastChild.replaceChildren(said(error));
    }
  }

  /** What somebody was shown of confirmed parts and confirmed. */
  const told = (figures) => (figures && figures.defects ? h("small", {}, ` (${t("models.missed", { missed: figures.missed_then, n: figures.defects })})`) : null);

  // --- Products ----------------------------------------------------------------------------------

  function drawProducts() {
    const does = (text, work, attributes = {}) => {
      const button = h("button", { type: "button", "data-needs": "change", ...attributes, onclick: () => change(button, work) }, text);
      return button;
    };
    const line = (name, words, ...buttons) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, words), h("td", {}, h("div", { class: "row" }, ...buttons)));
    const retire = async (one) => (await ask(t("models.retire_title", { product: one.name }), [h("p", {}, t("models.retire_text"))], t("models.retire")) ? api.retire(one.name, one.etag) : null);
    products.replaceChildren(h("h2", {}, t("models.products")), h("p", {}, t("models.default_text")),
      h("table", {}, h("tbody", {},
        page.products.map((one) => line(one.name, one.name === page.default ? t("models.is_default") : t("models.in_service"), one.name !== page.default && [
          does(t("models.make_default"), () => api.makeDefault(one.name, one.etag), { "data-default": one.name }), does(t("models.retire"), () => retire(one), { "data-retire": one.name })])),
        page.out.map((one) => line(one.name, h("span", { class: "note error" }, t("models.out_of_service"), " ", said(one.error)))),
        page.retired.map((name) => line(name, t("models.retired"), does(t("models.restore"), () => api.restore(name), { "data-restore": name }))))));
  }

  // --- Versions ----------------------------------------------------------------------------------

  function row(version) {
    const back = h("button", { type: "button", "data-needs": "change", "data-version": version.number, onclick: () => goBack(version, back) }, t("put_into_service"));
    return h("tr", { class: version.in_service ? "current" : "" },
      h("td", { class: "n" }, h("button", { type: "button", class: "link", "aria-label": t("models.where_from", { version: version.number }), onclick: () => show(version.number, true) }, version.number)),
      h("td", {}, h("time", { datetime: version.created }, time(version.created))),
      h("td", {}, said(version.note)),
      h("td", { class: "n" }, version.parent ?? "–"),
      h("td", { class: "n" }, number(version.threshold)),
      h("td", {}, version.in_service ? h("b", {}, t("models.in_service")) : back));
  }

  function goBack(version, button) {
    const before = page.facts?.version;
    change(button, async () => {
      const now = await rollBack(page.product, version.number, etag);
      if (now && before) page.tellSwap(now, before, load);
      return now;
    }, t("putting"));
  }

  async function show(number_, scroll) {
    let version;
    try {
      version = await api.version(page.product, number_);
    } catch (error) {
      detail.replaceChildren(h("p", { class: "note error" }, said(error)));
      return;
    }
    if (closed) return;
    const facts = [[t("models.promise"), said(version.promise)], [t("fit.good_photos"), whole(version.good_photos)],
      [t("models.file"), `${version.file}, SHA-256 ${version.sha256}`], [t("models.fingerprint"), version.fingerprint]];
    detail.replaceChildren(h("h2", {}, t("models.version_title", { version: version.number })),
      h("dl", { class: "figures" }, facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
      h("details", {}, h("summary", {}, t("models.provenance")), tree(version.provenance)),
      h("details", {}, h("summary", {}, t("models.settings")), version.settings.map(tree)));
    if (scroll) detail.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  // --- Learning ----------------------------------------------------------------------------------

  async function feedback() {
    const of = (query) => api.records({ product: page.product, limit: 1000, ...query }).then((found) => found.records.length);
    const [alarms, defects] = await Promise.all([of({ feedback: "good", verdict: "anomalous" }), of({ feedback: "defect" })]);
    return { alarms, defects };
  }

  function drawLearn({ alarms, defects }) {
    const attempt = h("button", { type: "button", id: "try", "data-needs": "change", disabled: !alarms, onclick: tryIt }, t("models.try"));
    const result = h("div", { class: "result", role: "status" });
    learn.replaceChildren(h("h2", {}, t("models.learn")),
      h("p", {}, alarms ? `${t("models.can_learn", { n: alarms })} ${t("models.checks", { n: defects })}`
        : t("models.nothing_to_learn")),
      attempt, result);

    function tryIt() {
      during(attempt, async () => {
        result.replaceChildren(t("models.trying"));
        try {
          const { comparison } = await api.update(page.product, { dry: true }, etag);
          result.replaceChildren(...outcome(comparison));
        } catch (error) {
          result.replaceChildren(h("p", { class: "note error" }, said(error)));
        }
      });
    }
  }

  /** The other way to learn: the model is made anew by a fit, which the view Fit shows. */
  function drawTeach({ confirmed, drawn, unnamed, kinds }, fits) {
    const named = [...kinds.filter((one) => one.confirmed).map((one) => `${one.name} ${one.confirmed}`), unnamed && t("models.no_kind", { n: unnamed })].filter(Boolean);
    const known = kinds.filter((one) => one.known).map((one) => one.name);
    const sources = [...fits.folders.map((one) => [one.name, t("fit.folder", { name: one.name, n: one.photos })]), ...(fits.dropped ? [["", t("fit.dropped", { n: fits.dropped })]] : [])];
    const folder = h("select", { id: "learn-folder" }, sources.map(([value, text]) => h("option", { value }, text)));
    const busy = fits.job !== null && fits.job.state === "running";
    const begin = h("button", { type: "submit", class: "primary", id: "learn", "data-needs": "change", disabled: !confirmed || !sources.length || busy }, t("models.learn_from", { n: confirmed }));
    function start(event) {
      event.preventDefault();
      during(begin, async () => {
        await api.learn(page.product, { folder: folder.value || null }, fits.etag);
        location.hash = "fit";
      });
    }
    teach.replaceChildren(...[h("h2", {}, t("models.teach")),
      h("p", {}, confirmed ? t("models.confirmed", { n: confirmed, drawn, kinds: named.join(", ") }) : t("models.nothing_to_teach")),
      known.length > 0 && h("p", {}, t("models.kinds", { kinds: known.join(", ") })),
      h("p", {}, t("models.teach_text")),
      sources.length ? h("form", { class: "row controls", onsubmit: start }, h("label", {}, t("models.good_photos"), " ", folder), begin)
        : h("p", { class: "note" }, t("fit.no_folder"))].filter(Boolean));
  }

  function outcome(comparison) {
    const { missed, changes } = comparison;
    const go = h("button", { type: "button", class: missed.length ? "danger" : "primary", id: "update", "data-needs": "change", onclick: () => update(go, missed.length > 0) }, missed.length ? t("models.update_anyway") : t("models.update"));
    return [
      h("ul", { class: "changes" }, changes.map((text) => h("li", {}, said(text)))),
      missed.length ? h("p", { class: "note error", role: "alert" }, t("models.would_miss", { n: missed.length, names: missed.slice(0, 5).join(", ") })) : h("p", { class: "note ok" }, t("models.nothing_missed")),
      go,
    ];
  }

  function update(button, force) {
    const before = page.facts.version;
    change(button, async () => {
      const { version, etag: now } = await api.update(page.product, { force }, etag);
      page.tellSwap({ ...version, etag: version.etag ?? now }, before, load);
    }, t("models.updating"));
  }

  return { close() { closed = true; } };
}

/** Nested values as nested lists of names and values. */
function tree(values) {
  if (values === null || typeof values !== "object") return h("span", {}, values === null ? "–" : String(values));
  if (Array.isArray(values) && values.every((value) => typeof value !== "object")) return h("span", {}, values.join(", ") || "–");
  return h("dl", { class: "tree", lang: "en" }, Object.entries(values).flatMap(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, tree(value))]));
}
