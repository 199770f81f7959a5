// Undo in one place: what was done at this page since it was loaded, the last thing first.

import { byId } from "./dom.js";
import { t } from "./words.js";

const MOST = 50;
const done = []; // {text, undo}, the last thing last

/** Remember a thing that can be undone; gives what undoes it, once, from wherever it is called. */
export function undoable(text, undo) {
  const one = { text, undo };
  done.push(one);
  if (done.length > MOST) done.shift();
  draw();
  return () => run(one);
}

function run(one) {
  const at = done.indexOf(one);
  if (at < 0) return undefined;
  done.splice(at, 1);
  draw();
  return one.undo();
}

function draw() {
  const button = byId("undo");
  const last = done.at(-1);
  button.disabled = !last;
  button.title = last ? t("undo.what", { what: last.text }) : t("undo.nothing");
  button.setAttribute("aria-label", button.title);
}

/** Let the header's button undo the last thing. */
export function bindUndo() {
  let before = Promise.resolve(); // what is undone next goes on from what is undone now
  const next = () => (done.length ? run(done.at(-1)) : null);
  byId("undo").addEventListener("click", () => { before = before.then(next, next); });
  draw();
}
