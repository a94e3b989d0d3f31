// What is known of a node or an edge, as a small table.

import { el } from "./dom.js";
import { quoted } from "./places.js";
import { through } from "./view.js";
import { counted, number, shareOf, weight, withoutPrefix } from "./words.js";

/** @typedef {import("./draw.js").Scene} Scene */
/** @typedef {{title: string, beside: string, facts: [string, string][]}} Description */

/**
 * What a cell is called, without its token.
 * @param {Scene} scene
 * @param {number} cell
 */
export function cellTitle({ data, view }, cell) {
  const { number, grouped } = view.rows[Math.floor(cell / view.stride)];
  return withoutPrefix(data, (grouped ? data.groups : data.rows)[number].name);
}

/**
 * The token of a cell; nothing where there is none.
 * @param {Scene} scene
 * @param {number} cell
 */
export function cellToken({ data, view }, cell) {
  const column = (cell % view.stride) - 1;
  if (data.columns.length === 1 && data.columns[0] === "") return "";
  return column < 0 ? "" : quoted(data, column);
}

/**
 * @param {Scene} scene
 * @param {number} cell
 * @returns {Description}
 */
export function describeCell(scene, cell) {
  const { data, view, reading } = scene;
  const members = view.members[cell];
  const { flow, node } = through(data, view, reading, cell);
  const asked = data.readings[reading];
  const row = view.rows[Math.floor(cell / view.stride)];
  /** @type {[string, string][]} */
  const facts = [];
  if (row.grouped) {
    facts.push(["layer of", counted(members.length, "component")]);
    facts.push([`most ${asked.name}`, `${weight(asked, flow)} through ${withoutPrefix(data, data.rows[data.nodes.row[node]].name)}`]);
  } else {
    facts.push([asked.name, weight(asked, flow)]);
    const { value, scope, line } = data.nodes;
    facts.push(["value (rms)", members.map((n) => number(value[n])).join(", ")]);
    const scopes = [...new Set(members.map((n) => scope[n]))].filter(Boolean);
    if (scopes.length) facts.push(["scope", scopes.join(", ")]);
    const lines = [...new Set(members.map((n) => line[n]))].filter(Boolean);
    if (lines.length) facts.push(["source", lines.join(", ")]);
  }
  return { title: cellTitle(scene, cell), beside: cellToken(scene, cell), facts };
}

/**
 * @param {Scene} scene
 * @param {number} e
 * @returns {Description}
 */
export function describeEdge(scene, e) {
  const { data, edges, reading } = scene;
  const asked = data.readings[reading];
  const named = (/** @type {number} */ cell) =>
    [cellTitle(scene, cell), cellToken(scene, cell)].filter(Boolean).join(" ");
  const members = edges.members[e];
  /** @type {[string, string][]} */
  const facts = [[asked.name, weight(asked, Number.isNaN(edges.weight[e]) ? null : edges.weight[e])]];
  if (members.length > 1) {
    const joined = asked.adds ? "together" : "of which this is the largest";
    facts.push(["stands for", `${counted(members.length, "edge")}, ${joined}`]);
    // A path may take several of them: then the share is a mean, and may be more than 1.
    const share = shareOf(asked, edges.weight[e]);
    if (share !== null) facts.push(["crossed", `${number(share)} times by a path, on average`]);
  } else {
    data.readings.forEach((other, n) => {
      if (n !== reading) facts.push([other.name, weight(other, data.edges.weights[n][members[0]])]);
    });
    const { scope, line } = data.nodes;
    for (const [word, node] of /** @type {const} */ ([
      ["from", data.edges.tail[members[0]]],
      ["to", data.edges.head[members[0]]],
    ])) {
      facts.push([word, [scope[node], line[node]].filter(Boolean).join(", ")]);
    }
  }
  return { title: `${named(edges.tail[e])} → ${named(edges.head[e])}`, beside: "", facts };
}

/** @param {Description} description */
export function card({ title, beside, facts }) {
  return [
    el("p", { class: "name" }, el("strong", {}, title), beside ? ` ${beside}` : null),
    el(
      "dl",
      {},
      ...facts.filter(([, value]) => value).flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]),
    ),
  ];
}

/**
 * The same in words, to be read out.
 * @param {Description} description
 */
export const spoken = ({ title, beside, facts }) =>
  `${[title, beside].filter(Boolean).join(" ")}. ${facts.map(([key, value]) => `${key}: ${value}`).join("; ")}`;
