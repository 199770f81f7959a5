// The service, as the page asks it. Addresses are relative to the page's, which may be under a prefix.

import { t } from "./words.js";

const ROOT = "api/v1";
const PATIENCE = 10000; // milliseconds that a question which is asked again and again may take

export class ServiceError extends Error {
  constructor(message, status, values = {}, wait = 0) {
    super(message);
    this.status = status;
    this.values = values; // what else the answer said
    this.wait = wait;
  }
}

async function ask(method, path, { query = {}, json, body, headers = {}, etag = null, patience = null } = {}) {
  const options = { method, headers: { ...headers }, body };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  }
  if (method !== "GET" && operator.name) options.headers["X-Operator"] = encodeURIComponent(operator.name);
  if (etag) options.headers["If-Match"] = etag;
  if (patience) options.signal = AbortSignal.timeout(patience);
  let answer;
  try {
    answer = await fetch(address(path, query), options);
  } catch {
    throw new ServiceError(t("error.silent"), 0);
  }
  const values = answer.status === 204 ? {} : await answer.json().catch(() => (answer.ok ? null : {}));
  // Cut off, given up while it came, or somebody else's page: half an answer is none.
  if (!values) throw new ServiceError(t("error.unreadable"), 0);
  if (answer.ok) {
    const now = answer.headers.get("ETag");
    if (now && values.etag === undefined) values.etag = now;
    return values;
  }
  if (answer.status === 401) logIn();
  const wait = Number(answer.headers.get("Retry-After") || 0);
  throw new ServiceError(values.error || t("error.status", { status: String(answer.status) }), answer.status, values, wait);
}

/** The page anew, which asks for the token then; once, in case that does not help. */
function logIn() {
  const last = Number(sessionStorage.getItem("reloaded") || 0);
  if (Date.now() - last < 60000) return;
  sessionStorage.setItem("reloaded", Date.now());
  location.reload();
}

/** Who is at this page, as the audit trail is to name them. */
export const operator = {
  get name() { return (localStorage.getItem("operator") || "").trim().slice(0, 80); },
  set name(text) { localStorage.setItem("operator", text.trim().slice(0, 80)); },
};

export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return ROOT + path + (text ? `?${text}` : "");
}

const product = (name) => `/products/${encodeURIComponent(name)}`;
const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Every change of a product and of the fit says, as `etag`, what the page showed when it was decided.

