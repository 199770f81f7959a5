// What somebody at this browser has chosen: language, words, sound, light, shortcuts, their name. What
// they have not chosen is as the station's configuration says.

import { operator } from "./api.js";
import { byId, h } from "./dom.js";
import { shortcuts } from "./keys.js";
import { beep } from "./signals.js";
import { language, languages, settings, t } from "./words.js";

/** What there is to choose from; the first is so where neither browser nor station says otherwise. */
const CHOICES = { verdicts: ["good-anomalous", "ok-ng"], sound: ["off", "ng", "all"], light: ["off", "ng", "all"] };

/** What is chosen of `verdicts`, `sound` or `light`. */
export function chosen(name) {
  return [localStorage.getItem(name), settings()[name]].find((one) => CHOICES[name].includes(one)) ?? CHOICES[name][0];
}

/** Fill in the form of the settings. */
export function bindSettings() {
  choice("language", Object.entries(languages()), language.code, (code) => { language.code = code; location.reload(); });
  for (const name of Object.keys(CHOICES)) {
    choice(name, CHOICES[name].map((one) => [one, t(`choice.${name}.${one}`)]), chosen(name), (value) => {
      localStorage.setItem(name, value);
      if (name === "verdicts") location.reload(); // the words stand in all views
      if (name === "sound" && value !== "off") beep("anomalous"); // what is asked for with a click, browsers let sound
    });
  }
  const keys = byId("use-shortcuts");
  keys.checked = shortcuts.on;
  shortcuts.on = keys.checked; // says so to the style sheet
  keys.addEventListener("change", () => { shortcuts.on = keys.checked; });
  const name = byId("operator");
  name.value = operator.name;
  name.addEventListener("change", () => { operator.name = name.value; });
}

function choice(id, options, value, take) {
  const select = byId(id);
  select.replaceChildren(...options.map(([key, text]) => h("option", { value: key, lang: id === "language" && key }, text)));
  select.value = value;
  select.addEventListener("change", () => take(select.value));
}
