// Models: what is in service and where it comes from, drift, learning from feedback, the way back, who
// changed what, and which products there are.

import * as api from "./api.js";
import { rollBack } from "./changes.js";
import { ask, count, during, h, number, percent, time, toast } from "./dom.js";

const LINES = 50; // of a history

export function modelsView(main, page) {
  let closed = false;
  let etag = null; // of what is in service, as it is shown here
  const rows = h("tbody");
  const detail = h("section", { class: "detail", "aria-live": "polite" });
  const learn = h("section", { class: "learn" });
  const teach = h("section", { class: "learn", "aria-label": "Learn from confirmed defects" });
  const title = h("h1", {}, `Model of ${page.product}`);
  const drifted = h("section", { class: "drifted", "aria-label": "Drift" });
  const trail = h("details", { class: "trail", ontoggle: () => trail.open && drawTrail() }, h("summary", {}, "Who changed what"), h("div", {}));
  const products = h("section", { class: "products", "aria-label": "Products" });
  const strays = h("p", { class: "note warn", hidden: true });
  const summary = h("div", { class: "effect" });

  main.append(h("div", { class: "models" }, title, summary, drifted, learn, teach,
    h("h2", {}, "Versions"),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [["Version", "n"], ["Made"], ["How"], ["From", "n"], ["Threshold", "n"], [""]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows)),
    detail, trail, products, strays));
  load();

  async function load() {
    try {
      await page.refresh(); // what a change is asked of (If-Match) is not newer than what is shown
      etag = page.facts?.etag;
      drawProducts();
      const [{ versions }, told, drift, stray, defects, fits] = await Promise.all([api.versions(page.product), feedback(), page.facts && api.drift(page.product), api.orphans(), api.defects(page.product), api.fit()]);
      if (closed) return;
      strays.textContent = stray.sentence || "";
      strays.hidden = !stray.sentence;
      overview(versions.find((one) => one.in_service));
      rows.replaceChildren(...versions.reverse().map(row));
      drawLearn(told);
      drawTeach(defects, fits);
      drawDrift(drift);
      if (trail.open) drawTrail();
    } catch (error) {
      toast(error.message, { kind: "error" });
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
      summary.replaceChildren(h("p", { class: "note error", role: "alert" }, `Out of service: ${out ? out.error : "no version is in service"}. Put another version into service, or fit a new model.`));
      return;
    }
    const figure = (value, words) => h("p", { class: "figure" }, h("b", {}, value), h("span", {}, words));
    summary.replaceChildren(
      figure(String(version.number), `version in service, since ${time(version.in_service_since)}`),
      figure(number(facts.threshold), "threshold"),
      figure(percent(facts.false_alarm_rate), "of good photos flagged by mistake, expected"),
      figure(facts.good_photos.toLocaleString("en-GB"), "good photos known"));
    show(version.number, false);
  }

  // --- Drift -------------------------------------------------------------------------------------

  function drawDrift(drift) {
    drifted.hidden = !drift;
    if (!drift) return;
    const past = h("div", {});
    const history = h("details", { ontoggle: () => history.open && drawAlarms(past) }, h("summary", {}, "All alarms"), past);
    drifted.replaceChildren(h("h2", {}, "Drift"), ...(drift.open.length ? openAlarms(drift.open) : [h("p", { role: "status" }, `No open alarm. ${count(drift.photos, "photo")} of this version looked at.`)]), history);
  }

  function openAlarms(alarms) {
    const by = h("input", { id: "ack-by", maxlength: 80, required: true, value: api.operator.name, autocomplete: "name" });
    const note = h("input", { id: "ack-note", maxlength: 500 });
    const seen = h("button", { type: "submit", class: "primary", id: "acknowledge" }, alarms.length > 1 ? `Acknowledge all ${alarms.length}` : "Acknowledge");
    function send(event) {
      event.preventDefault();
      api.operator.name = by.value;
      const given = { by: by.value.trim(), note: note.value.trim(), up_to: alarms[0].id }; // none that is not shown
      change(seen, () => api.acknowledge(page.product, given));
    }
    return [
      h("ul", { class: "alarms" }, alarms.map((alarm) => h("li", { class: "note warn" }, h("b", {}, "⚠ "), `${time(alarm.time)} · version ${alarm.version}: ${alarm.message}`))),
      h("form", { class: "row controls", onsubmit: send },
        h("label", {}, "Seen by ", by), h("label", {}, "What was done ", note), seen),
    ];
  }

  async function drawAlarms(past) {
    try {
      const { alarms } = await api.alarms(page.product, { limit: LINES });
      past.replaceChildren(alarms.length ? h("ul", { class: "alarms" }, alarms.map((alarm) => h("li", {},
        `${time(alarm.time)} · version ${alarm.version}: ${alarm.message} `,
        h("i", {}, alarm.acknowledged ? `Acknowledged by ${alarm.acknowledged_by}, ${time(alarm.acknowledged)}${alarm.note ? `: ${alarm.note}` : ""}.` : "Open.")))) : "None yet.");
    } catch (error) {
      past.replaceChildren(error.message);
    }
  }

  // --- Who changed what --------------------------------------------------------------------------

  async function drawTrail() {
    try {
      const { changes } = await api.changes(page.product, { limit: LINES });
      trail.lastChild.replaceChildren(h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, ["When", "What", "By", "Note"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, changes.map((one) => h("tr", {}, h("td", {}, h("time", { datetime: one.time }, time(one.time))), h("td", {}, one.what), h("td", {}, one.by || "–"), h("td", {}, one.note, told(one.figures))))))));
    } catch (error) {
      trail.lastChild.replaceChildren(error.message);
    }
  }

  /** What somebody was shown of confirmed parts and confirmed. */
  const told = (figures) => (figures && figures.defects ? h("small", {}, ` (${figures.missed_then} of ${figures.defects} confirmed defects missed)`) : null);

  // --- Products ----------------------------------------------------------------------------------

  function drawProducts() {
    const does = (text, work, attributes = {}) => {
      const button = h("button", { type: "button", ...attributes, onclick: () => change(button, work) }, text);
      return button;
    };
    const line = (name, words, ...buttons) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, words), h("td", {}, h("div", { class: "row" }, ...buttons)));
    const retire = async (one) => (await ask(`Retire ${one.name}?`, [h("p", {}, "It inspects no more photos until it is restored. Its records, photos and versions stay.")], "Retire") ? api.retire(one.name, one.etag) : null);
    products.replaceChildren(h("h2", {}, "Products"), h("p", {}, "A program that names no product gets the default."),
      h("table", {}, h("tbody", {},
        page.products.map((one) => line(one.name, one.name === page.default ? "in service, the default" : "in service", one.name !== page.default && [
          does("Make it the default", () => api.makeDefault(one.name, one.etag), { "data-default": one.name }), does("Retire", () => retire(one), { "data-retire": one.name })])),
        page.out.map((one) => line(one.name, h("span", { class: "note error" }, `out of service: ${one.error}`))),
        page.retired.map((name) => line(name, "retired", does("Restore", () => api.restore(name), { "data-restore": name }))))));
  }

  // --- Versions ----------------------------------------------------------------------------------

  function row(version) {
    const back = h("button", { type: "button", "data-version": version.number, onclick: () => goBack(version, back) }, "Put into service");
    return h("tr", { class: version.in_service ? "current" : "" },
      h("td", { class: "n" }, h("button", { type: "button", class: "link", "aria-label": `Where version ${version.number} comes from`, onclick: () => show(version.number, true) }, version.number)),
      h("td", {}, h("time", { datetime: version.created }, time(version.created))),
      h("td", {}, version.note),
      h("td", { class: "n" }, version.parent ?? "–"),
      h("td", { class: "n" }, number(version.threshold)),
      h("td", {}, version.in_service ? h("b", {}, "in service") : back));
  }

  function goBack(version, button) {
    const before = page.facts?.version;
    change(button, async () => {
      const now = await rollBack(page.product, version.number, etag);
      if (now && before) page.tellSwap(now, before, load);
      return now;
    }, "Putting it into service …");
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
          const { comparison } = await api.update(page.product, { dry: true }, etag);
          result.replaceChildren(...outcome(comparison));
        } catch (error) {
          result.replaceChildren(h("p", { class: "note error" }, error.message));
        }
      });
    }
  }

  /** The other way to learn: the model is made anew by a fit, which the view Fit shows. */
  function drawTeach({ confirmed, drawn, unnamed, kinds }, fits) {
    const named = [...kinds.filter((one) => one.confirmed).map((one) => `${one.name} ${one.confirmed}`), unnamed && `of no kind ${unnamed}`].filter(Boolean);
    const known = kinds.filter((one) => one.known).map((one) => one.name);
    const sources = [...fits.folders.map((one) => [one.name, `${one.name} (${count(one.photos, "photo")})`]), ...(fits.dropped ? [["", `dropped photos (${fits.dropped})`]] : [])];
    const folder = h("select", { id: "learn-folder" }, sources.map(([value, text]) => h("option", { value }, text)));
    const busy = fits.job !== null && fits.job.state === "running";
    const begin = h("button", { type: "submit", class: "primary", id: "learn", disabled: !confirmed || !sources.length || busy }, `Learn from ${count(confirmed, "confirmed defect")}`);
    function start(event) {
      event.preventDefault();
      during(begin, async () => {
        await api.learn(page.product, { folder: folder.value || null }, fits.etag);
        location.hash = "fit";
      });
    }
    teach.replaceChildren(...[h("h2", {}, "Learn from confirmed defects"),
      h("p", {}, confirmed ? `${count(confirmed, "photo")} called a defect, ${drawn} of them drawn: ${named.join(", ")}.` : "Nothing to learn yet: on Live, say of a photo that it was a defect."),
      known.length > 0 && h("p", {}, `The version in service names these kinds: ${known.join(", ")}.`),
      h("p", {}, "The model is made anew, so it takes the good photos that it was fitted on. Nothing is in service before it is compared and somebody says so."),
      sources.length ? h("form", { class: "row controls", onsubmit: start }, h("label", {}, "Good photos of the model ", folder), begin)
        : h("p", { class: "note" }, "No folder was named when the service was started (serve --photos DIR).")].filter(Boolean));
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
    const before = page.facts.version;
    change(button, async () => {
      const { version, etag: now } = await api.update(page.product, { force }, etag);
      page.tellSwap({ ...version, etag: version.etag ?? now }, before, load);
    }, "Learning, then putting it into service …");
  }

  return { close() { closed = true; } };
}

/** Nested values as nested lists of names and values. */
function tree(values) {
  if (values === null || typeof values !== "object") return h("span", {}, values === null ? "–" : String(values));
  if (Array.isArray(values) && values.every((value) => typeof value !== "object")) return h("span", {}, values.join(", ") || "–");
  return h("dl", { class: "tree" }, Object.entries(values).flatMap(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, tree(value))]));
}
