// The page: which view is shown, which product, the service's state, dropped files, the keyboard.

import * as api from "./api.js";
import { camerasView } from "./cameras.js";
import { rollBack } from "./changes.js";
import { byId, h, said, sentence, time, toast } from "./dom.js";
import { fitView } from "./fit.js";
import { historyView } from "./history.js";
import { listenForKeys } from "./keys.js";
import { liveView } from "./live.js";
import { modelsView } from "./models.js";
import { outputsView } from "./outputs.js";
import { peopleView } from "./people.js";
import { reportView } from "./report.js";
import { bar } from "./roles.js";
import { bindSettings } from "./settings.js";
import { shiftsView } from "./shifts.js";
import { thresholdView } from "./threshold.js";
import { briefly, trouble } from "./trouble.js";
import { bindUndo, undoable } from "./undo.js";
import { uploadPanel } from "./uploads.js";
import { fillIn, loadWords, t } from "./words.js";

const VIEWS = { live: liveView, threshold: thresholdView, history: historyView, shifts: shiftsView, fit: fitView, models: modelsView, outputs: outputsView, cameras: camerasView, people: peopleView };
const OTHERS = { report: reportView }; // led to by links alone
const EVERY = 1000; // milliseconds between two questions for the station's state

const state = { products: [], out: [], retired: [], default: null, product: null };
const service = { state: null, at: 0, answered: null, problem: null, unready: null }; // see trouble.js

/** What a view is given. */
const page = {
  get product() { return state.product; },
  get facts() { return state.products.find((one) => one.name === state.product); },
  get products() { return state.products; },
  get out() { return state.out; },
  get retired() { return state.retired; },
  get default() { return state.default; },
  get names() { return [...state.products, ...state.out].map((one) => one.name); },
  isOwn: (id) => inspecting > 0 || sent.has(id),
  service,
  refresh: loadProducts,
  choose,
  again: () => { show(shown.name); showService(); },
  inspect,
  tellSwap,
  tellConflict,
};

let shown = null; // the view on the screen: {name, keys, drop, scanned, told, close}
let inspecting = 0; // calls of `inspect` at work
let uploads = null; // the panel of many photos, once there were some
const sent = new Set(); // records of photos that this page sent

async function loadProducts() {
  Object.assign(state, await api.products());
  const { names } = page;
  if (!names.includes(state.product)) {
    const last = localStorage.getItem("product");
    state.product = [last, state.default, names[0]].find((name) => names.includes(name)) ?? null;
  }
  const select = byId("product");
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  select.value = state.product;
  select.disabled = names.length < 2;
}

function choose(name) {
  state.product = name;
  localStorage.setItem("product", name);
  byId("product").value = name;
}

// --- Changes of what is in service ---------------------------------------------------------------

/** Somebody else changed it first (412): say who and what, and show it. False for any other error. */
function tellConflict(error, redraw) {
  if (error.status !== 412) return false;
  toast([t("conflict"), " ", said(sentence(error.message))], { kind: "error" });
  loadProducts().then(redraw).catch((failed) => toast(said(failed), { kind: "error" }));
  return true;
}

/** Say which version is in service now; Undo goes back, and redraws the view if it is still there. */
function tellSwap(version, before, redraw, told = t("swap.told", { version: version.number })) {
  const view = shown;
  async function undo() {
    try {
      const back = await rollBack(version.product, before, version.etag);
      await loadProducts();
      if (shown === view) await redraw();
      if (back) toast(t("swap.again", { version: back.number }));
    } catch (error) {
      if (!tellConflict(error, () => shown === view && redraw())) toast(said(error), { kind: "error" });
    }
  }
  toast(told, { actions: [[t("undo"), undoable(told, undo)]] });
}

// --- Views ---------------------------------------------------------------------------------------

function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  if (name === "main") return; // the skip link
  const view = name in VIEWS || name in OTHERS ? name : "live";
  if (shown && shown.name === view && shown.go && shown.go(rest)) return;
  show(view, rest);
}

function show(name, rest = []) {
  if (shown && shown.close) shown.close();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = name;
  document.title = `${t(`view.${name}`)} – ReConPatch`;
  const main = byId("main");
  main.replaceChildren();
  shown = { name, ...(VIEWS[name] ?? OTHERS[name])(main, page, rest) };
}

// --- Photos --------------------------------------------------------------------------------------

/**
 * Inspect photos; the live view finds them in the records. How many have a verdict.
 *
 * Of several the panel tells what came of each; of one only what failed.
 */
async function inspect(files) {
  const product = state.product; // that of now, whatever is chosen meanwhile
  const send = async (file) => {
    const record = await api.inspect(file, file.name || "photo.png", product, localStorage.getItem("lot"));
    sent.add(record.id);
    return record;
  };
  inspecting += 1;
  try {
    if (files.length > 1) return await (uploads ??= uploadPanel()).add(files, send);
    for (const file of files) await send(file);
    return files.length;
  } catch (error) {
    toast(said(error), { kind: "error" });
    return 0;
  } finally {
    inspecting -= 1;
  }
}

/** What was dropped, without folders, of which it says what to do with them. */
function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const folders = items.map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry?.isDirectory).map((entry) => entry.name);
  if (folders.length) toast(t("drop.folder", { n: folders.length, names: folders.join(", ") }), { kind: "error" });
  return [...transfer.files].filter((file) => !folders.includes(file.name));
}

