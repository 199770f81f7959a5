// Live: the newest verdict large while it holds, and why there is none where it does not; the photo
// with heat map and frames, what it was compared with, and a strip of the photos before it.

import * as api from "./api.js";
import { openComparison } from "./compare.js";
import { defectDetails, detailsOf } from "./details.js";
import { duration, h, number, photoChooser, said, sentence, showPicture, speak, time, toast } from "./dom.js";
import { called, keyOf, kindOf, markOf, merged, verdictOf, wordOf } from "./items.js";
import { chosen as choice } from "./settings.js";
import { shape } from "./shapes.js";
import { beep, flash } from "./signals.js";
import { explained, photoStage } from "./stage.js";
import { age, failed, shapeFor, since, trouble, wordFor } from "./trouble.js";
import { undoable } from "./undo.js";
import { webcamPanel } from "./webcam.js";
import { rich, t } from "./words.js";

const STRIP = 24;
const EVERY = 3000; // milliseconds between two looks at the records when the state names none that is new
const OVERDUE = 5000; // milliseconds that the record of a photo that the state tells of may take
const REACTION = 800; // milliseconds in which nobody can have judged a part that has just come

const ours = new Map(); // records as what was said of them here left them, so that undoing goes on from there

export function liveView(main, page, [wanted]) {
  let records = [];
  let items = []; // records and failures, newest first
  let chosen = null; // the record or the failure that is shown
  let follow = !wanted;
  let before = null; // what was shown before the page went on by itself
  let moved = -Infinity; // when it did
  let closed = false;
  let asked = 0; // counts looks, so that an answer that was overtaken is dropped
  let looking = 0; // looks at work
  let readOut = ""; // the trouble that was read out last
  let signalled = null; // what sounded last, so that it sounds once
  let bound = ""; // the serial number of the next part, as the station knows it
  let late = null; // since when the state has known of something that the records have not brought
  let marked = null; // what was said last: {part: as it was before, record: as it is}
  const tiles = new Map();

  // --- What is on the screen ---------------------------------------------------------------------

  const verdict = h("p", { class: "verdict none", id: "verdict" }, t("live.none"));
  const reason = h("p", { class: "reason", id: "reason" });
  const facts = h("p", { class: "facts" });
  const stage = photoStage();
  const why = h("section", { class: "why", "aria-label": t("why.title") });
  const told = h("p", { class: "said" });
  const good = h("button", { type: "button", class: "say good", "data-needs": "feedback", onclick: () => say("good", moment()) }, t("live.was_good"), " ", h("kbd", {}, "G"));
  const defect = h("button", { type: "button", class: "say defect", "data-needs": "feedback", onclick: () => say("defect", moment()) }, t("live.was_defect"), " ", h("kbd", {}, "D"));
  const back = h("button", { type: "button", class: "quiet", "data-needs": "feedback", onclick: () => say(null, chosen) }, t("live.take_back"));
  const details = defectDetails(stage, { keep: (part, said) => say("defect", part, said), hold });
  const feedback = h("section", { class: "feedback", "aria-label": t("live.really") }, good, defect, told, back, details.element);
  const strip = h("ol", { class: "strip", "aria-label": t("live.last_label") });
  const newest = h("button", { type: "button", class: "newest", onclick: followNewest }, t("live.follow"), " ", h("kbd", {}, "N"));
  const choose = photoChooser("file", inspectAll, "inspect", t("live.choose"), " ", h("kbd", {}, "O"));
  const serial = h("input", { id: "serial", maxlength: 100, autocomplete: "off", placeholder: t("live.serial_hint"), onchange: () => bind(serial.value) });
  const lot = h("input", { id: "lot", maxlength: 100, autocomplete: "off", value: localStorage.getItem("lot") ?? "", oninput: () => localStorage.setItem("lot", lot.value.trim()) });
  const webcam = webcamPanel((blob) => inspectAll([blob]));
  const wall = h("button", { type: "button", onclick: toggleWall }, t("live.wall"), " ", h("kbd", {}, "W"));
  const wallHint = h("button", { type: "button", class: "wall-hint quiet", onclick: toggleWall }, t("live.leave_wall"), " ", h("kbd", {}, "Esc"));
  const box = h("div", { class: "live" }, h("h1", { class: "unseen" }, t("view.live")),
    h("div", { class: "shown" }, h("div", { class: "headline" }, verdict, reason, facts), stage.element),
    h("div", { class: "beside" }, feedback, why,
      h("section", { class: "source", "aria-label": t("live.photos") },
        h("h2", {}, t("live.inspect")),
        h("p", {}, t("live.drop")),
        h("div", { class: "row" },
          choose, webcam.button),
        webcam.element,
        h("p", { class: "serial" }, h("label", {}, t("live.serial"), " ", serial), h("small", {}, t("live.serial_note"))),
        h("p", { class: "serial" }, h("label", {}, t("history.lot"), " ", lot), h("small", {}, t("live.lot_note"))))),
    h("section", { class: "last", "aria-label": t("live.last") },
      h("div", { class: "row" }, h("h2", {}, t("live.last")), newest, wall), strip));

  main.append(box, wallHint);
  show(null);
  start();

  // --- Records -----------------------------------------------------------------------------------

  async function start() {
    if (wanted) await open(wanted);
    look();
  }

  async function open(id) {
    try {
      const record = await api.record(Number(id));
      if (record.product !== page.product) page.choose(record.product);
      follow = false;
      goTo(record);
    } catch (error) {
      toast(said(error), { kind: "error" });
      follow = true;
    }
  }

  async function look() {
    clearTimeout(look.timer);
    const mine = ++asked;
    const current = () => !closed && mine === asked;
    looking += 1;
    try {
      const query = { product: page.product, limit: STRIP };
      const [found, failed] = await Promise.all([api.records(query), api.failures(query)]);
      if (!current()) return;
      records = found.records;
      items = merged(records, failed.failures).slice(0, STRIP);
      const same = records.find((one) => chosen && one.id === chosen.key);
      if (same && same.feedback_count !== chosen.feedback_count) update(same);
      if (follow && items.length && (!chosen || items[0].key !== chosen.key)) goOn(items[0]);
      drawStrip();
    } catch (error) {
      if (!(error instanceof api.ServiceError)) throw error; // the state says why there is no answer
    } finally {
      looking -= 1;
      if (current()) look.timer = setTimeout(look, EVERY);
    }
  }

  /** Whether the state knows of something newer than what was looked at last. */
  function behind() {
    const now = page.service.state?.products.find((one) => one.name === page.product);
    if (!now) return false;
    const failed = now.failure && !items.some((one) => one.error && one.time === now.failure.time);
    return failed || Boolean(now.last && now.last.id > (records[0]?.id ?? 0));
  }

  function drawStrip() {
    const keys = new Set(items.map((one) => one.key));
    for (const [key, tile] of tiles) if (!keys.has(key)) { tile.element.remove(); tiles.delete(key); }
    let next = strip.firstChild;
    for (const item of items) {
      let tile = tiles.get(item.key);
      if (!tile) { tile = stripTile(item, () => pick(item.key)); tiles.set(item.key, tile); }
      tile.show(item, chosen !== null && chosen.key === item.key);
      if (tile.element !== next) strip.insertBefore(tile.element, next);
      else next = next.nextSibling;
    }
    newest.hidden = follow;
  }

  function pick(key) {
    const item = items.find((one) => one.key === key);
    if (!item) return;
    follow = item.key === items[0].key;
    goTo(item);
    drawStrip();
  }

  function step(by) {
    const at = items.findIndex((one) => chosen && one.key === chosen.key);
    const next = items[at + by];
    if (next) { pick(next.key); tiles.get(next.key).element.scrollIntoView({ block: "nearest", inline: "nearest" }); }
  }

  /** Keep the part on the screen while somebody says more of it. */
  function hold() {
    follow = false;
    newest.hidden = false;
  }

  function followNewest() {
    follow = true;
    if (items.length) pick(items[0].key);
  }

  /** Show what somebody at the page chose. */
  function goTo(item) {
    before = null;
    show(item);
  }

  /** Show the next part, which came by itself or was sent from here. */
  function goOn(item) {
    before = page.isOwn(item.id) ? null : chosen;
    moved = performance.now();
    show(item);
  }

  // --- One record --------------------------------------------------------------------------------

  function show(item) {
    chosen = item && { ...item, key: keyOf(item) };
    box.classList.toggle("empty", !chosen);
    const judged = Boolean(chosen) && !chosen.error;
    for (const element of [stage.element, feedback, why]) element.hidden = !judged;
    if (judged) {
      stage.show(chosen);
      why.replaceChildren(...explained(chosen), h("button", { type: "button", id: "compare", onclick: compare }, t("compare.open"), " ", h("kbd", {}, "K")));
      showFeedback();
    } else details.show(null);
    readOut = "";
    headline();
    if (!chosen || readOut) return;
    speak(chosen.error ? failed(chosen) : t("live.spoken", { name: chosen.name, verdict: verdictOf(chosen), score: number(chosen.score) }));
  }

  /** The verdict while it holds; else what stands in its place, since when, and why. */
  function headline() {
    const now = trouble(page.service, page.product) || overdue();
    const isNewest = follow && (!items.length || !chosen || items[0].key === chosen.key);
    const begun = chosen || (now && now.kind !== "none" && now.kind !== "unknown");
    box.classList.toggle("doubt", Boolean(now) && isNewest);
    if (chosen && !isNewest) showEarlier(now);
    else if (!begun) put("none", "", t("live.none"), "", t("live.begin"));
    else if (now || chosen.error) { showTrouble(now || failure(chosen)); return; }
    else {
      const warnings = (page.service.state?.warnings || []).map(sentence).join(" ");
      signal(`verdict ${chosen.key}`, kindOf(chosen));
      put(kindOf(chosen), kindOf(chosen), wordOf(chosen), warnings, factsOf(chosen, age(page.service, page.product)));
    }
    readOut = "";
  }

  /** Trouble where the record of a newer photo does not come. */
  function overdue() {
    if (late === null || performance.now() - late < OVERDUE) return null;
    return { kind: "silent", why: t("live.overdue"), since: null, seconds: null };
  }

  /** A photo that somebody looks back at: its verdict is that of then, never filled like that of now. */
  function showEarlier(now) {
    const words = now ? t("live.none_now", { why: now.why, since: since(now) }) : items[0]?.key === chosen.key ? t("live.stays") : t("live.not_newest");
    if (chosen.error) put("trouble earlier", "none", t("state.none"), sentence(failed(chosen)), [h("b", { class: "name" }, chosen.name), ` · ${time(chosen.time)}`]);
    else put(`${kindOf(chosen)} earlier`, kindOf(chosen), wordOf(chosen), words, factsOf(chosen, null));
  }

  /** Sound and light for what is new, as somebody chose; not for what was there when the page came. */
  function signal(key, kind) {
    if (key === signalled) return;
    const first = signalled === null;
    signalled = key;
    if (first) return;
    const wanted = (name) => choice(name) === "all" || (choice(name) === "ng" && kind !== "good");
    if (wanted("sound")) beep(kind);
    if (wanted("light")) flash(kind);
  }

  function showTrouble(now) {
    signal(`${now.kind} ${chosen?.key}`, "trouble");
    const last = chosen && !chosen.error ? [...rich("live.photo_before", { name: h("b", { class: "name" }, chosen.name) }), ` · ${time(chosen.time)}`] : "";
    put(`trouble ${now.kind}`, shapeFor(now.kind), wordFor(now.kind), `${now.why} ${since(now)}`, last);
    const told = t("live.none_spoken", { why: now.why.replace(/\d+ (s|min|h)\b/g, "") });
    if (told !== readOut) speak(told);
    readOut = told;
  }

  function put(kind, mark, word, words, about) {
    if (verdict.dataset.key !== `${kind} ${word}`) {
      verdict.className = `verdict ${kind}`;
      verdict.replaceChildren(...[mark && shape(mark), word].filter(Boolean));
      verdict.style.setProperty("--letters", word.length);
      verdict.dataset.key = `${kind} ${word}`;
    }
    if (reason.textContent !== words) reason.textContent = words;
    reason.hidden = !words;
    // Only the age goes on from second to second: what is selected to be copied stays selected.
    const key = `${kind} ${word} ${chosen?.key}`;
    const parts = [about].flat().filter(Boolean);
    if (facts.dataset.key !== key) facts.replaceChildren(...parts);
    else facts.querySelector(".age")?.replaceWith(parts.find((part) => part.className === "age"));
    facts.dataset.key = key;
  }

  /** What the name, the time and the figures of a record are; with its age where it is the newest. */
  function factsOf(record, seconds) {
    return [
      h("b", { class: "name" }, record.name), record.serial && ` · ${t("live.of_serial", { serial: record.serial })}`, ` · ${time(record.time)}`,
      seconds === null ? "" : h("span", { class: "age" }, ` (${t("ago", { time: duration(seconds, "ago") })})`), " · ",
      ...rich("live.figures", { score: h("b", {}, number(record.score)), sign: record.anomalous ? ">" : "≤", threshold: number(record.threshold), version: record.version }),
      " · ", h("a", { href: `#report/${record.id}` }, t("view.report")),
    ];
  }

  function showFeedback() {
    good.setAttribute("aria-pressed", chosen.feedback === "good");
    defect.setAttribute("aria-pressed", chosen.feedback === "defect");
    back.hidden = !chosen.feedback;
    const kind = chosen.feedback_kind ? ` (${chosen.feedback_kind})` : "";
    told.textContent = chosen.feedback ? t(`live.said.${chosen.feedback}`, { kind, time: time(chosen.feedback_time) }) : "";
    details.show(chosen);
  }

  // --- What a part was ---------------------------------------------------------------------------

  /**
   * The part that a key or a button pressed now is about: the one on the screen; just after the page
   * went on by itself, the one before, as nobody has judged the new one yet.
   */
  function moment() {
    return before && !before.error && performance.now() - moved < REACTION ? before : chosen;
  }

  /** Say what a part was; a defect that is called one again keeps its kind and place. */
  async function say(what, part, more = what === "defect" && part ? detailsOf(part) : {}, isUndo = false) {
    if (!part) return;
    if (part.error) { toast(t("live.nothing_to_say", { name: part.name }), { kind: "error" }); return; }
    const passed = before && part.key === before.key && chosen && !chosen.error ? chosen : null;
    try {
      const record = await api.feedback(part, what, more);
      ours.set(record.id, record);
      update(record);
      tellMarked(part, record, passed, isUndo);
    } catch (error) {
      const again = error.status === 412 ? [] : [[t("try_again"), () => say(what, part, more)]];
      toast([t("live.not_kept", { name: part.name }), " ", said(error)], { kind: "error", actions: again });
    }
    look();
  }

  /** Take over a record that has changed. */
  function update(record) {
    items = items.map((one) => (one.key === record.id ? { ...record, key: record.id } : one));
    if (chosen && chosen.key === record.id) { chosen = { ...record, key: record.id }; showFeedback(); }
    if (before && before.key === record.id) before = { ...record, key: record.id };
  }

  /** Which part was marked, with undo; and where the page had just gone on, the part after it. */
  function tellMarked(part, record, passed, isUndo) {
    const words = called(record.feedback) || t("called.nothing");
    const marking = passed ? t("live.marked_before", { name: record.name, words }) : t("live.marked", { name: record.name, words });
    const sayBefore = () => say(part.feedback, { ...(ours.get(record.id) ?? record), key: record.id }, part.feedback === "defect" ? detailsOf(part) : {}, true);
    const undo = isUndo ? sayBefore : undoable(marking, sayBefore);
    const other = async () => { await undo(); say(record.feedback, passed); };
    const actions = [[t("undo"), undo]];
    if (passed) actions.unshift([t("live.one_after"), other]);
    marked = record.feedback ? { part, record } : null;
    toast(marking, { actions, picture: api.picture(record.id, "picture", { size: 96 }) });
  }

  /** Take back what is said of the part on the screen, or else what was said last. */
  function takeBack(part) {
    if (part && part.feedback) say(null, part);
    else if (marked) say(marked.part.feedback, { ...marked.record, key: marked.record.id }, marked.part.feedback === "defect" ? detailsOf(marked.part) : {});
  }

  async function inspectAll(files) {
    follow = true;
    if (serial.value.trim() !== bound) await bind(serial.value); // typed, and not left yet
    await page.inspect(files);
    look();
  }

  /** Bind what was typed or scanned to the next part of the product, whoever sends its photo. */
  async function bind(text) {
    try {
      bound = (await api.bindSerial(page.product, text.trim().slice(0, 100) || null)).serial ?? "";
      serial.value = bound;
      if (bound) toast(t("live.scanned", { serial: bound }));
    } catch (error) {
      toast(said(error), { kind: "error" });
    }
  }

  /** What is bound now: a photo may have taken it, or another page has scanned. */
  function tellBound() {
    const now = page.service.state?.products.find((one) => one.name === page.product);
    if (!now || (now.serial ?? "") === bound || serial.value !== bound) return; // else somebody is typing
    bound = now.serial ?? "";
    serial.value = bound;
  }

  function compare() {
    if (!chosen || chosen.error) return;
    hold(); // the next part does not come in its place meanwhile
    openComparison(chosen);
  }

  function toggleWall() {
    if (document.body.classList.toggle("wall")) followNewest();
  }

  return {
    go([id]) {
      if (id) open(id).then(look);
      else followNewest();
      return true;
    },
    drop: inspectAll,
    scanned(text) {
      bind(text);
    },
    moment,
    told() {
      const isBehind = behind();
      late = isBehind ? late ?? performance.now() : null;
      headline();
      tellBound();
      if (isBehind && !looking) look(); // one that is slow is not overtaken by the next
    },
    close() {
      closed = true;
      clearTimeout(look.timer);
      webcam.stop();
      document.body.classList.remove("wall");
    },
    keys: {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), n: followNewest,
      g: (part) => say("good", part), d: (part) => say("defect", part), u: takeBack,
      h: stage.toggleHeat, r: stage.toggleFrames, k: compare, o: () => choose[0].click(), c: webcam.toggle,
      " ": webcam.capture, w: toggleWall,
      Escape: () => document.body.classList.remove("wall"),
    },
  };
}

