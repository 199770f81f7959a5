// The service, as the page asks it.

const ROOT = "/api/v1";

export class ServiceError extends Error {
  constructor(message, status, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

async function ask(method, path, { query = {}, json, body, headers = {} } = {}) {
  const options = { method, headers: { ...headers }, body };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(address(path, query), options);
  } catch {
    throw new ServiceError("the service does not answer: is it running?", 0);
  }
  const values = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const wait = Number(answer.headers.get("Retry-After") || 0);
    throw new ServiceError(values.error || `the service answered ${answer.status}`, answer.status, wait);
  }
  return values;
}

export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return ROOT + path + (text ? `?${text}` : "");
}

const product = (name) => `/products/${encodeURIComponent(name)}`;
const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

export const health = () => ask("GET", "/health");
export const products = async () => (await ask("GET", "/products")).products;
export const records = (query) => ask("GET", "/records", { query });
export const record = (id) => ask("GET", `/records/${id}`);
export const picture = (id, kind, query) => address(`/records/${id}/${kind}`, query);
export const feedback = (id, said) => ask("POST", `/records/${id}/feedback`, { json: { feedback: said } });
export const scores = (name) => ask("GET", `${product(name)}/scores`);
export const preview = (name, query) => ask("GET", `${product(name)}/threshold`, { query });
export const setThreshold = (name, given) => ask("PUT", `${product(name)}/threshold`, { json: given });
export const drift = (name) => ask("GET", `${product(name)}/drift`);
export const versions = async (name) => (await ask("GET", `${product(name)}/versions`)).versions;
export const version = (name, number) => ask("GET", `${product(name)}/versions/${number}`);
export const rescored = (name, number, query) => ask("GET", `${product(name)}/versions/${number}/rescored`, { query });
export const rollBack = (name, number) => ask("POST", `${product(name)}/rollback`, { json: { number } });
export const update = (name, query) => ask("POST", `${product(name)}/update`, { query });
export const fit = () => ask("GET", "/fit");
export const startFit = (given) => ask("POST", "/fit", { json: given });
export const clearDropped = () => ask("DELETE", "/fit/photos");
export const cancelFit = () => ask("POST", "/fit/cancel");
export const serveFit = (force) => ask("POST", "/fit/service", { json: { force } });
export const dropForFit = (file) => sent("/fit/photos", file, { name: tail(file.name) });

/** Inspect a photo; when too many wait, it waits as long as the service says, and asks again. */
export async function inspect(file, name, productName) {
  for (;;) {
    try {
      return await sent("/inspect", file, { name: tail(name), product: productName });
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
