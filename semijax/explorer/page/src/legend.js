// What thickness, colour and marks mean.

import { COLOURS } from "./colours.js";
import { byId, el, fill } from "./dom.js";
import { part, thickness } from "./draw.js";
import { number, percent, shareOf } from "./words.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./draw.js").Scene} Scene */

const SVG = "http://www.w3.org/2000/svg";

/** @param {App} app @param {Scene} scene */
export function drawLegend(app, scene) {
  const reading = app.data.readings[scene.reading];
  const colours = COLOURS[app.theme()];
  const most = scene.scale.edge;
  const said = (/** @type {number} */ x) => {
    const share = shareOf(reading, x);
    return share === null ? number(x) : percent(share);
  };
  const line = (/** @type {string} */ colour, /** @type {number} */ width, dashed = false) =>
    svg(34, 12, "line", { x1: 1, x2: 33, y1: 6, y2: 6, stroke: colour, "stroke-width": width, ...(dashed ? { "stroke-dasharray": "5 3" } : {}) });
  const disc = (/** @type {number} */ r, /** @type {Record<string, any>} */ look) => svg(18, 18, "circle", { cx: 9, cy: 9, r, ...look });
  const item = (/** @type {Element[]} */ marks, /** @type {string} */ text) => el("span", { class: "item" }, ...marks, text);
  const ring = { fill: "none", stroke: colours.mark, "stroke-width": 2.5 };
  const steps = most > 0 ? [rounded(most / 25), rounded(most / 4), most] : [];
  const colour = reading.signed ? colours.ink : colours.edge;
  fill(
    byId("legend"),
    el("span", { class: "title" }, reading.shares ? `${reading.name}, share of all` : reading.name),
    ...steps.map((x) => item([line(colour, thickness(part(x, most)))], said(x))),
    ...(reading.signed
      ? [item([line(colours.positive, 2.5)], "positive"), item([line(colours.negative, 2.5, true)], "negative")]
      : []),
    item(
      reading.signed
        ? [disc(6, { fill: colours.positive }), disc(5, { fill: "none", stroke: colours.negative, "stroke-width": 2 })]
        : [disc(3, { fill: colours.sizes[2] }), disc(7, { fill: colours.sizes[5] })],
      `node: ${reading.name} through it, up to ${said(scene.scale.node)}`,
    ),
    ...(app.state.at ? [item([disc(6, ring)], "isolated")] : []),
    ...(app.state.pins.length ? [item([disc(6, { ...ring, "stroke-dasharray": "3 2" })], "pinned")] : []),
    ...(app.state.story === null ? [] : [item([line(colours.mark, 7)], "story, dotted where its edge is not shown")]),
  );
}

/**
 * A picture of one shape.
 * @param {number} width @param {number} height
 * @param {string} shape @param {Record<string, any>} look
 */
function svg(width, height, shape, look) {
  const picture = document.createElementNS(SVG, "svg");
  const part_ = document.createElementNS(SVG, shape);
  for (const [name, value] of Object.entries({ width, height, "aria-hidden": true })) picture.setAttribute(name, String(value));
  for (const [name, value] of Object.entries(look)) part_.setAttribute(name, String(value));
  picture.append(part_);
  return picture;
}

/** To one digit. @param {number} x */
const rounded = (x) => Number(x.toPrecision(1));
