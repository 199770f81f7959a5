// What stands in place of a verdict: why there is none now, or none that still holds.

import { duration, sentence, time } from "./dom.js";

const SILENT = 5000; // milliseconds without an answer after which the service counts as gone

/**
 * Why no verdict of a product may be shown now; null while its newest one holds.
 *
 * `service` is what the page knows of the service: {state: its last answer, at: when that came (of
 * performance.now()), answered: the same as a Date, problem: what the last question came to,
 * unready: since when it is not ready}.
 * Gives {kind, why: one sentence, since: Date or null, seconds: how long, or null}.
 */
export function trouble(service, name) {
  const { state, problem } = service;
  const silence = performance.now() - service.at;
  if (!state && !problem && silence < SILENT) return { kind: "unknown", why: "Waiting for the first answer.", since: null, seconds: null };
  if (problem || silence > SILENT) {
    const why = sentence(problem || "The service does not answer");
    return { kind: "silent", why, since: service.answered, seconds: state ? silence / 1000 : null };
  }
  const product = state.products.find((one) => one.name === name);
  const told = (kind, why, since) => ({
    kind, why: sentence(why), since: since ? new Date(since) : null,
    seconds: since ? Math.max(0, (new Date(state.now) - new Date(since) + silence) / 1000) : null,
  });
  if (!state.ready) return told("unready", state.reasons.join("; ") || "The station cannot store photos", service.unready);
  if (!product) return told("out", `${name} is not in service`, null);
  if (product.state === "out") return told("out", `${name} is out of service: ${product.reason}`, product.since);
  if (product.failure) return told("failed", failed(product.failure), product.failure.time);
  if (!product.last) return told("none", product.reason || "No photo yet", product.since);
  const age = product.last.age + silence / 1000;
  if (product.state !== "ok" || (state.stale_after !== null && age >= state.stale_after)) {
    return { ...told("stale", `No photo for ${duration(age)}`, product.last.time), seconds: null };
  }
  return null;
}

/** The seconds since the last verdict of a product, by the service's clock; null without one. */
export function age(service, name) {
  const last = service.state && service.state.products.find((one) => one.name === name)?.last;
  return last ? last.age + (performance.now() - service.at) / 1000 : null;
}

/** Since when, and how long: "since 14:02:11 (3 min)". */
export function since({ since: when, seconds }) {
  if (!when) return "";
  return `Since ${time(when)}${seconds === null ? "" : ` (${duration(seconds)})`}.`;
}

/** What the header says of it, in few words. */
export const BRIEFLY = {
  silent: "no answer", unready: "not ready", out: "out of service", failed: "photo failed", stale: "no photo", none: "no photo yet", unknown: "…",
};

/** What a failure says, with the photo's name, which its sentence mostly has. */
export const failed = ({ name, error }) => (error.includes(name) ? error : `${name}: ${error}`);
