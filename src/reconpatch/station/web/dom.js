// Elements, texts and numbers; everything a user or a photo is called goes in as text, never as HTML.

import { clock, day, significant, t } from "./words.js";

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

/** A sentence of the service as one of this page; what may be the name of a file stays as it is. */
export function sentence(text) {
  const begun = /^[a-z']+\s/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** What the service says, which is English whatever the language of the page: a text, or an error. */
export function said(text) {
  const own = text instanceof Error && !text.status; // a sentence of this page
  return h("span", { lang: !own && document.documentElement.lang !== "en" && "en" }, text instanceof Error ? text.message : text);
}

export const byId = (id) => document.getElementById(id);

/** A score as people compare them: four significant digits. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  return significant(Math.abs(value) >= 1000 ? Math.round(value) : value, Math.abs(value) >= 1000 ? 21 : 4);
}

/** The same for a field that takes a number, which is written with a point in all languages. */
export const plainNumber = (value) => String(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4)));

export function percent(share) {
  if (share === 0) return "0 %";
  return `${significant(100 * share, share < 0.1 ? 2 : 3)} %`;
}

const sameDay = (a, b) => a.toDateString() === b.toDateString();

/** A time of this place; today's without the date. */
export function time(iso) {
  const when = new Date(iso);
  return sameDay(when, new Date()) ? clock(when) : `${day(when)} ${clock(when)}`;
}

/** A time as a field of the page takes it, on the clock of this place; "" without one. */
export function local(iso) {
  if (!iso) return "";
  const at = new Date(iso);
  return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

/** A length of time: "40 s", "3 min 5 s", "2 h 10 min", "4 days"; `form` "ago" where it is so long ago. */
export function duration(seconds, form = "days") {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600), Math.floor(whole / 60)];
  if (days > 1) return t(`duration.${form}`, { n: days });
  if (hours) return `${hours} h ${minutes % 60} min`;
  if (minutes) return minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${whole} s`;
}

/**
 * Load a picture into an <img>; asked for again while the service is too busy to draw it.
 * Where it does not come, `gone` is given the reason.
 */
export function showPicture(image, src, gone) {
  let tries = 5;
  const mine = () => image.dataset.src === src;
  image.dataset.src = src;
  image.onerror = async () => {
    const answer = await fetch(src, { method: "HEAD" }).catch(() => null);
    if (!mine()) return;
    const busy = answer && (answer.ok || answer.status === 503);
    if (!busy || !tries) { gone(answer ? t("picture.gone") : t("picture.silent")); return; }
    tries -= 1;
    setTimeout(() => { if (mine()) image.src = src; }, 1000 * (Number(answer.headers.get("Retry-After")) || 1));
  };
  image.src = src;
}

/**
 * Say something that happened, as a text or elements; `actions` are buttons, [text, what it does] each.
 *
 * There is one place for it: a message takes the place of the one before, but for an error, which
 * stays until it is closed or another error comes.
 */
export function toast(text, { kind = "info", actions = [], picture = null } = {}) {
  const away = () => box.remove();
  const box = h("div", { class: `toast ${kind}`, role: kind === "error" ? "alert" : null },
    picture && h("img", { alt: "", src: picture, onerror: (event) => event.target.remove() }),
    h("span", {}, text),
    actions.map(([label, does]) => h("button", { type: "button", onclick: () => { away(); does(); } }, label)),
    h("button", { type: "button", class: "quiet", "aria-label": t("close"), onclick: away }, "×"));
  for (const before of byId("toasts").querySelectorAll(`.toast.${kind}`)) before.remove();
  byId("toasts").append(box);
  if (kind !== "error") setTimeout(away, actions.length ? 20000 : 6000);
}

/** Say what went wrong with several things, in one message. */
export function toastAll(errors) {
  if (!errors.length) return;
  const more = errors.length > 3 ? [t("more", { n: errors.length - 3 })] : [];
  toast([...errors.slice(0, 3), ...more].flatMap((one, at) => (at ? ["\n", one] : [one])), { kind: "error" });
}

/** Ask whether to go on: true for the button `yes`, false for No, Escape, and all else. */
export function ask(title, children, yes) {
  const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title" },
    h("h2", { id: "ask-title" }, title), children,
    h("form", { method: "dialog", class: "row" },
      h("button", { value: "no", autofocus: true }, t("no")), h("button", { value: "yes", class: "danger" }, yes)));
  return new Promise((done) => {
    dialog.addEventListener("close", () => { dialog.remove(); done(dialog.returnValue === "yes"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function speak(text) {
  byId("spoken").textContent = text;
}

/** A button that asks for photos, and the hidden input behind it; `take`, which takes the scope `needs`, is given the files. */
export function photoChooser(id, take, needs, ...text) {
  const input = h("input", { type: "file", id, multiple: true, accept: "image/*,.tif,.tiff,.bmp,.webp", class: "unseen", tabindex: -1, "aria-hidden": "true", onchange: () => { const files = [...input.files]; input.value = ""; take(files); } });
  return [h("button", { type: "button", "data-needs": needs, onclick: () => input.click() }, ...text), input];
}

/** Run what a button asks for: disabled meanwhile, with `doing` beside it; its error shown. */
export async function during(button, work, doing = "") {
  if (button.disabled) return undefined;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  const told = doing && h("span", { class: "doing", role: "status" }, doing);
  if (told) button.after(told);
  try {
    return await work();
  } catch (error) {
    toast(said(error), { kind: "error" });
    return undefined;
  } finally {
    if (told) told.remove();
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}
