// What can be saved: the whole picture, also what is scrolled out of sight, and the edges it shows.

import { COLOURS } from "./colours.js";
import { cellTitle } from "./describe.js";
import { drawEdges, drawGround, drawNodes, drawRing, drawStory, part, thickness } from "./draw.js";
import { columnX } from "./layout.js";
import { SvgPen } from "./pen.js";
import { samples } from "./legend.js";
import { placeName, quoted } from "./places.js";
import { percent, sentence, shareOf, shortened, token } from "./words.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./draw.js").Scene} Scene */
/** @typedef {import("./pen.js").Pen} Pen */

const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const HEAD = 64;
const FOOT = 128;

/** No browser draws larger canvases well. */
const LARGEST_CANVAS = 8000;

/**
 * @param {App} app
 * @param {Pen} pen
 * @param {number} names  How wide the rows' names are.
 */
function drawAll(app, pen, names) {
  const scene = app.scene();
  const { at, data, view } = scene;
  const colours = COLOURS[app.theme()];
  const { state } = app;
  const area = { left: 0, top: 0, right: at.width, bottom: at.height };
  pen.fillStyle = colours.paper;
  pen.fillRect(0, 0, names + at.width, HEAD + at.height + FOOT);
  pen.save();
  pen.translate(names, HEAD);
  drawGround(pen, scene, colours, area);
  drawEdges(pen, scene, colours, area);
  drawNodes(pen, scene, colours, area);
  if (state.story !== null) drawStory(pen, scene, colours, data.stories[state.story].nodes);
  for (const place of [...state.pins, ...(state.at ? [state.at] : [])]) {
    for (const cell of app.grid.cellsOf(place)) drawRing(pen, scene, cell, colours.mark, { width: 2.5 });
  }
  pen.restore();
  pen.globalAlpha = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "left";
  pen.fillStyle = colours.ink;
  pen.font = `600 15px ${FONT}`;
  pen.fillText(data.title, 12, 18);
  pen.fillStyle = colours.muted;
  pen.font = `12px ${FONT}`;
  pen.fillText(sentence(data.readings[state.reading], data.unit), 12, 38);
  pen.fillText(chosen(app, scene), 12, 54);
  drawKey(pen, scene, colours, 12, HEAD + at.height + FOOT - 18);
  pen.fillStyle = colours.muted;
  pen.textAlign = "right";
  view.rows.forEach((_, row) => pen.fillText(cellTitle(scene, row * view.stride), names - 8, HEAD + at.y[row]));
  data.columns.forEach((_, column) => {
    pen.save();
    pen.translate(names + columnX(at, column + 1), HEAD + at.height + 6);
    pen.rotate(-Math.PI / 2);
    pen.fillText(shortened(token(data, column), 14), 0, 0);
    pen.restore();
  });
}

/**
 * What thickness and colour mean.
 * @param {Pen} pen @param {Scene} scene @param {import("./colours.js").Colours} colours
 * @param {number} x @param {number} y
 */
function drawKey(pen, scene, colours, x, y) {
  const reading = scene.data.readings[scene.reading];
  for (const { size, text, look } of samples(scene)) {
    if (size > 0) {
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x + 32, y);
      pen.lineWidth = thickness(part(size, scene.scale.edge));
      pen.strokeStyle = look ? colours[look] : reading.signed ? colours.ink : colours.edge;
      pen.setLineDash(look === "negative" ? [5, 3] : []);
      pen.stroke();
      pen.setLineDash([]);
      x += 40;
    }
    pen.fillStyle = colours.muted;
    pen.fillText(text, x, y);
    x += 18 + 6.4 * text.length;
  }
}

/** What is shown of it all. @param {App} app @param {Scene} scene */
function chosen({ state, data }, scene) {
  const parts = [`${scene.edges.storedPassing} edges of ${percent(state.share)} of the mass`];
  if (state.token !== null) parts.push(`starts at ${quoted(data, state.token)}`);
  for (const at of [state.at, ...state.pins]) if (at !== null) parts.push(`through ${placeName(data, at)}`);
  if (state.story !== null) parts.push(`highlighted: story ${state.story + 1}`);
  return parts.join("; ");
}

/** @param {App} app */
function size(app) {
  const scene = app.scene();
  const { view, at } = scene;
  const longest = Math.max(...view.rows.map((_, row) => cellTitle(scene, row * view.stride).length));
  const names = 24 + 7 * longest;
  return { names, width: Math.max(names + at.width, 640), height: HEAD + at.height + FOOT };
}

/** @param {App} app */
export function saveSvg(app) {
  const { names, width, height } = size(app);
  const pen = new SvgPen();
  drawAll(app, pen, names);
  save(app, "svg", new Blob([pen.document(width, height, app.data.title)], { type: "image/svg+xml" }));
}

/** @param {App} app */
export function savePng(app) {
  const { names, width, height } = size(app);
  const dense = Math.min(2, LARGEST_CANVAS / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.scale(dense, dense);
  drawAll(app, pen, names);
  canvas.toBlob((blob) => blob && save(app, "png", blob));
}

/** The edges that are shown, one a line, with all readings. @param {App} app */
export function saveCsv(app) {
  const { data, edges } = app.scene();
  const { tail, head, weights } = data.edges;
  const end = (/** @type {number} */ node) => {
    const column = data.nodes.column[node];
    return [data.rows[data.nodes.row[node]].name, column < 0 ? "" : column, column < 0 ? "" : data.columns[column], data.nodes.scope[node]];
  };
  const heading = ["from", "to"].flatMap((word) => [word, `${word}_token`, `${word}_text`, `${word}_scope`]);
  const names = data.readings.flatMap((reading) => (reading.shares ? [reading.name, `${reading.name} share`] : [reading.name]));
  const stored = edges.members.flatMap((members, e) => (edges.passes[e] ? members : [])).sort((a, b) => a - b);
  const lines = stored.map((e) => [
    ...end(tail[e]),
    ...end(head[e]),
    ...data.readings.flatMap((reading, n) => {
      const weight = weights[n][e];
      return reading.shares ? [weight, shareOf(reading, weight)] : [weight];
    }),
  ]);
  const text = [[...heading, ...names], ...lines].map((line) => line.map(field).join(",")).join("\r\n");
  save(app, "csv", new Blob([`${text}\r\n`], { type: "text/csv;charset=utf-8" }));
}

/** @param {string | number | null} x */
function field(x) {
  const text = x === null ? "" : String(x);
  // A spreadsheet runs what begins like a formula; a name is no formula.
  const safe = typeof x === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** @param {App} app @param {string} ending @param {Blob} blob */
function save(app, ending, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  const name = app.data.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "explorer";
  link.download = `${name}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
