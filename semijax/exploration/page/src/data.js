// What the page is given: columns of arrays as JSON, read once and indexed for quick look-ups.

/** @typedef {number | null} Number_  A number; null where there is none. */
/** @typedef {{name: string, group: string | null}} Row */
/** @typedef {{name: string, semiring: string, total: Number_, shares: boolean, adds: boolean, signed: boolean}} Reading */
/** @typedef {{nodes: number[], told: string, score: Number_, together: Number_[]}} Story  Of all paths that tell it, by reading. */
/** @typedef {{name: string, rows: number[]}} Group  A layer: its rows, from the bottom up. */

/**
 * @typedef {object} Nodes
 * @property {number} count
 * @property {number[]} row
 * @property {number[]} column  −1: no token.
 * @property {string[]} scope
 * @property {string[]} line
 * @property {Number_[]} value
 * @property {Number_[][]} through  One list per reading.
 * @property {number[]} start  Where paths start.
 * @property {number[]} order  Every node after those that lead to it.
 */

/**
 * @typedef {object} Ranking  The edges of a reading by the sizes of their weights.
 * @property {number[]} order  The largest first.
 * @property {number[]} carried  The share of all sizes that the edges up to here have together.
 */

/**
 * @typedef {object} Edges
 * @property {number} count
 * @property {number[]} tail
 * @property {number[]} head
 * @property {Number_[][]} weights  One list per reading.
 * @property {Ranking[]} ranked  One per reading.
 * @property {number[][]} into  The edges that lead to each node.
 * @property {number[][]} outOf  The edges that leave each node.
 */

/**
 * @typedef {object} Data
 * @property {string} title
 * @property {string | null} unit  Of a path's weight.
 * @property {Row[]} rows
 * @property {string} prefix  What all rows' names begin with.
 * @property {string[]} columns
 * @property {Reading[]} readings
 * @property {Group[]} groups
 * @property {number[]} groupOf  The group of each row; −1: none.
 * @property {Nodes} nodes
 * @property {Edges} edges
 * @property {number[]} shown  By reading the share of all sizes that the stored edges have.
 * @property {Story[]} stories
 * @property {{rows: string[], count: number, values: Number_[][][]} | null} heads
 * @property {{through: Number_[][]} | null} sources
 */

const VERSION = 1;

/**
 * Read what the page was given.
 * @param {string} text
 * @returns {Data}
 */
export function read(text) {
  const given = JSON.parse(text);
  if (given.version !== VERSION) {
    throw new Error(`This page reads data of version ${VERSION}; these are of version ${given.version}.`);
  }
  /** @type {Row[]} */
  const rows = given.rows;
  const { groups, groupOf } = group(rows);
  const columns = given.columns.length ? given.columns : [""];
  /** @type {Story[]} */
  const stories = given.stories.map((/** @type {any} */ story) => ({
    ...story,
    score: number(story.score),
    together: numbers(story.together),
  }));
  const edges = readEdges(given);
  const nodes = {
    count: given.nodes.row.length,
    row: given.nodes.row,
    column: given.nodes.column,
    scope: given.nodes.scope,
    line: given.nodes.line,
    value: numbers(given.nodes.value),
    through: given.nodes.through.map(numbers),
    start: starts(given, stories),
    order: inOrder(edges),
  };
  return {
    title: given.title,
    unit: given.unit,
    rows,
    prefix: commonPrefix(rows.map(({ name }) => name)),
    columns,
    readings: given.readings.map((/** @type {any} */ r) => ({ ...r, total: number(r.total) })),
    groups,
    groupOf,
    nodes,
    edges,
    shown: given.edges.shown.map(number),
    stories,
    heads: given.heads && {
      ...given.heads,
      values: given.heads.values.map((/** @type {any} */ m) => m.map(numbers)),
    },
    sources: given.sources && { through: given.sources.through.map(numbers) },
  };
}

/**
 * JSON has no infinite numbers: they come as text.
 * @param {number | string | null | undefined} x
 * @returns {Number_}
 */
