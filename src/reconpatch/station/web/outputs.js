// Outputs: who else is told of verdicts, what waits to be sent, and a test for each.

import * as api from "./api.js";
import { ask, during, h, said, sentence, time, toast } from "./dom.js";
import { t, whole } from "./words.js";

const EVERY = 3000; // milliseconds between two looks

export function outputsView(main) {
  let closed = false;
  let timer = 0;
  const rows = h("tbody");
  const none = h("p", { class: "note", hidden: true }, t("outputs.none"));
  main.append(h("div", { class: "models" }, h("h1", {}, t("outputs.title")), none,
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [[t("outputs.output")], [t("outputs.state")], [t("outputs.sent"), "n"], [t("outputs.waiting"), "n"], [t("outputs.refused"), "n"], [h("span", { class: "unseen" }, t("actions"))]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows))));
  load();

  async function load() {
    clearTimeout(timer);
    try {
      const { outputs } = await api.outputs();
      if (closed) return;
      none.hidden = outputs.length > 0;
      // A button in focus stays there while nothing changes.
      const now = JSON.stringify(outputs);
      if (rows.dataset.shown !== now) { rows.dataset.shown = now; rows.replaceChildren(...outputs.map(row)); }
    } catch (error) {
      if (!closed) toast(said(error), { kind: "error" });
    }
    if (!closed) timer = setTimeout(load, EVERY);
  }

  function row(output) {
    const why = [output.error, output.reason && t("outputs.why_refused", { why: output.reason })].filter(Boolean).map(sentence);
    const since = output.since && output.state !== "starting" ? ` ${t("outputs.since", { time: time(output.since) })}` : "";
    return h("tr", { class: output.state },
      h("td", {}, h("b", {}, output.name), h("br"), h("small", {}, [output.kind, output.address].filter(Boolean).join(" · "))),
      h("td", {}, `${t(`outputs.state.${output.state}`)}${since}`, why.map((text) => h("p", { class: "note error" }, text))),
      h("td", { class: "n" }, whole(output.sent)),
      h("td", { class: "n" }, whole(output.waiting), output.oldest && h("small", {}, ` ${t("outputs.since", { time: time(output.oldest) })}`)),
      h("td", { class: "n" }, whole(output.refused)),
      h("td", {}, h("div", { class: "row" }, buttons(output))));
  }

  function buttons(output) {
    const { name } = output;
    const button = (text, work, needs = "change", kind = null) => h("button", { type: "button", class: kind, "data-needs": needs, "aria-label": `${text}: ${name}`, onclick: (event) => during(event.currentTarget, async () => { await work(); rows.dataset.shown = ""; await load(); }) }, text);
    const unsent = output.waiting + output.refused;
    return [
      output.state !== "removed" && button(t("outputs.test"), async () => {
        const { seconds } = await api.testOutput(name);
        toast(t("outputs.tested", { name, n: Math.round(1000 * seconds) }));
      }),
      output.state !== "removed" && (output.refused > 0 || output.state === "failing") && button(t("outputs.again"), async () => {
        const { messages } = await api.sendAgain(name);
        toast(messages ? t("outputs.sent_again", { name, n: messages }) : t("outputs.tried_again", { name }));
      }),
      unsent > 0 && button(t("outputs.forget"), async () => {
        const sure = await ask(t("outputs.forget_title"), h("p", {}, t("outputs.forget_text", { name, n: unsent })), t("outputs.forget_yes"));
        if (sure) toast(t("outputs.forgotten", { name, n: (await api.discardWaiting(name)).messages }));
      }, "admin", "danger"),
    ];
  }

  return { close() { closed = true; clearTimeout(timer); } };
}
