// What thickness, colour and marks mean.

import { COLOURS } from "./colours.js";
import { byId, el, fill } from "./dom.js";
import { part, thickness } from "./draw.js";
import { number, percent, shareOf } from "./words.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./draw.js").Scene} Scene */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Lines to compare edges with.
 * @param {Scene} scene
 * @returns {{size: number, text: string, look?: "positive" | "negative"}[]}
 */
export function samples({ data, reading: n, scale }) {
  const reading = data.readings[n];
  const most = scale.edge;
  const sizes = most > 0 ? [rounded(most / 25), rounded(most / 4), most] : [];
  /** @type {ReturnType<typeof samples>} */
  const signs = [
    { size: most / 6, text: "positive", look: "positive" },
    { size: most / 6, text: "negative", look: "negative" },
  ];
  return [
    { size: 0, text: reading.shares ? `${reading.name}, share of all` : reading.name },
    ...sizes.map((size) => ({ size, text: said(reading, size) })),
    ...(reading.signed && most > 0 ? signs : []),
  ];
}

/**
 * A share where there are shares.
 * @param {import("./data.js").Reading} reading
 * @param {number} x
 */
function said(reading, x) {
  const share = shareOf(reading, x);
  return share === null ? number(x) : percent(share);
}

/** @param {App} app @param {Scene} scene */
export function drawLegend(app, scene) {
  const reading = app.data.readings[scene.reading];
  const colours = COLOURS[app.theme()];
  const most = scene.scale.edge;
  const line = (/** @type {string} */ colour, /** @type {number} */ width, dashed = false) =>
    svg(34, 12, "line", { x1: 1, x2: 33, y1: 6, y2: 6, stroke: colour, "stroke-width": width, ...(dashed ? { "stroke-dasharray": "5 3" } : {}) });
  const disc = (/** @type {number} */ r, /** @type {Record<string, any>} */ look) => svg(18, 18, "circle", { cx: 9, cy: 9, r, ...look });
  const item = (/** @type {Element[]} */ marks, /** @type {string} */ text) => el("span", { class: "item" }, ...marks, text);
  const ring = { fill: "none", stroke: colours.mark, "stroke-width": 2.5 };
  fill(
    byId("legend"),
    ...samples(scene).map(({ size, text, look }) => {
      if (!size) return el("span", { class: "title" }, text);
      const colour = look ? colours[look] : reading.signed ? colours.ink : colours.edge;
      return item([line(colour, thickness(part(size, most)), look === "negative")], text);
    }),
    item(
      reading.signed
        ? [disc(6, { fill: colours.positive }), disc(5, { fill: "none", stroke: colours.negative, "stroke-width": 2 })]
        : [disc(3, { fill: colours.sizes[2] }), disc(7, { fill: colours.sizes[5] })],
      `node: ${reading.name} through it, up to ${said(reading, scene.scale.node)}`,
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
