// Cameras: what each sees now, whether its frames come, and photos by hand; paused and resumed.

import * as api from "./api.js";
import { during, duration, h, said, sentence, time, toast } from "./dom.js";
import { verdictOf } from "./items.js";
import { fixed, t } from "./words.js";

const EVERY = 1000; // milliseconds between two looks
const SIDE = 640; // of a picture, its longer side in pixels at most

export function camerasView(main) {
  let closed = false;
  let timer = 0;
  const cards = new Map(); // by the cameras' names; they stay, so that a button in focus does
  const none = h("p", { class: "note", hidden: true }, t("cameras.none"));
  const list = h("div", { class: "cameras" });
  main.append(h("div", { class: "models" }, h("h1", {}, t("cameras.title")), none, list));
  load();

  async function load() {
    clearTimeout(timer);
    try {
      const { cameras } = await api.cameras();
      if (closed) return;
      none.hidden = cameras.length > 0;
      for (const camera of cameras) {
        if (!cards.has(camera.name)) {
          cards.set(camera.name, card(camera));
          list.append(cards.get(camera.name).element);
        }
        cards.get(camera.name).show(camera);
      }
    } catch (error) {
      if (!closed) toast(said(error), { kind: "error" });
    }
    if (!closed) timer = setTimeout(load, EVERY);
  }

  function card({ name, kind, address }) {
    const isFolder = kind === "folder";
    const sign = h("span", { class: "pill" });
    const picture = isFolder ? null : h("img", { alt: t("cameras.picture", { name }), hidden: true });
    const figures = h("dl", { class: "figures" });
    const notes = h("div");
    const take = !isFolder && button("inspect", t("cameras.take"), async () => {
      const record = await api.triggerCamera(name);
      toast(t("cameras.taken", { name: record.name, verdict: verdictOf(record) }));
    });
    let paused = false;
    const pause = button("feedback", "", () => api.pauseCamera(name, !paused));
    const element = h("section", { class: "camera", "aria-label": name },
      h("div", { class: "row" }, h("h2", {}, name), sign), h("small", {}, `${kind} · ${address}`),
      picture, figures, notes, h("div", { class: "row" }, take, pause));
    if (picture) look();

    /** The picture of now, then the next. */
    function look() {
      if (closed) return;
      const after = () => setTimeout(look, EVERY);
      const next = new Image();
      next.onload = () => { picture.src = next.src; picture.hidden = false; after(); };
      next.onerror = after; // what is wrong is said below
      next.src = api.frame(name, SIDE);
    }

    function button(needs, text, work) {
      return h("button", { type: "button", "data-needs": needs, "aria-label": `${text}: ${name}`, onclick: (event) => during(event.currentTarget, async () => { await work(); await load(); }) }, text);
    }

    function show(camera) {
      paused = Boolean(camera.pause);
      const ok = isFolder ? "there" : "ok";
      const word = camera.state !== "ok" ? camera.state : paused ? "paused" : ok;
      sign.className = `pill ${word === ok ? "good" : word === "starting" ? "" : "failed"}`;
      set(sign, t(`cameras.state.${word}`));
      element.classList.toggle("stale", camera.state !== "ok");
      const rows = [
        [t("product"), camera.product ?? t("cameras.default")],
        [isFolder ? t("cameras.last_file") : t("cameras.last_frame"), camera.age === null ? "–" : t("ago", { time: camera.age < 10 ? `${fixed(camera.age, 1)} s` : duration(camera.age, "ago") })],
        !isFolder && [t("cameras.size"), camera.size ? camera.size.join(" × ") : "–"],
        [t("cameras.when"), when(camera)],
        [t("cameras.photos"), t("cameras.counts", { taken: camera.taken, failed: camera.failed })],
      ];
      refill(figures, rows.filter(Boolean).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
      const says = [
        camera.state === "lost" && [t("cameras.lost_since", { time: time(camera.since) }), " ", said(sentence(camera.error))],
        camera.pause?.by && [t("cameras.paused_by", { name: camera.pause.by })],
        camera.trigger_error && [said(sentence(camera.trigger_error))],
        camera.failure && camera.state === "ok" && [t("cameras.failure"), " ", said(sentence(camera.failure))],
      ];
      refill(notes, says.filter(Boolean).map((text) => h("p", { class: "note error" }, text)));
      const text = paused ? t("cameras.resume") : t("cameras.pause");
      set(pause, text);
      pause.setAttribute("aria-label", `${text}: ${name}`);
      if (take && !take.hasAttribute("aria-busy")) take.disabled = paused || camera.state !== "ok";
    }

    return { element, show };
  }

  return { close() { closed = true; clearTimeout(timer); } };
}

/** When a camera takes photos, in words. */
function when({ kind, every, trigger }) {
  const by = [
    every > 0 && (kind === "folder" ? t("cameras.looked", { time: `${every} s` }) : t("cameras.every", { time: `${every} s` })),
    trigger && t("cameras.message", { address: trigger }),
    kind !== "folder" && t("cameras.asked"),
  ];
  return by.filter(Boolean).join(", ");
}

/** Set a text that has changed; one that is set again would be read out again. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function refill(element, children) {
  const before = [...element.children].map((one) => one.outerHTML).join();
  if (before !== children.map((one) => one.outerHTML).join()) element.replaceChildren(...children);
}
