// The page: which view is shown, which product, the service's state, dropped files, the keyboard.

import * as api from "./api.js";
import { byId, h, toast } from "./dom.js";
import { fitView } from "./fit.js";
import { historyView } from "./history.js";
import { liveView } from "./live.js";
import { modelsView } from "./models.js";
import { thresholdView } from "./threshold.js";

const VIEWS = { live: liveView, threshold: thresholdView, history: historyView, fit: fitView, models: modelsView };

const state = { products: [], product: null };

/** What a view is given. */
const page = {
  get product() { return state.product; },
  get facts() { return state.products.find((one) => one.name === state.product); },
  get products() { return state.products; },
  refresh: loadProducts,
  choose,
  inspect,
  tellSwap,
};

let shown = null; // the view on the screen: {name, keys, drop, close}

async function loadProducts() {
  state.products = await api.products();
  const known = state.products.map((one) => one.name);
  if (!known.includes(state.product)) {
    const last = localStorage.getItem("product");
    state.product = known.includes(last) ? last : known[0];
  }
  const select = byId("product");
  select.replaceChildren(...known.map((name) => h("option", { value: name }, name)));
  select.value = state.product;
  select.disabled = known.length < 2;
}

function choose(name) {
  state.product = name;
  localStorage.setItem("product", name);
  byId("product").value = name;
}

/** Say which version is in service now; Undo goes back, and redraws the view if it is still there. */
function tellSwap(version, before, redraw, how = "") {
  const view = shown;
  async function undo() {
    try {
      await api.rollBack(version.product, before);
      await loadProducts();
      if (shown === view) await redraw();
    } catch (error) {
      toast(error.message, { kind: "error" });
    }
  }
  toast(`Version ${version.number} is in service${how}.`, { action: "Undo", does: undo });
}

// --- Views ---------------------------------------------------------------------------------------

function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  if (name === "main") return; // the skip link
  const view = name in VIEWS ? name : "live";
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
  document.title = `${name[0].toUpperCase()}${name.slice(1)} – ReConPatch`;
  const main = byId("main");
  main.replaceChildren();
  shown = { name, ...VIEWS[name](main, page, rest) };
}

// --- Photos --------------------------------------------------------------------------------------

/** Inspect files one after the other; the live view finds them in the records. */
async function inspect(files) {
  const failed = [];
  let last = null;
  for (const file of files) {
    try {
      last = await api.inspect(file, file.name || "photo", state.product);
    } catch (error) {
      failed.push(error.message);
    }
  }
  for (const message of failed.slice(0, 3)) toast(message, { kind: "error" });
  if (failed.length > 3) toast(`${failed.length - 3} more photos could not be inspected.`, { kind: "error" });
  return last;
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
    const dropped = [...event.dataTransfer.files];
    if (shown && shown.drop) shown.drop(dropped);
    else { location.hash = "live"; inspect(dropped); }
  });
}

// --- Keyboard ------------------------------------------------------------------------------------

function pressed(event) {
  if (!shown || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const at = event.target;
  if (at.closest("input:not([type=range]):not([type=checkbox]), select, textarea, dialog")) return;
  if (event.key === "?") { byId("help").showModal(); return; }
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (view) { location.hash = view; return; }
  const ownKeys = at.closest("[role=slider], input[type=range]") && event.key.startsWith("Arrow");
  const onButton = event.key === " " && at.closest("button, a, summary, input");
  const key = shown.keys && shown.keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (key && !ownKeys && !onButton) { event.preventDefault(); key(); }
}

// --- Start ---------------------------------------------------------------------------------------

async function showDrift() {
  const { last } = await api.drift(state.product);
  byId("drift").hidden = !last;
  byId("drift").title = last || "";
}

async function watchService() {
  const sign = byId("service");
  try {
    const { waiting } = await api.health();
    sign.className = "service up";
    sign.textContent = waiting ? `${waiting} waiting` : "running";
    if (state.product) await showDrift();
    if (!state.products.length) { await loadProducts(); route(); }
  } catch (error) {
    sign.className = "service down";
    sign.textContent = "no answer";
    sign.title = error.message;
  }
  setTimeout(watchService, 3000);
}

async function start() {
  addEventListener("hashchange", route);
  addEventListener("keydown", pressed);
  byId("open-help").addEventListener("click", () => byId("help").showModal());
  byId("product").addEventListener("change", (event) => { choose(event.target.value); show(shown.name); });
  listenForDrops();
  try {
    await loadProducts();
    route();
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  watchService();
}

start();
