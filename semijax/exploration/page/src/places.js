// Places: what can be isolated or pinned, as short texts that stand in a link.
//
// `12:3` is the component of row 12 at token 3, `g2:3` the layer 2 at this token; `-` stands for nodes
// without a token, and `*` for all of the row's.

import { shortened, token, withoutPrefix } from "./words.js";

/** @typedef {import("./data.js").Data} Data */

const PLACE = /^(g?)(\d+):(\d+|-|\*)$/;

/**
 * A place from the number of a row or group and a column, −1 for none.
 * @param {number} number
 * @param {number | "*"} column
 * @param {boolean} grouped
 */
export function place(number, column, grouped) {
  return `${grouped ? "g" : ""}${number}:${column === -1 ? "-" : column}`;
}

/**
 * @param {Data} data
 * @param {string} text
 */
function parse(data, text) {
  const found = text.match(PLACE);
  if (!found) return null;
  const number = Number(found[2]);
  const grouped = found[1] === "g";
  if (number >= (grouped ? data.groups : data.rows).length) return null;
  const rows = grouped ? data.groups[number].rows : [number];
  const column = found[3] === "*" ? /** @type {const} */ ("*") : found[3] === "-" ? -1 : Number(found[3]);
  return { number, grouped, rows, column };
}

/**
 * The nodes of a place; none if there is no such place.
 * @param {Data} data
 * @param {string} text
 * @returns {number[]}
 */
export function nodesAt(data, text) {
  const found = parse(data, text);
  if (!found) return [];
  const { row, column } = data.nodes;
  const rows = new Set(found.rows);
  return row.flatMap((r, n) => (rows.has(r) && (found.column === "*" || column[n] === found.column) ? [n] : []));
}

/**
 * What a place is called.
 * @param {Data} data
 * @param {string} text
 */
export function placeName(data, text) {
  const found = parse(data, text);
  if (!found) return text;
  const name = withoutPrefix(data, (found.grouped ? data.groups : data.rows)[found.number].name);
  if (found.column === "*" || found.column === -1 || (data.columns.length === 1 && data.columns[0] === "")) return name;
  return `${name} at ${quoted(data, found.column)}`;
}

/**
 * A token in quotes, with its number where several are alike.
 * @param {Data} data
 * @param {number} column
 */
export function quoted(data, column) {
  const label = `“${shortened(token(data, column), 24)}”`;
  const alike = data.columns.filter((other) => other === data.columns[column]).length > 1;
  return alike ? `${label} (token ${column + 1})` : label;
}
