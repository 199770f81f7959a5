// Many photos sent from this page: how far it is, what came of each, and a way to stop and go on.

import { h, said, sentence, toast } from "./dom.js";
import { kindOf, markOf, verdictOf } from "./items.js";
import { t } from "./words.js";

const AT_ONCE = 3; // photos under way: the service takes more as one batch, and other programs send too

/**
 * The panel of what is sent.
 *
 * Gives `add(files, send)`, which resolves to how many have a verdict once all have been tried or given
 * up; `send(file)` inspects one photo and gives its record.
 */
export function uploadPanel() {
  let all = []; // {file, state: "waiting", "sending", "done" or "failed", element, of: the choice it belongs to}
  let stopped = false;
  const title = h("h2", { id: "uploads-title", tabindex: -1 });
  const bar = h("progress", { "aria-labelledby": "uploads-title" });
  const list = h("ol", { tabindex: 0, "aria-label": t("uploads.list") });
  const stop = h("button", { type: "button", onclick: () => { stopped = !stopped; draw(); if (!stopped) work(); } });
  const again = h("button", { type: "button", onclick: retry }, t("uploads.again"));
  const close = h("button", { type: "button", onclick: clear }, t("close"));
  const panel = h("section", { class: "uploads", "aria-labelledby": "uploads-title", hidden: true }, title, bar, list, h("div", { class: "row" }, stop, again, close));
  document.body.append(panel);
  addEventListener("beforeunload", (event) => { if (count("waiting", "sending")) event.preventDefault(); });

  const count = (...states) => all.filter((one) => states.includes(one.state)).length;

  function draw() {
    const [done, failed, left] = [count("done"), count("failed"), count("waiting", "sending")];
    title.textContent = left ? t("uploads.progress", { n: done + failed, of: all.length }) : t("uploads.finished", { n: done, of: all.length });
    bar.max = all.length;
    bar.value = done + failed;
    stop.hidden = !left;
    stop.textContent = stopped ? t("uploads.go_on") : t("uploads.stop");
    again.hidden = !failed || left > 0;
    close.hidden = left > 0 && !stopped;
  }

  function tell(one, state, ...words) {
    one.state = state;
    one.element.className = state;
    one.element.replaceChildren(h("b", {}, one.file.name), " ", ...words);
    draw();
  }

  function add(files, send) {
    panel.hidden = false;
    stopped = false;
    return new Promise((finished) => {
      const of = { left: files.length, done: 0, finished, send };
      for (const file of files) {
        const one = { file, of, element: h("li") };
        all.push(one);
        list.append(one.element);
        tell(one, "waiting", t("uploads.waiting"));
      }
      work();
    });
  }

  /** Send what waits, so many at once. */
  function work() {
    while (!stopped && count("sending") < AT_ONCE) {
      const next = all.find((one) => one.state === "waiting");
      if (!next) return;
      sendOne(next);
    }
  }

  async function sendOne(one) {
    tell(one, "sending", t("uploads.sending"));
    try {
      const record = await one.of.send(one.file);
      one.of.done += 1;
      tell(one, "done", h("a", { href: `#live/${record.id}`, class: `pill ${kindOf(record)}` }, `${markOf(record)} ${verdictOf(record)}`));
    } catch (error) {
      if (error.status === 0 && !stopped) { // no answer: the others would come to nothing as well
        stopped = true;
        toast([t("uploads.stopped"), " ", said(error)], { kind: "error" });
      }
      if (error.status === 0) { tell(one, "waiting", t("uploads.waiting")); return; }
      tell(one, "failed", said(sentence(error.message.replace(`${one.file.name}: `, ""))));
    }
    one.of.left -= 1;
    if (!one.of.left) one.of.finished(one.of.done);
    work();
  }

  function retry() {
    for (const one of all.filter((other) => other.state === "failed")) {
      one.of = { ...one.of, left: 1, done: 0, finished: () => {} };
      tell(one, "waiting", t("uploads.waiting"));
    }
    work();
  }

  /** Forget the list; what waits is not sent. */
  function clear() {
    const unsent = count("waiting");
    for (const one of all) one.of.finished(one.of.done);
    all = all.filter((one) => one.state === "sending");
    list.replaceChildren(...all.map((one) => one.element));
    panel.hidden = !all.length;
    if (unsent) toast(t("uploads.unsent", { n: unsent }));
  }

  return { add };
}
