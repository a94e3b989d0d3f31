// The picture: edges below, nodes above, what the reader points at on top.

import { sizeColour } from "./colours.js";
import { columnX, curve, pointOn } from "./layout.js";
import { through } from "./view.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./pen.js").Pen} Pen */
/** @typedef {import("./colours.js").Colours} Colours */
/** @typedef {import("./view.js").Cells} Cells */
/** @typedef {import("./view.js").ViewEdges} ViewEdges */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./passing.js").Passing} Passing */
/** @typedef {{left: number, top: number, right: number, bottom: number}} Area */

/**
 * @typedef {object} Scene  Everything that the picture shows.
 * @property {Data} data
 * @property {number} reading
 * @property {Cells} view
 * @property {ViewEdges} edges
 * @property {Layout} at
 * @property {Float32Array} curves
 * @property {Passing | null} passing
 * @property {Scale} scale
 * @property {Map<number, Flow>} flows  What flows through each cell that has a node.
 */

/**
 * @typedef {object} Flow
 * @property {number} cell
 * @property {number} part  Of the largest disc.
 * @property {boolean} negative
 * @property {boolean} passes
 * @property {boolean} none  Nothing flows, or no number says so.
 */

/**
 * @typedef {object} Scale  How sizes become thickness: by the square root, so that area tells them.
 * @property {number} edge  The largest weight.
 * @property {number} node  The largest flow through a node.
 */

export const THICKEST = 6;
const THINNEST = 0.8;
const STEPS = 10;
const DASHES = [5, 3];

/**
 * The part of the largest thickness that a weight has.
 * @param {number} weight
 * @param {number} largest
 */
export function part(weight, largest) {
  const size = Math.abs(weight);
  if (size === Infinity) return 1;
  return largest > 0 && size > 0 ? Math.sqrt(Math.min(size / largest, 1)) : 0;
}

/** @param {number} p  A part of the largest. */
export const thickness = (p) => THINNEST + (THICKEST - THINNEST) * p;

/**
 * The largest finite size.
 * @param {Iterable<number | null>} numbers
 */
export function largest(numbers) {
  let found = 0;
  for (const x of numbers) {
    if (x !== null && Number.isFinite(x) && Math.abs(x) > found) found = Math.abs(x);
  }
  return found;
}

/**
 * What flows through each cell that has a node.
 * @param {Data} data
 * @param {Cells} view
 * @param {number} reading
 * @param {Passing | null} passing
 * @param {number} most
 * @returns {Map<number, Flow>}
 */
export function flows(data, view, reading, passing, most) {
  const { signed } = data.readings[reading];
  /** @type {Map<number, Flow>} */
  const found = new Map();
  view.members.forEach((members, cell) => {
    if (!members.length) return;
    const { flow } = through(data, view, reading, cell);
    found.set(cell, {
      cell,
      part: flow === null ? 0 : part(flow, most),
      negative: signed && flow !== null && flow < 0,
      passes: !passing || members.some((node) => passing.nodes[node]),
      none: flow === null || flow === 0 || Number.isNaN(flow),
    });
  });
  return found;
}

/**
 * Bands behind layers, a line for each row.
 * @param {Pen} pen
 * @param {Scene} scene
 * @param {Colours} colours
 * @param {Area} area
 */
export function drawGround(pen, { view, at }, colours, area) {
  pen.fillStyle = colours.band;
  let shaded = false;
  view.rows.forEach(({ group }, row) => {
    if (row && group !== view.rows[row - 1].group) shaded = !shaded;
    if (!shaded || at.top[row] > area.bottom || at.bottom[row] < area.top) return;
    pen.fillRect(0, at.top[row], at.width, at.bottom[row] - at.top[row]);
  });
  pen.strokeStyle = colours.line;
  pen.lineWidth = 1;
  pen.setLineDash([]);
  pen.beginPath();
  for (const y of at.y) {
    if (y < area.top - 1 || y > area.bottom + 1) continue;
    pen.moveTo(0, Math.round(y) + 0.5);
    pen.lineTo(at.width, Math.round(y) + 0.5);
  }
  pen.stroke();
}

/**
 * The edges, the largest last. Those of about the same thickness are one stroke, which is what
 * keeps thousands of them quick.
 * @param {Pen} pen
 * @param {Scene} scene
 * @param {Colours} colours
 * @param {Area} area
 */