/** A photo that failed, as trouble. */
function failure(item) {
  return { kind: "failed", why: sentence(failed(item)), since: new Date(item.time), seconds: null };
}

// --- The strip -----------------------------------------------------------------------------------

function stripTile(item, onPick) {
  const image = h("img", { alt: "", loading: "lazy", hidden: Boolean(item.error) });
  if (!item.error) showPicture(image, api.picture(item.id, "picture", { size: 160 }), () => { image.hidden = true; });
  const told = h("span", { class: "told" });
  const button = h("button", { type: "button", onclick: onPick }, image,
    h("span", { class: "tag", "aria-hidden": "true" }, item.error ? "!" : markOf(item)), told,
    h("span", { class: "score" }, item.error ? t("verdict.none_small") : number(item.score)));
  const element = h("li", { class: item.error ? "failed" : kindOf(item) }, button);
  return {
    element,
    show(now, current) {
      const verdict = now.error ? t("verdict.none_small") : t("live.tile", { verdict: verdictOf(now), score: number(now.score) });
      button.setAttribute("aria-label", [now.name, verdict, called(now.feedback)].filter(Boolean).join(", "));
      button.title = `${now.name}\n${time(now.time)}${now.error ? `\n${now.error}` : ""}`;
      told.textContent = now.feedback ? t(`told.${now.feedback}`) : "";
      told.className = `told ${now.feedback || ""}`;
      if (current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    },
  };
}
