// Fit: choose or drop good photos, watch the fit, compare it with the model in service, put it there.

import * as api from "./api.js";
import { ask, count, during, h, number, photoChooser, sentence, toast, toastAll } from "./dom.js";

const EVERY = 1000;

export function fitView(main, page) {
  let closed = false;
  let timer = 0;
  let etag = null; // of the fit, as it is shown here
  let drawn = ""; // what is on the screen, so that a click is not lost to a redraw

  const body = h("div", {});
  const status = h("section", { class: "job", "aria-label": "The fit" });
  const folder = h("select", { id: "fit-folder", onchange: () => tellArriving() });
  const arriving = h("p", { class: "note warn", id: "fit-arriving", role: "status", hidden: true }, "More photos are arriving in this folder. A fit that is begun now waits until no more come.");
  let folders = [];
  const product = h("input", { id: "fit-product", value: page.product, maxlength: 64, list: "fit-products", required: true });
  const quality = h("select", { id: "fit-quality" },
    h("option", { value: "fast" }, "fast: fewest milliseconds a photo"),
    h("option", { value: "balanced", selected: true }, "balanced"),
    h("option", { value: "best" }, "best: fewest misses"));
  const begin = h("button", { type: "submit", class: "primary" }, "Fit");
  const dropped = h("p", { class: "dropped" });
  const forget = h("button", { type: "button", class: "quiet", onclick: () => during(forget, async () => show(await api.clearDropped(etag))) }, "Forget them");
  const form = h("form", { onsubmit: start },
    h("fieldset", {},
      h("legend", {}, "Good photos"),
      h("label", { for: "fit-folder" }, "From "), folder, arriving,
      h("div", { class: "dropzone" },
        h("p", {}, "Or drop photos of good parts here, 100 or more if you can."),
        h("div", { class: "row" }, photoChooser("fit-files", drop, "Choose good photos"), forget), dropped)),
    h("div", { class: "row controls" },
      h("label", {}, "Product ", product, h("datalist", { id: "fit-products" }, page.products.map((one) => h("option", { value: one.name })))),
      h("label", {}, "Quality ", quality), begin));

  main.append(h("div", { class: "fit" }, h("h1", {}, "Fit a model"),
    h("p", {}, "A fit learns from photos of good parts alone. It runs beside the inspection, at a low priority; nothing changes until you put the new model into service."), body));
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
    const wanted = [...(now.dropped ? [["", `dropped photos (${now.dropped})`]] : []),
      ...now.folders.map((one) => [one.name, `${one.name} (${count(one.photos, "photo")}${one.changing ? ", more are arriving" : ""})`])];
    const texts = wanted.map(([, text]) => text).join("\n");
    if (folder.dataset.texts !== texts) {
      const before = folder.options.length ? folder.value : null;
      folder.replaceChildren(...wanted.map(([value, text]) => h("option", { value }, text)));
      if (wanted.some(([value]) => value === before)) folder.value = before;
      folder.dataset.texts = texts;
    }
    folders = now.folders;
    tellArriving();
    dropped.textContent = now.dropped ? `${count(now.dropped, "photo")} dropped.` : now.folders.length ? "" : "No folder was named when the service was started (serve --photos DIR).";
  }

  function tellArriving() {
    arriving.hidden = !folders.some((one) => one.name === folder.value && one.changing);
  }

  async function drop(files) {
    const bad = [];
    let now = null;
    for (const one of files) {
      try { now = await api.dropForFit(one); show(now); } catch (error) { bad.push(error.message); }
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
    const title = h("h2", {}, job.parent ? `${job.product}, from confirmed defects and ${job.source}` : `${job.product}, from ${job.source}`);
    if (job.state === "running") return [title, ...atWork(job)];
    if (job.state === "failed") return [title, h("p", { class: "note error", role: "alert" }, job.error)];
    if (job.state === "cancelled") return [title, h("p", {}, "Cancelled.")];
    if (job.state === "in service") return [title, h("p", { class: "note ok" }, `In service as version ${job.version}. `, h("a", { href: "#models" }, "Models"))];
    return [title, ...ready(job)];
  }

  function atWork(job) {
    const cancel = h("button", { type: "button", id: "fit-cancel", onclick: () => during(cancel, async () => show(await api.cancelFit(etag))) }, "Cancel");
    queueMicrotask(() => progress(job));
    return [h("p", { class: "step", role: "status" }), h("progress", { max: 1, "aria-label": "This step" }), h("p", { class: "took" }), cancel];
  }

  function progress(job) {
    const bar = status.querySelector("progress");
    if (!bar) return;
    const step = status.querySelector(".step");
    if (step.textContent !== job.step) step.textContent = job.step;
    if (job.total) bar.value = job.done / job.total;
    else bar.removeAttribute("value");
    status.querySelector(".took").textContent = `${job.total ? `${job.done.toLocaleString("en-GB")} of ${job.total.toLocaleString("en-GB")} · ` : ""}${Math.round(job.seconds)} s`;
  }

  function ready(job) {
    const serve = h("button", { type: "button", class: "primary", id: "fit-serve", onclick: () => put(job, serve) }, "Put into service");
    const away = h("button", { type: "button", onclick: () => during(away, async () => show(await api.cancelFit(etag))) }, "Throw away");
    return [
      h("p", {}, `Learned from ${count(job.good_photos, "good photo")} in ${Math.round(job.seconds)} s. Threshold ${number(job.threshold)}. ${job.promise}`),
      ...job.learned.map((text) => h("p", {}, sentence(text))),
      ...job.notes.map((text) => h("p", { class: "note" }, text)),
      ...compared(job),
      h("div", { class: "row" }, serve, away),
    ];
  }

  function put(job, button) {
    const { missed = 0, unseen_missed: unseen = 0 } = job.comparison || {};
    const lost = [missed && `The new model would miss ${count(missed, "confirmed defect")} that the model in service finds.`,
      unseen && `Had it not learned from them, it would miss ${count(unseen, "confirmed defect")} that the model in service finds.`].filter(Boolean);
    during(button, async () => {
      if (lost.length && !await ask("Put it into service all the same?", lost.map((text) => h("p", { class: "note error" }, text)), "Yes, put it into service")) return;
      const version = await api.serveFit(lost.length > 0, etag);
      page.choose(version.product);
      await page.refresh();
      toast(`${version.product}: version ${version.number} is in service.`);
    }, "Putting it into service …").then(look);
  }

  return { drop, close() { closed = true; clearTimeout(timer); } };
}

