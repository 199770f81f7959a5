// Outputs: who else is told of verdicts, what waits to be sent, and a test for each.

import * as api from "./api.js";
import { ask, count, during, h, sentence, time, toast } from "./dom.js";

const EVERY = 3000; // milliseconds between two looks
const STATES = { ok: "is told", failing: "is not reached", starting: "nothing was sent yet", removed: "is no longer configured" };

export function outputsView(main) {
  let closed = false;
  let timer = 0;
  const rows = h("tbody");
  const none = h("p", { class: "note", hidden: true }, "The station's configuration (serve --config) names no output.");
  main.append(h("div", { class: "models" }, h("h1", {}, "Outputs to the line"), none,
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [["Output"], ["State"], ["Sent", "n"], ["Waiting", "n"], ["Refused", "n"], [""]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), rows))));
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
      if (!closed) toast(error.message, { kind: "error" });
    }
    if (!closed) timer = setTimeout(load, EVERY);
  }

  function row(output) {
    const why = [output.error, output.reason && `refused: ${output.reason}`].filter(Boolean).map(sentence);
    const since = output.since && output.state !== "starting" ? ` since ${time(output.since)}` : "";
    return h("tr", { class: output.state },
      h("td", {}, h("b", {}, output.name), h("br"), h("small", {}, [output.kind, output.address].filter(Boolean).join(" · "))),
      h("td", {}, `${STATES[output.state]}${since}`, why.map((text) => h("p", { class: "note error" }, text))),
      h("td", { class: "n" }, output.sent.toLocaleString("en-GB")),
      h("td", { class: "n" }, output.waiting.toLocaleString("en-GB"), output.oldest && h("small", {}, ` since ${time(output.oldest)}`)),
      h("td", { class: "n" }, output.refused.toLocaleString("en-GB")),
      h("td", {}, h("div", { class: "row" }, buttons(output))));
  }

  function buttons(output) {
    const { name } = output;
    const button = (text, work, kind) => h("button", { type: "button", class: kind, "aria-label": `${text}: ${name}`, onclick: (event) => during(event.currentTarget, async () => { await work(); rows.dataset.shown = ""; await load(); }) }, text);
    const unsent = output.waiting + output.refused;
    return [
      output.state !== "removed" && button("Send a test", async () => {
        const { seconds } = await api.testOutput(name);
        toast(`${name} has taken a test in ${(1000 * seconds).toFixed(0)} ms.`);
      }),
      output.state !== "removed" && (output.refused > 0 || output.state === "failing") && button("Send again", async () => {
        const { messages } = await api.sendAgain(name);
        toast(messages ? `${count(messages, "refused message")} will be sent to ${name} again.` : `${name} is tried again.`);
      }),
      unsent > 0 && button("Forget unsent", async () => {
        const sure = await ask("Forget messages?", h("p", {}, `${count(unsent, "message")} will never be sent to ${name}. Their records stay.`), "Forget them");
        if (sure) toast(`${count((await api.discardWaiting(name)).messages, "message")} for ${name} forgotten.`);
      }, "danger"),
    ];
  }

  return { close() { closed = true; clearTimeout(timer); } };
}
