// Fit: choose or drop good photos, watch the fit, compare it with the model in service, put it there.

import * as api from "./api.js";
import { ask, during, h, number, photoChooser, said, sentence, toast, toastAll } from "./dom.js";
import { verdictWord } from "./items.js";
import { t, whole } from "./words.js";

const EVERY = 1000;

export function fitView(main, page) {
  let closed = false;
  let timer = 0;
  let etag = null; // of the fit, as it is shown here
  let drawn = ""; // what is on the screen, so that a click is not lost to a redraw

  const body = h("div", {});
  const status = h("section", { class: "job", "aria-label": t("fit.job") });
  const folder = h("select", { id: "fit-folder", onchange: () => tellArriving() });
  const arriving = h("p", { class: "note warn", id: "fit-arriving", role: "status", hidden: true }, t("fit.arriving"));
  let folders = [];
  const product = h("input", { id: "fit-product", value: page.product, maxlength: 64, list: "fit-products", required: true });
  const quality = h("select", { id: "fit-quality" },
    h("option", { value: "fast" }, t("fit.fast")),
    h("option", { value: "balanced", selected: true }, t("fit.balanced")),
    h("option", { value: "best" }, t("fit.best")));
  const begin = h("button", { type: "submit", class: "primary", "data-needs": "change" }, t("fit.begin"));
  const dropped = h("p", { class: "dropped" });
  const forget = h("button", { type: "button", class: "quiet", "data-needs": "change", onclick: () => during(forget, async () => show(await api.clearDropped(etag))) }, t("fit.forget"));
  const form = h("form", { onsubmit: start },
    h("fieldset", {},
      h("legend", {}, t("fit.good_photos")),
      h("label", { for: "fit-folder" }, t("fit.from"), " "), folder, arriving,
      h("div", { class: "dropzone" },
        h("p", {}, t("fit.drop")),
        h("div", { class: "row" }, photoChooser("fit-files", drop, "change", t("fit.choose")), forget), dropped)),
    h("div", { class: "row controls" },
      h("label", {}, t("product"), " ", product, h("datalist", { id: "fit-products" }, page.products.map((one) => h("option", { value: one.name })))),
      h("label", {}, t("fit.quality"), " ", quality), begin));

  main.append(h("div", { class: "fit" }, h("h1", {}, t("fit.title")),
    h("p", {}, t("fit.about")), body));
  look();

  async function look() {
    clearTimeout(timer);
    try {
      show(await api.fit());
    } catch { /* the header says that there is no answer */ }
    if (!closed) timer = setTimeout(look, EVERY);
  }

  function show(now) {
    if (closed) return;
    etag = now.etag;
    if (!body.firstChild) body.append(form, status);
    sources(now);
    const { job } = now;
    const running = job !== null && job.state === "running";
    begin.disabled = running || !folder.options.length;
    forget.hidden = !now.dropped || running;
    const key = JSON.stringify(job && { ...job, seconds: running ? Math.round(job.seconds) : 0 });
    if (key === drawn) return;
    const bar = status.querySelector("progress");
    if (running && bar && status.dataset.state === "running") progress(job);
    else status.replaceChildren(...described(job));
    status.dataset.state = job ? job.state : "";
    drawn = key;
  }

  function sources(now) {
    const wanted = [...(now.dropped ? [["", t("fit.dropped", { n: now.dropped })]] : []),
      ...now.folders.map((one) => [one.name, one.changing ? t("fit.folder_changing", { name: one.name, n: one.photos }) : t("fit.folder", { name: one.name, n: one.photos })])];
    const texts = wanted.map(([, text]) => text).join("\n");
    if (folder.dataset.texts !== texts) {
      const before = folder.options.length ? folder.value : null;
      folder.replaceChildren(...wanted.map(([value, text]) => h("option", { value }, text)));
      if (wanted.some(([value]) => value === before)) folder.value = before;
      folder.dataset.texts = texts;
    }
    folders = now.folders;
    tellArriving();
    dropped.textContent = now.dropped ? t("fit.so_many_dropped", { n: now.dropped }) : now.folders.length ? "" : t("fit.no_folder");
  }

  function tellArriving() {
    arriving.hidden = !folders.some((one) => one.name === folder.value && one.changing);
  }

  async function drop(files) {
    const bad = [];
    let now = null;
    for (const one of files) {
      try { now = await api.dropForFit(one); show(now); } catch (error) { bad.push(said(error)); }
    }
    if (now) { folder.value = ""; }
    toastAll(bad);
  }

  function start(event) {
    event.preventDefault();
    during(begin, async () => {
      show(await api.startFit({ product: product.value.trim(), folder: folder.value || null, quality: quality.value }, etag));
    }).then(look);
  }

  // --- The fit at work ---------------------------------------------------------------------------

  function described(job) {
    if (!job) return [];
    const title = h("h2", {}, job.parent ? t("fit.job_learn", { product: job.product, source: job.source }) : t("fit.job_title", { product: job.product, source: job.source }));
    if (job.state === "running") return [title, ...atWork(job)];
    if (job.state === "failed") return [title, h("p", { class: "note error", role: "alert" }, job.error)];
    if (job.state === "cancelled") return [title, h("p", {}, t("fit.cancelled"))];
    if (job.state === "in service") return [title, h("p", { class: "note ok" }, t("fit.in_service", { version: job.version }), " ", h("a", { href: "#models" }, t("view.models")))];
    return [title, ...ready(job)];
  }

  function atWork(job) {
    const cancel = h("button", { type: "button", id: "fit-cancel", "data-needs": "change", onclick: () => during(cancel, async () => show(await api.cancelFit(etag))) }, t("fit.cancel"));
    queueMicrotask(() => progress(job));
    return [h("p", { class: "step", role: "status" }), h("progress", { max: 1, "aria-label": t("fit.step") }), h("p", { class: "took" }), cancel];
  }

  function progress(job) {
    const bar = status.querySelector("progress");
    if (!bar) return;
    const step = status.querySelector(".step");
    if (step.textContent !== job.step) step.textContent = job.step;
    if (job.total) bar.value = job.done / job.total;
    else bar.removeAttribute("value");
    status.querySelector(".took").textContent = `${job.total ? `${t("of", { n: job.done, of: job.total })} · ` : ""}${whole(Math.round(job.seconds))} s`;
  }

  function ready(job) {
    const serve = h("button", { type: "button", class: "primary", id: "fit-serve", "data-needs": "change", onclick: () => put(job, serve) }, t("put_into_service"));
    const away = h("button", { type: "button", "data-needs": "change", onclick: () => during(away, async () => show(await api.cancelFit(etag))) }, t("fit.away"));
    return [
      h("p", {}, t("fit.learned", { n: job.good_photos, seconds: Math.round(job.seconds), threshold: number(job.threshold) }), " ", said(job.promise)),
      ...job.learned.map((text) => h("p", {}, said(sentence(text)))),
      ...job.notes.map((text) => h("p", { class: "note" }, said(text))),
      ...compared(job),
      h("div", { class: "row" }, serve, away),
    ];
  }

  function put(job, button) {
    const { missed = 0, unseen_missed: unseen = 0 } = job.comparison || {};
    const lost = [missed && t("fit.would_miss", { n: missed }),
      unseen && t("fit.would_miss_unseen", { n: unseen })].filter(Boolean);
    during(button, async () => {
      if (lost.length && !await ask(t("fit.ask"), lost.map((text) => h("p", { class: "note error" }, text)), t("fit.yes"))) return;
      const version = await api.serveFit(lost.length > 0, etag);
      page.choose(version.product);
      await page.refresh();
      toast(t("fit.now_in_service", { product: version.product, version: version.number }));
    }, t("putting")).then(look);
  }

  return { drop, close() { closed = true; clearTimeout(timer); } };
}

