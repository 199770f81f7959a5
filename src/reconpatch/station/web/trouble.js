// What stands in place of a verdict: why there is none now, or none that still holds.

import { duration, sentence, time } from "./dom.js";
import { t } from "./words.js";

const STATES = { unready: "unready", out: "unready", stale: "stale", paused: "paused" }; // others: no verdict
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
  if (!state && !problem && silence < SILENT) return { kind: "unknown", why: t("trouble.waiting"), since: null, seconds: null };
  if (problem || silence > SILENT) {
    const why = sentence(problem || t("trouble.silent"));
    return { kind: "silent", why, since: service.answered, seconds: state ? silence / 1000 : null };
  }
  const product = state.products.find((one) => one.name === name);
  const told = (kind, why, since) => ({
    kind, why: sentence(why), since: since ? new Date(since) : null,
    seconds: since ? Math.max(0, (new Date(state.now) - new Date(since) + silence) / 1000) : null,
  });
  if (!state.ready) return told("unready", state.reasons.join("; ") || t("trouble.unready"), service.unready);
  if (!product) return told("out", t("trouble.out", { name }), null);
  if (product.state === "out") return told("out", t("trouble.out_why", { name, why: product.reason }), product.since);
  if (product.failure) return told("failed", failed(product.failure), product.failure.time);
  const pause = state.paused.find((one) => one.product === name && !(product.last && new Date(product.last.time) > new Date(one.since)));
  if (pause) return told("paused", pause.by ? t("trouble.paused_by", { camera: pause.camera, name: pause.by }) : t("trouble.paused", { camera: pause.camera }), pause.since);
  if (!product.last) return told("none", t("live.none"), product.since);
  const age = product.last.age + silence / 1000;
  if (product.state !== "ok" || (state.stale_after !== null && age >= state.stale_after)) {
    return { ...told("stale", t("trouble.stale", { time: duration(age, "ago") }), product.last.time), seconds: null };
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
  return seconds === null ? t("since", { time: time(when) }) : t("since_for", { time: time(when), duration: duration(seconds) });
}

/** What the header says of it, in few words. */
/** The word that stands in place of a verdict, large, and the shape beside it. */
export const wordFor = (kind) => t(`state.${STATES[kind] ?? "none"}`);
export const shapeFor = (kind) => STATES[kind] ?? "none";

export const briefly = (kind) => t(`brief.${kind}`);

/** What a failure says, with the photo's name, which its sentence mostly has. */
export const failed = ({ name, error }) => (error.includes(name) ? error : `${name}: ${error}`);
