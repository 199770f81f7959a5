// The page's words in the language that was chosen, and numbers and times as that language writes them.
//
// A language is one file, words/CODE.json: each key with its text, {name} standing for a value. A text
// that depends on the number {n} is an object of the language's plural forms (Intl.PluralRules). Keys
// stand in the code as literals, or as `beginning.${what}`: a test compares them with the files.

const CHOSEN = "language";

let words = {};
let tag = "en-GB"; // how Intl knows the language
let plural = new Intl.PluralRules(tag);
let page = { language: null, languages: { en: "English" } }; // what the station says of its page

/** The languages that there are, by their codes, as each calls itself. */
export const languages = () => page.languages;

/** What the station's configuration says of the page. */
export const settings = () => page;

export const language = {
  /** The code of the one in use: chosen in this browser, or else the station's, or else the browser's. */
  get code() {
    const wanted = [localStorage.getItem(CHOSEN), page.language, ...navigator.languages.map((one) => one.slice(0, 2))];
    return wanted.find((one) => one && one in page.languages) ?? "en";
  },
  set code(value) { localStorage.setItem(CHOSEN, value); },
};

/** Load the words; to be awaited before anything of the page is drawn. */
export async function loadWords() {
  page = await file("api/v1/page").catch(() => page); // a page that is not logged in speaks all the same
  const { code } = language;
  words = await file(`words/${code}.json`);
  tag = words["language.tag"];
  plural = new Intl.PluralRules(tag);
  document.documentElement.lang = code;
}

async function file(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer.json();
}

/** The text of a key with its values; numbers among them are written as the language does. */
export const t = (key, values = {}) => parts(key, values).join("");

/** The same as a list of texts and elements, where values are elements. */
export const rich = (key, values = {}) => parts(key, values);

function parts(key, values) {
  let text = words[key] ?? key;
  if (typeof text === "object") text = text[plural.select(values.n)] ?? text.other;
  return text.split(/\{(\w+)\}/).map((part, at) => (at % 2 ? written(values[part]) : part));
}

const written = (value) => (typeof value === "number" ? whole(value) : value);

/** A number of things: 12,345. */
export const whole = (n) => n.toLocaleString(tag);

/** A number with at most so many significant digits, without separators of thousands. */
export const significant = (value, digits) => value.toLocaleString(tag, { maximumSignificantDigits: digits, useGrouping: false });

/** A number with so many digits behind the point. */
export const fixed = (value, digits) => value.toLocaleString(tag, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });

/** The time of day of a Date. */
export const clock = (date) => date.toLocaleTimeString(tag, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The day of a Date: 3 Mar 2026. */
export const day = (date) => date.toLocaleDateString(tag, { day: "numeric", month: "short", year: "numeric" });

/** Put the words into the page's own HTML: data-t names the key of a text, data-t-title of a tooltip, data-t-label of a label. */
export function fillIn(root) {
  for (const one of root.querySelectorAll("[data-t]")) one.textContent = t(one.dataset.t);
  for (const one of root.querySelectorAll("[data-t-title]")) one.title = t(one.dataset.tTitle);
  for (const one of root.querySelectorAll("[data-t-label]")) one.setAttribute("aria-label", t(one.dataset.tLabel));
}