/** A new model beside the one in service, on the same photos. */
function compared(job) {
  const c = job.comparison;
  if (!c) return [h("p", {}, "There is nothing to compare it with: no photos of this product, or no model before.")];
  const line = (text, [old, now], of, better = null) => {
    const [ofOld, ofNow] = [of].flat().length > 1 ? of : [of, of];
    return h("tr", { class: now === old || better === null ? "" : now > old === better ? "better" : "worse" },
      h("th", { scope: "row" }, text), h("td", { class: "n" }, `${old} of ${ofOld}`), h("td", { class: "n" }, `${now} of ${ofNow}`));
  };
  return [
    h("table", { class: "comparison" },
      h("caption", {}, `Compared on ${count(c.photos, "photo")} of the records`),
      h("thead", {}, h("tr", {}, ["", "in service", "new"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {},
        line("anomalous", c.anomalous, c.photos),
        line("called good, but flagged", c.false_alarms, c.goods, false),
        line("called a defect, and found", c.found, c.defects, true),
        c.unseen.length > 0 && line("… by versions that had not seen it", c.unseen_found, c.unseen.length, true),
        line("good photos of the fit flagged, each left out", c.good_flagged, c.good_parts))),
    ...KINDS_OF_CHANGE.map(([text, is]) => changedPhotos(text, c.changed.filter(is))),
    changedPhotos("Newly missed by versions that had not seen them", c.unseen.filter((one) => one.old_anomalous && !one.new_anomalous)),
  ].filter(Boolean);
}

const KINDS_OF_CHANGE = [
  ["Newly found: called a defect", (one) => one.feedback === "defect" && one.new_anomalous],
  ["Newly missed: called a defect", (one) => one.feedback === "defect" && !one.new_anomalous],
  ["Newly flagged", (one) => one.feedback !== "defect" && one.new_anomalous],
  ["No longer flagged", (one) => one.feedback !== "defect" && !one.new_anomalous],
];

/** Photos of which the two models say different things, each leading to its record. */
function changedPhotos(text, changes) {
  return changes.length > 0 && h("details", { open: changes.length <= 6 }, h("summary", {}, `${text}: ${count(changes.length, "photo")}`),
    h("ul", { class: "changed" }, changes.map((one) => h("li", {}, h("a", { href: `#live/${one.record}` },
      h("img", { alt: "", loading: "lazy", src: api.picture(one.record, "picture", { size: 160 }) }),
      `${one.name}${one.feedback === "good" ? " (called good)" : ""}`)))));
}