function listenForDrops() {
  const sign = byId("drop-here");
  let depth = 0;
  const files = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; sign.hidden = false; } });
  addEventListener("dragleave", (event) => { if (files(event)) { depth -= 1; sign.hidden = depth > 0 ? false : true; } });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    sign.hidden = true;
    const dropped = filesOf(event.dataTransfer);
    if (!dropped.length) return;
    if (shown && shown.drop) shown.drop(dropped);
    else { location.hash = "live"; inspect(dropped); }
  });
}

// --- Keyboard ------------------------------------------------------------------------------------

/** What a key does, or nothing; asked when it goes down. */
function command(event) {
  if (!shown) return null;
  if (event.key === "?") return openHelp;
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (view) return () => { location.hash = view; };
  const at = event.target;
  const ownKeys = at.closest("[role=slider], input[type=range]") && event.key.startsWith("Arrow");
  const onButton = event.key === " " && at.closest("button, a, summary, input");
  const does = shown.keys && shown.keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!does || ownKeys || onButton) return null;
  const moment = shown.moment ? shown.moment() : null; // what is on the screen now
  return () => does(moment);
}

/** What a scan gun typed, with no text field in focus. */
function scanned(text) {
  if (shown && shown.scanned) shown.scanned(text);
  else toast(t("scan.elsewhere", { text }));
}

function openHelp() {
  if (!byId("help").open) byId("help").showModal();
}

/** Where the station has users: who is logged in stands where others write their name. */
async function showMe() {
  const me = await api.me();
  bar(me);
  if (!me.users) return;
  byId("operator").closest("p").hidden = true;
  byId("me").hidden = false;
  byId("people").hidden = !me.role;
  byId("me").querySelector("span").textContent = me.role ? t("me.user", { name: me.name, role: t(`role.${me.role}`) }) : t("me.program", { name: me.name });
  byId("open-help").textContent = `${me.name} ?`;
}

// --- Start ---------------------------------------------------------------------------------------

/** Ask for the station's state again and again, and let the header and the view say what came. */
async function watchService() {
  const asked = performance.now();
  try {
    service.state = await api.state();
    service.at = asked; // what it says was so then, at the latest
    service.answered = new Date();
    service.problem = null;
    if (service.state.ready) service.unready = null;
    else service.unready ??= new Date();
    await followProducts();
  } catch (error) {
    service.problem = error.message;
  }
  showService();
  setTimeout(watchService, EVERY);
}

/** Load the products where others are in service than the page knows. */
async function followProducts() {
  const names = (list) => list.map((one) => one.name).sort().join("\n");
  if (names(service.state.products) === names([...state.products, ...state.out])) return;
  const before = state.product;
  await loadProducts();
  if (!shown) route();
  else if (before !== state.product) {
    toast(t("product.gone", { before, now: state.product }), { kind: "error" });
    show(shown.name);
  }
}

function showService() {
  const sign = byId("service");
  const wrong = trouble(service, state.product);
  const calm = !wrong || wrong.kind === "none" || wrong.kind === "unknown";
  sign.className = `service ${calm ? "up" : "down"}`;
  const product = service.state?.products.find((one) => one.name === state.product);
  const brief = [briefly(wrong ? wrong.kind : "running"), calm && product?.busy && t(`busy.${product.busy}`)].filter(Boolean).join(", ");
  const text = wrong?.kind === "silent" && wrong.since ? t("brief.since", { what: brief, time: time(wrong.since) }) : brief;
  if (sign.textContent !== text) sign.textContent = text; // a status that is set again is read out again
  sign.title = wrong ? wrong.why : "";
  const alarms = product?.drift || 0;
  byId("drift").hidden = !alarms;
  byId("drift").textContent = t("drift.pill", { n: alarms });
  const out = (service.state?.products || []).filter((one) => one.state === "out" && one.name !== state.product);
  byId("others").hidden = !out.length;
  byId("others").textContent = t("others.pill", { names: out.map((one) => one.name).join(", ") });
  byId("others").title = out.map((one) => `${one.name}: ${one.reason}`).join("\n");
  const failing = Object.keys(service.state?.failing || {});
  byId("outputs").hidden = !service.state?.outputs.length;
  byId("failing").hidden = !failing.length;
  byId("failing").textContent = t("failing.pill", { names: failing.join(", ") });
  byId("failing").title = failing.map((one) => `${one}: ${service.state.failing[one]}`).join("\n");
  const lost = Object.keys(service.state?.lost || {});
  byId("cameras").hidden = !service.state?.cameras.length;
  byId("lost").hidden = !lost.length;
  byId("lost").textContent = t("lost.pill", { names: lost.join(", ") });
  byId("lost").title = lost.map((one) => `${one}: ${service.state.lost[one]}`).join("\n");
  if (shown && shown.told) shown.told();
}

async function start() {
  try {
    await loadWords();
  } catch {
    byId("main").textContent = "The page cannot be loaded: the service does not answer. Load it again."; // no words yet
    return;
  }
  fillIn(document);
  addEventListener("hashchange", route);
  listenForKeys({ command, scanned });
  bindSettings();
  bindUndo();
  byId("open-help").addEventListener("click", openHelp);
  byId("product").addEventListener("change", (event) => { choose(event.target.value); show(shown.name); showService(); });
  listenForDrops();
  try {
    await showMe();
    await loadProducts();
    route();
  } catch (error) {
    toast(said(error), { kind: "error" });
  }
  document.addEventListener("visibilitychange", showService); // a page in the background is hardly ever at work
  setInterval(showService, EVERY); // an age goes on, and so does silence, while no answer comes
  watchService();
}

start();