function number(x) {
  if (typeof x !== "string") return x ?? null;
  return x === "inf" ? Infinity : x === "-inf" ? -Infinity : NaN;
}

/** @param {(number | string | null)[]} list */
const numbers = (list) => list.map(number);

/** @param {any} given @returns {Edges} */
function readEdges(given) {
  const { tail, head, shown } = given.edges;
  const count = tail.length;
  const nodes = given.nodes.row.length;
  /** @type {number[][]} */
  const into = Array.from({ length: nodes }, () => []);
  /** @type {number[][]} */
  const outOf = Array.from({ length: nodes }, () => []);
  for (let e = 0; e < count; e++) {
    into[head[e]].push(e);
    outOf[tail[e]].push(e);
  }
  const weights = given.edges.weights.map(numbers);
  const ranked = weights.map((/** @type {Number_[]} */ own, /** @type {number} */ n) => rank(own, shown[n]));
  return { count, tail, head, ranked, into, outOf, weights };
}

/**
 * @param {Number_[]} weights
 * @param {number} shown
 * @returns {Ranking}
 */
function rank(weights, shown) {
  const sizes = weights.map((w) => (Number.isFinite(w ?? NaN) ? Math.abs(w ?? 0) : 0));
  const order = [...sizes.keys()].sort((a, b) => sizes[b] - sizes[a]);
  const sum = sizes.reduce((a, b) => a + b, 0);
  let before = 0;
  const carried = order.map((e) => {
    before += sizes[e];
    return sum > 0 ? (shown * before) / sum : shown;
  });
  return { order, carried };
}

/**
 * The layers, in the order in which they first come.
 * @param {Row[]} rows
 */
function group(rows) {
  /** @type {Group[]} */
  const groups = [];
  /** @type {Map<string, number>} */
  const known = new Map();
  const groupOf = rows.map(({ group: name }, row) => {
    if (name === null) return -1;
    const found = known.get(name) ?? groups.length;
    if (found === groups.length) {
      known.set(name, found);
      groups.push({ name, rows: [] });
    }
    groups[found].rows.push(row);
    return found;
  });
  return { groups, groupOf };
}

/**
 * The nodes at which paths start: those that the data name, or those of the lowest row and those
 * in whose rows stories start.
 * @param {any} given
 * @param {Story[]} stories
 */
function starts(given, stories) {
  /** @type {number[]} */
  const row = given.nodes.row;
  if (given.nodes.start) return given.nodes.start;
  const lowest = row.reduce((a, b) => Math.min(a, b), Infinity);
  const begins = new Set([lowest, ...stories.filter((s) => s.nodes.length).map((s) => row[s.nodes[0]])]);
  return row.flatMap((r, node) => (begins.has(r) ? [node] : []));
}

/** @param {Edges} edges */
function inOrder({ into, outOf, head }) {
  const waiting = into.map((list) => list.length);
  const order = waiting.flatMap((count, node) => (count ? [] : [node]));
  for (let n = 0; n < order.length; n++) {
    for (const e of outOf[order[n]]) if (--waiting[head[e]] === 0) order.push(head[e]);
  }
  return order;
}

/**
 * The scopes that all names are in, with the last slash; of one name none.
 * @param {string[]} names
 */
export function commonPrefix(names) {
  if (names.length < 2) return "";
  let common = names[0].lastIndexOf("/") + 1;
  while (common > 0 && !names.every((name) => name.startsWith(names[0].slice(0, common)))) {
    common = names[0].lastIndexOf("/", common - 2) + 1;
  }
  return names[0].slice(0, common);
}

/**
 * How many edges, the largest first, have a share of all sizes.
 * @param {Data} data
 * @param {number} reading
 * @param {number} share
 */
export function countFor(data, reading, share) {
  const { ranked, count } = data.edges;
  const { carried } = ranked[reading];
  if (share >= data.shown[reading]) return count;
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (carried[middle] >= share - 1e-12) high = middle;
    else low = middle + 1;
  }
  return Math.min(low + 1, count);
}