export const state = () => ask("GET", "/state", { patience: PATIENCE });
export const products = () => ask("GET", "/products");
export const bindSerial = (name, serial) => ask("PUT", `${product(name)}/next-part`, { json: { serial } });
export const makeDefault = (name, etag) => ask("POST", `${product(name)}/default`, { etag });
export const retire = (name, etag) => ask("POST", `${product(name)}/retire`, { etag });
export const restore = (name) => ask("POST", `${product(name)}/restore`);
export const records = (query) => ask("GET", "/records", { query, patience: PATIENCE });
export const failures = (query) => ask("GET", "/failures", { query, patience: PATIENCE });
export const record = (id) => ask("GET", `/records/${id}`);
export const picture = (id, kind, query) => address(`/records/${id}/${kind}`, query);
export const scores = (name) => ask("GET", `${product(name)}/scores`);
export const preview = (name, query) => ask("GET", `${product(name)}/threshold`, { query });
export const setThreshold = (name, given, etag) => ask("PUT", `${product(name)}/threshold`, { json: given, etag });
export const defects = (name) => ask("GET", `${product(name)}/defects`);
export const learn = (name, given, etag) => ask("POST", `${product(name)}/learn`, { json: given, etag });
export const drift = (name) => ask("GET", `${product(name)}/drift`);
export const alarms = (name, query) => ask("GET", `${product(name)}/drift/alarms`, { query });
export const acknowledge = (name, given) => ask("POST", `${product(name)}/drift/acknowledge`, { json: given });
export const shifts = () => ask("GET", "/shifts");
export const shiftNumbers = (query) => ask("GET", "/shifts/numbers", { query });
export const shiftTrend = (query) => ask("GET", "/shifts/trend", { query });
export const shiftPlaces = (query) => ask("GET", "/shifts/places", { query });
export const changes = (name, query) => ask("GET", `${product(name)}/changes`, { query });
export const versions = (name) => ask("GET", `${product(name)}/versions`);
export const version = (name, number) => ask("GET", `${product(name)}/versions/${number}`);
export const previewVersion = (name, number) => ask("GET", `${product(name)}/versions/${number}/preview`);
export const rescored = (name, number, query) => ask("GET", `${product(name)}/versions/${number}/rescored`, { query });
export const rollBack = (name, given, etag) => ask("POST", `${product(name)}/rollback`, { json: given, etag });
export const update = (name, query, etag) => ask("POST", `${product(name)}/update`, { query, etag });
export const me = () => ask("GET", "/me");
export const changePassword = (old, now) => ask("PUT", "/me/password", { json: { old, new: now } });
export const users = () => ask("GET", "/users");
export const setUser = (name, given) => ask("PUT", `/users/${encodeURIComponent(name)}`, { json: given });
export const tokens = () => ask("GET", "/tokens");
export const makeToken = (given) => ask("POST", "/tokens", { json: given });
export const revokeToken = (id) => ask("DELETE", `/tokens/${id}`);
export const outputs = () => ask("GET", "/outputs");
export const testOutput = (name) => ask("POST", `/outputs/${encodeURIComponent(name)}/test`);
export const sendAgain = (name) => ask("POST", `/outputs/${encodeURIComponent(name)}/again`);
export const discardWaiting = (name) => ask("DELETE", `/outputs/${encodeURIComponent(name)}/waiting`);
export const cameras = () => ask("GET", "/cameras", { patience: PATIENCE });
export const triggerCamera = (name) => ask("POST", `/cameras/${encodeURIComponent(name)}/trigger`);
export const pauseCamera = (name, paused) => ask("POST", `/cameras/${encodeURIComponent(name)}/${paused ? "pause" : "resume"}`);
export const frame = (name, size) => address(`/cameras/${encodeURIComponent(name)}/frame`, { size, at: Date.now() });
export const orphans = () => ask("GET", "/orphans");
export const fit = () => ask("GET", "/fit", { patience: PATIENCE });
export const startFit = (given, etag) => ask("POST", "/fit", { json: given, etag });
export const clearDropped = (etag) => ask("DELETE", "/fit/photos", { etag });
export const cancelFit = (etag) => ask("POST", "/fit/cancel", { etag });
export const serveFit = (force, etag) => ask("POST", "/fit/service", { json: { force }, etag });
export const dropForFit = (file) => sent("/fit/photos", file, { name: tail(file.name) });

/**
 * Say of a record what the part was, and of a defect its kind and place; refused (412) where somebody
 * else has said something meanwhile.
 */
export function feedback(record, said, details = {}) {
  const again = record.feedback_count > 1 ? `-${record.feedback_count}` : "";
  const etag = `"${record.id}-${record.feedback || "none"}${again}"`;
  return ask("POST", `/records/${record.id}/feedback`, { json: { feedback: said, ...details }, etag });
}

/** Inspect a photo; when too many wait, it waits as long as the service says, and asks again. */
export async function inspect(file, name, productName, lot = null) {
  for (;;) {
    try {
      return await sent("/inspect", file, { name: tail(name), product: productName, lot });
    } catch (error) {
      if (error.status !== 503 || !error.wait) throw error;
      await sleep(error.wait);
    }
  }
}

function sent(path, file, query) {
  const headers = { "Content-Type": "application/octet-stream" };
  return ask("POST", path, { query, body: file, headers });
}

const tail = (name) => name.slice(-255);