/** A new model beside the one in service, on the same photos. */
function compared(job) {
  const c = job.comparison;
  if (!c) return [h("p", {}, t("fit.nothing_to_compare"))];
  const line = (text, [old, now], of, better = null) => {
    const [ofOld, ofNow] = [of].flat().length > 1 ? of : [of, of];
    return h("tr", { class: now === old || better === null ? "" : now > old === better ? "better" : "worse" },
      h("th", { scope: "row" }, text), h("td", { class: "n" }, t("of", { n: old, of: ofOld })), h("td", { class: "n" }, t("of", { n: now, of: ofNow })));
  };
  return [
    h("table", { class: "comparison" },
      h("caption", {}, t("fit.compared", { n: c.photos })),
      h("thead", {}, h("tr", {}, ["", t("fit.old"), t("fit.new")].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {},
        line(verdictWord("small", "anomalous"), c.anomalous, c.photos),
        line(t("fit.false_alarms"), c.false_alarms, c.goods, false),
        line(t("fit.found"), c.found, c.defects, true),
        c.unseen.length > 0 && line(t("fit.found_unseen"), c.unseen_found, c.unseen.length, true),
        line(t("fit.good_flagged"), c.good_flagged, c.good_parts))),
    ...KINDS_OF_CHANGE.map(([kind, is]) => changedPhotos(t(`fit.change.${kind}`), c.changed.filter(is))),
    changedPhotos(t("fit.newly_missed_unseen"), c.unseen.filter((one) => one.old_anomalous && !one.new_anomalous)),
  ].filter(Boolean);
}

const KINDS_OF_CHANGE = [
  ["found", (one) => one.feedback === "defect" && one.new_anomalous],
  ["missed", (one) => one.feedback === "defect" && !one.new_anomalous],
  ["flagged", (one) => one.feedback !== "defect" && one.new_anomalous],
  ["no_longer", (one) => one.feedback !== "defect" && !one.new_anomalous],
];

/** Photos of which the two models say different things, each leading to its record. */
function changedPhotos(text, changes) {
  return changes.length > 0 && h("details", { open: changes.length <= 6 }, h("summary", {}, t("fit.change", { what: text, n: changes.length })),
    h("ul", { class: "changed" }, changes.map((one) => h("li", {}, h("a", { href: `#live/${one.record}` },
      h("img", { alt: "", loading: "lazy", src: api.picture(one.record, "picture", { size: 160 }) }),
      one.feedback === "good" ? t("fit.called_good", { name: one.name }) : one.name)))));
}
