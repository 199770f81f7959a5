// What is behind a shift's numbers, drawn: how scores went, where defects are, and of which kinds.

import * as api from "./api.js";
import { h, number, showPicture, svg } from "./dom.js";
import { moment } from "./plant_time.js";
import { t, whole } from "./words.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [900, 280, 60, 12, 14, 30];
const CELLS = 12; // of the map, along each side
const SHOWN = 24; // records listed at once

// --- Scores ----------------------------------------------------------------------------------------

/** A chart of mean scores with control limits, and the same as a table; `link` leads to a point's records. */
export function drawTrend(section, segments, zone, link) {
  const points = segments.flatMap((one) => one.points);
  const children = [h("h2", {}, t("shifts.scores"))];
  if (!points.length) children.push(h("p", { class: "note" }, t("shifts.no_scores")));
  else {
    children.push(chart(segments, points, zone, link), h("p", { class: "where" }, segments.some((one) => one.center !== null) ? t("shifts.limits") : t("shifts.no_limits")),
      h("details", {}, h("summary", {}, t("shifts.as_table")), h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, [[t("history.time")], [t("shifts.passed"), "n"], [t("shifts.mean"), "n"], [t("shifts.limits_short"), "n"]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
        h("tbody", {}, segments.flatMap((one) => one.points.map((point) => h("tr", { class: point.outside ? "outside" : null },
          h("td", {}, h("a", { href: link(point) }, moment(point.since, zone))), h("td", { class: "n" }, whole(point.photos)),
          h("td", { class: "n" }, `${point.outside ? "◆ " : ""}${number(point.mean)}`),
          h("td", { class: "n" }, one.center === null ? "–" : `${number(one.low)} – ${number(one.high)}`)))))))));
  }
  section.replaceChildren(...children);
}

function chart(segments, points, zone, link) {
  const at = (point) => (new Date(point.since).getTime() + new Date(point.until).getTime()) / 2;
  const times = points.map(at);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const values = [...points.map((one) => one.mean), ...segments.flatMap((one) => (one.center === null ? [] : [one.low, one.high]))];
  const room = 0.08 * (Math.max(...values) - Math.min(...values)) || 1;
  const [low, high] = [Math.min(...values) - room, Math.max(...values) + room];
  const x = (when) => LEFT + (WIDTH - LEFT - RIGHT) * (last > first ? (when - first) / (last - first) : 0.5);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * ((high - value) / (high - low));
  const marks = [low + room, (low + high) / 2, high - room].map((value) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value))]);
  const ends = last > first ? [[first, "start"], [last, "end"]] : [[first, "middle"]];
  const outside = points.filter((one) => one.outside).length;
  return h("div", { class: "chart" }, svg("svg", { class: "trend", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": t("shifts.chart", { n: points.length, outside }) },
    marks.flat(), ends.map(([when, anchor]) => svg("text", { class: "tick", x: x(when), y: HEIGHT - 8, "text-anchor": anchor }, moment(new Date(when).toISOString(), zone))),
    segments.flatMap((one) => stretch(one, at, x, y, zone, link))));
}

/** The points of one stretch of versions between their limits. */
function stretch({ points, center, low, high }, at, x, y, zone, link) {
  if (!points.length) return [];
  const [from, to] = [x(at(points[0])), x(at(points.at(-1)))];
  const level = (value, kind) => svg("line", { class: kind, x1: from, x2: to, y1: y(value), y2: y(value) });
  return [
    ...(center === null ? [] : [level(low, "limit"), level(high, "limit"), level(center, "center")]),
    svg("polyline", { class: "line", points: points.map((one) => `${x(at(one)).toFixed(1)},${y(one.mean).toFixed(1)}`).join(" ") }),
    ...points.map((one) => {
      const [px, py] = [x(at(one)), y(one.mean)];
      const title = svg("title", {}, `${moment(one.since, zone)}: ${number(one.mean)} (${whole(one.photos)})`);
      const go = { onclick: () => { location.hash = link(one); } };
      return one.outside ? svg("path", { class: "point outside", d: `M${px} ${py - 8}l8 8l-8 8l-8 -8z`, ...go }, title) : svg("circle", { class: "point", cx: px, cy: py, r: 4, ...go }, title);
    })];
}

// --- Places and kinds ------------------------------------------------------------------------------

/** A map of the part with the number of defects at each place, and the kinds; both list their records. */
export function drawDefects(section, found) {
  const list = h("div", { class: "listed", "aria-live": "polite" });
  const show = (title, ids) => list.replaceChildren(...listed(title, ids));
  section.replaceChildren(h("h2", {}, t("shifts.defects")),
    h("p", { class: "where" }, found.more ? t("shifts.newest", { n: found.records }) : t("shifts.of", { n: found.records })),
    ...(found.records ? [h("div", { class: "defect-places" }, map(found.places, show), kinds(found.kinds, show)), list] : []));
}

function map(places, show) {
  const cells = new Map();
  for (const one of places) {
    const key = Math.min(CELLS - 1, Math.floor(CELLS * one.y)) * CELLS + Math.min(CELLS - 1, Math.floor(CELLS * one.x));
    cells.set(key, [...(cells.get(key) || []), one.record]);
  }
  const most = Math.max(...[...cells.values()].map((ids) => ids.length));
  const picture = h("img", { alt: "" });
  if (places.length) showPicture(picture, api.picture(places[0].record, "picture", { size: 480 }), () => picture.remove());
  return h("div", { class: "map" }, picture, [...cells].sort(([a], [b]) => a - b).map(([key, ids]) => {
    const [column, row] = [key % CELLS, Math.floor(key / CELLS)];
    const words = t("shifts.place", { n: ids.length, x: share(column), y: share(row) });
    return h("button", { type: "button", "aria-label": words, title: words, "data-share": Math.ceil((4 * ids.length) / most), onclick: () => show(words, [...new Set(ids)]), "data-column": column, "data-row": row }, whole(ids.length));
  }).map(placed));
}

/** The middle of a cell, in percent of the photo. */
const share = (at) => `${Math.round((100 * (at + 0.5)) / CELLS)} %`;

/** A cell at its place; by the style's object, since the page allows no style in its HTML. */
function placed(button) {
  Object.assign(button.style, { left: `${(100 * button.dataset.column) / CELLS}%`, top: `${(100 * button.dataset.row) / CELLS}%` });
  return button;
}

function kinds(kinds, show) {
  if (!kinds.length) return h("p", { class: "where" }, t("shifts.no_kinds"));
  return h("table", { class: "kinds" }, h("caption", {}, t("shifts.kinds")), h("tbody", {}, kinds.map((one) => h("tr", {},
    h("th", { scope: "row" }, one.name, h("br"), h("small", {}, one.said ? t("shifts.named_by_people") : t("shifts.named_by_verdicts"))),
    h("td", { class: "n" }, h("button", { type: "button", class: "link", "aria-label": t("shifts.kind", { n: one.count, kind: one.name }), onclick: () => show(one.name, one.records) }, whole(one.count)))))));
}

function listed(title, ids) {
  return [h("h3", {}, title), h("ul", { class: "changed" }, ids.slice(0, SHOWN).map((id) => {
    const image = h("img", { alt: "", loading: "lazy" });
    showPicture(image, api.picture(id, "overlay", { size: 160 }), () => image.remove());
    return h("li", {}, h("a", { href: `#live/${id}` }, image, h("span", {}, `#${id}`)));
  })), ids.length > SHOWN && h("p", {}, t("more", { n: ids.length - SHOWN }))].filter(Boolean);
}
