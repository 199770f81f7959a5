// The shapes of the states: each another outline, so that a state is told from afar and without colour.

import { svg } from "./dom.js";

const SHAPES = { // in a square of 100 by 100: the outline, filled, and the sign cut out of it
  good: ["M50 3a47 47 0 1 1 0 94a47 47 0 1 1 0-94Z", "M24 52L43 71L77 31"], // a disc with a tick
  anomalous: ["M31 3H69L97 31V69L69 97H31L3 69V31Z", "M31 31L69 69M69 31L31 69"], // an octagon with a cross
  none: ["M50 4L98 94H2Z", "M50 36V64M50 78V81"], // a triangle with an exclamation mark
  stale: ["M14 4H86L58 50L86 96H14L42 50Z", ""], // an hourglass
  paused: ["M14 6H42V94H14ZM58 6H86V94H58Z", ""], // two bars
  unready: ["M6 6H94V94H6Z", "M24 50H76"], // a square with a bar
};

/** The shape of "good", "anomalous", "none", "stale", "paused" or "unready", for beside a word. */
export function shape(state) {
  const [outline, sign] = SHAPES[state];
  return svg("svg", { class: "shape", viewBox: "0 0 100 100", "aria-hidden": "true", "data-shape": state },
    svg("path", { d: outline, class: "outline" }), sign && svg("path", { d: sign, class: "sign" }));
}