export function drawEdges(pen, scene, colours, area) {
  const { edges, curves, data, reading, scale } = scene;
  const { signed } = data.readings[reading];
  /** @type {number[][]} */
  const steps = Array.from({ length: 3 * (STEPS + 1) }, () => []);
  /** @type {number[]} */
  const beside = [];
  /** @type {number[]} */
  const without = [];
  for (let e = 0; e < edges.count; e++) {
    if (outside(curves, 8 * e, area)) continue;
    const weight = edges.weight[e];
    if (!edges.passes[e]) beside.push(e);
    else if (Number.isNaN(weight) || weight === 0 || weight === -Infinity) without.push(e);
    else steps[Math.round(part(weight, scale.edge) * STEPS) * 2 + Number(signed && weight < 0)].push(e);
  }
  pen.lineCap = "butt";
  pen.setLineDash([]);
  stroke(pen, curves, beside, colours.muted, 0.6, 0.1);
  pen.setLineDash([1, 3]);
  stroke(pen, curves, without, colours.muted, 0.8, 0.6);
  steps.forEach((list, n) => {
    const p = Math.floor(n / 2) / STEPS;
    const negative = n % 2 === 1;
    pen.setLineDash(negative ? DASHES : []);
    const colour = signed ? (negative ? colours.negative : colours.positive) : colours.edge;
    stroke(pen, curves, list, colour, thickness(p), 0.36 + 0.56 * p);
  });
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

/**
 * @param {Pen} pen
 * @param {Float32Array} curves
 * @param {number[]} list
 * @param {string} colour
 * @param {number} width
 * @param {number} alpha
 */
function stroke(pen, curves, list, colour, width, alpha) {
  if (!list.length) return;
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.globalAlpha = alpha;
  pen.beginPath();
  for (const e of list) trace(pen, curves, 8 * e);
  pen.stroke();
}

/** @param {Pen} pen @param {Float32Array} c @param {number} i */
function trace(pen, c, i) {
  pen.moveTo(c[i], c[i + 1]);
  if (c[i] === c[i + 2] && c[i + 4] === c[i + 6] && c[i] === c[i + 6]) pen.lineTo(c[i + 6], c[i + 7]);
  else pen.bezierCurveTo(c[i + 2], c[i + 3], c[i + 4], c[i + 5], c[i + 6], c[i + 7]);
}

/** @param {Float32Array} c @param {number} i @param {Area} area */
function outside(c, i, area) {
  return (
    Math.max(c[i], c[i + 2], c[i + 4], c[i + 6]) < area.left - 4 ||
    Math.min(c[i], c[i + 2], c[i + 4], c[i + 6]) > area.right + 4 ||
    Math.max(c[i + 1], c[i + 3], c[i + 5], c[i + 7]) < area.top - 4 ||
    Math.min(c[i + 1], c[i + 3], c[i + 5], c[i + 7]) > area.bottom + 4
  );
}

/**
 * The nodes: discs, as large and as deep as what flows through them; negative ones are rings.
 * @param {Pen} pen
 * @param {Scene} scene
 * @param {Colours} colours
 * @param {Area} area
 */
export function drawNodes(pen, scene, colours, area) {
  const { view, at, flows: all, data, reading } = scene;
  const { signed } = data.readings[reading];
  pen.setLineDash([]);
  for (const { cell, part: p, negative, passes, none } of all.values()) {
    const { x, y, spans } = spot(at, view, cell);
    if (y < area.top - 20 || y > area.bottom + 20) continue;
    if (!spans && (x < area.left - 20 || x > area.right + 20)) continue;
    const plain = !passes || none;
    const r = plain ? Math.min(2, at.radius) : radius(at, p);
    const deep = signed ? (negative ? colours.negative : colours.positive) : sizeColour(colours, 0.25 + 0.75 * p);
    const colour = plain ? colours.sizes[passes ? 1 : 0] : deep;
    pen.beginPath();
    if (spans) pen.rect(at.left - 6, y - 2 - p, at.cell * (view.stride - 1) + 12, 4 + 2 * p);
    else pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.fillStyle = negative && !plain ? colours.paper : colour;
    pen.fill();
    // A rim of the paper's colour keeps nodes apart from the edges below.
    pen.strokeStyle = negative && !plain ? colour : colours.paper;
    pen.lineWidth = negative && !plain ? Math.min(2, 0.6 * r) : 1;
    pen.stroke();
  }
}

/** @param {Layout} at @param {number} p */
const radius = (at, p) => Math.max(2.2, 2.2 + (at.radius - 2.2) * p);

/**
 * Where a cell is.
 * @param {Layout} at
 * @param {Cells} view
 * @param {number} cell
 */
export function spot(at, view, cell) {
  const slot = cell % view.stride;
  const spans = slot === 0;
  return {
    x: spans ? at.left + (at.cell * (view.stride - 1)) / 2 : columnX(at, slot),
    y: at.y[Math.floor(cell / view.stride)],
    spans,
  };
}

/**
 * Edges that stand out, each with an arrow in its middle.
 * @param {Pen} pen
 * @param {Scene} scene
 * @param {Colours} colours
 * @param {number[]} list
 */
export function drawPointed(pen, scene, colours, list) {
  const { edges, curves, data, reading, scale } = scene;
  const { signed } = data.readings[reading];
  for (const e of list) {
    const weight = edges.weight[e];
    const negative = signed && weight < 0;
    const colour = signed ? (negative ? colours.negative : colours.positive) : colours.edge;
    const width = thickness(part(weight, scale.edge)) + 0.4;
    pen.setLineDash([]);
    stroke(pen, curves, [e], colours.paper, width + 2.5, 0.9);
    pen.setLineDash(negative ? DASHES : []);
    stroke(pen, curves, [e], colour, width, 1);
    if (list.length <= 80) arrow(pen, curves, 8 * e, colour, 3.5 + width * 0.6);
  }
  pen.setLineDash([]);
}

/** @param {Pen} pen @param {Float32Array} c @param {number} i @param {string} colour @param {number} size */
function arrow(pen, c, i, colour, size) {
  const { x, y, dx, dy } = pointOn(c, i, 0.55);
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [(dx / length) * size, (dy / length) * size];
  pen.beginPath();
  pen.moveTo(x + ux, y + uy);
  pen.lineTo(x - ux * 0.7 - uy * 0.8, y - uy * 0.7 + ux * 0.8);
  pen.lineTo(x - ux * 0.7 + uy * 0.8, y - uy * 0.7 - ux * 0.8);
  pen.closePath();
  pen.fillStyle = colour;
  pen.fill();
}

/**
 * A story, as with a highlighter: below its hops are their edges, dotted where none is stored.
 * @param {Pen} pen
 * @param {Scene} scene
 * @param {Colours} colours
 * @param {number[]} nodes
 */
export function drawStory(pen, scene, colours, nodes) {
  const { view, at, edges, curves, scale, data, reading } = scene;
  const { signed } = data.readings[reading];
  const visited = storyCells(view, nodes);
  /** @type {Map<string, number>} */
  const drawn = new Map();
  for (let e = 0; e < edges.count; e++) drawn.set(`${edges.tail[e]} ${edges.head[e]}`, e);
  const hops = visited.slice(1).map((head, n) => /** @type {const} */ ([visited[n], head]));
  const own = new Float32Array(8 * hops.length);
  hops.forEach(([tail, head], n) => curve(at, view, tail, head, own, 8 * n));
  const all = [...hops.keys()];
  pen.lineCap = "round";
  pen.setLineDash([]);
  stroke(pen, own, all, colours.paper, 12, 0.75);
  stroke(pen, own, all, colours.mark, 8, 0.55);
  pen.lineCap = "butt";
  hops.forEach(([tail, head], n) => {
    const e = drawn.get(`${tail} ${head}`);
    if (e !== undefined) {
      const negative = signed && edges.weight[e] < 0;
      const colour = !signed ? colours.ink : negative ? colours.negative : colours.positive;
      pen.setLineDash(negative ? DASHES : []);
      stroke(pen, curves, [e], colour, Math.max(1.2, thickness(part(edges.weight[e], scale.edge)) * 0.6), 0.9);
      pen.setLineDash([]);
    } else {
      pen.setLineDash([2, 3]);
      stroke(pen, own, [n], colours.ink, 1.2, 0.9);
      pen.setLineDash([]);
    }
  });
  pen.globalAlpha = 1;
  for (const cell of visited) {
    const { x, y, spans } = spot(at, view, cell);
    if (spans) continue;
    pen.beginPath();
    pen.arc(x, y, Math.min(at.radius, 5), 0, 2 * Math.PI);
    pen.fillStyle = colours.ink;
    pen.fill();
    pen.strokeStyle = colours.mark;
    pen.lineWidth = 2;
    pen.stroke();
  }
}

/**
 * The cells that a story visits, each once in a row.
 * @param {Cells} view
 * @param {number[]} nodes
 */
export function storyCells(view, nodes) {
  return nodes.map((node) => view.of[node]).filter((cell, n, all) => n === 0 || cell !== all[n - 1]);
}

/**
 * A ring around a cell: of the keyboard's, of what is isolated, or of a pin.
 * @param {Pen} pen
 * @param {Scene} scene
 * @param {number} cell
 * @param {string} colour
 * @param {{wider?: number, width?: number, dash?: number[]}} [look]
 */
export function drawRing(pen, scene, cell, colour, { wider = 3, width = 2, dash = [] } = {}) {
  const { x, y, spans } = spot(scene.at, scene.view, cell);
  pen.beginPath();
  if (spans) {
    const long = scene.at.cell * (scene.view.stride - 1) + 12;
    pen.rect(scene.at.left - 6 - wider, y - 5 - wider, long + 2 * wider, 10 + 2 * wider);
  } else pen.arc(x, y, Math.max(radius(scene.at, scene.flows.get(cell)?.part ?? 0), 3) + wider, 0, 2 * Math.PI);
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.globalAlpha = 1;
  pen.setLineDash(dash);
  pen.stroke();
  pen.setLineDash([]);
}
