// Elements, texts and numbers; everything a user or a photo is called goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("p", {class: "x", onclick: f}, "text", other). False children are left out. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A score as people compare them: four significant digits. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 1000 ? value.toFixed(0) : Number(value.toPrecision(4)).toString();
}

export function percent(share) {
  if (share === 0) return "0 %";
  return `${Number((100 * share).toPrecision(share < 0.1 ? 2 : 3))} %`;
}

export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en-GB")} ${n === 1 ? one : many}`;
}

const sameDay = (a, b) => a.toDateString() === b.toDateString();

/** A time of this place; today's without the date. */
export function time(iso) {
  const when = new Date(iso);
  const clock = when.toLocaleTimeString("en-GB");
  if (sameDay(when, new Date())) return clock;
  return `${when.toLocaleDateString("en-CA")} ${clock}`;
}

/** Say something that happened; with a button where it can be undone. */
export function toast(text, { kind = "info", action = null, does = null } = {}) {
  const box = h("div", { class: `toast ${kind}` }, h("span", {}, text));
  if (action) box.append(h("button", { type: "button", onclick: () => { box.remove(); does(); } }, action));
  box.append(h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => box.remove() }, "×"));
  byId("toasts").append(box);
  if (kind !== "error") setTimeout(() => box.remove(), action ? 20000 : 6000);
}

export function speak(text) {
  byId("spoken").textContent = text;
}

/** A button that asks for photos, and the hidden input behind it; `take` is given the files. */
export function photoChooser(id, take, ...text) {
  const input = h("input", { type: "file", id, multiple: true, accept: "image/*,.tif,.tiff,.bmp,.webp", class: "unseen", onchange: () => { const files = [...input.files]; input.value = ""; take(files); } });
  return [h("button", { type: "button", onclick: () => input.click() }, ...text), input];
}

/** Run what a button asks for: disabled meanwhile, its error shown. */
export async function during(button, work) {
  if (button.disabled) return undefined;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    toast(error.message, { kind: "error" });
    return undefined;
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}
