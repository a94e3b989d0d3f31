// What is drawn: rows that may be whole layers, cells where rows and tokens meet, and edges between cells.

/** @typedef {import("./data.js").Data} Data */

/**
 * @typedef {object} ViewRow
 * @property {number} number  Of its row, or of its group if it is a whole layer.
 * @property {boolean} grouped
 * @property {number[]} rows
 * @property {number} group  −1: none.
 */

/**
 * @typedef {object} Cells  The rows from the bottom up, and what is where.
 * @property {ViewRow[]} rows
 * @property {number} stride  Cells in a row; the first is that of nodes without a token.
 * @property {number[]} of  The cell of each node.
 * @property {number[][]} members  The nodes in each cell.
 */

/**
 * @typedef {object} ViewEdges
 * @property {number} count
 * @property {number[]} tail  Cells.
 * @property {number[]} head
 * @property {number[]} weight  NaN: no number.
 * @property {number[][]} members  The stored edges in each.
 * @property {boolean[]} passes  Whether they pass where the reader asked; all do if nowhere.
 * @property {number} stored  How many stored edges these are.
 * @property {number} storedPassing
 */

/**
 * @param {Data} data
 * @param {Set<number>} closed
 * @returns {Cells}
 */
export function cells(data, closed) {
  /** @type {ViewRow[]} */
  const rows = [];
  const viewRowOf = data.rows.map(() => -1);
  data.rows.forEach((_, row) => {
    const group = data.groupOf[row];
    if (!closed.has(group)) {
      viewRowOf[row] = rows.push({ number: row, grouped: false, rows: [row], group }) - 1;
    } else if (viewRowOf[row] < 0) {
      const members = data.groups[group].rows;
      const view = rows.push({ number: group, grouped: true, rows: members, group }) - 1;
      for (const member of members) viewRowOf[member] = view;
    }
  });
  const stride = data.columns.length + 1;
  /** @type {number[][]} */
  const members = Array.from({ length: rows.length * stride }, () => []);
  const of = data.nodes.row.map((row, node) => {
    const cell = viewRowOf[row] * stride + data.nodes.column[node] + 1;
    members[cell].push(node);
    return cell;
  });
  return { rows, stride, of, members };
}

/**
 * The largest so many stored edges between cells. Those between the same two cells are one: their
 * weights add up where the reading's do, and otherwise the largest stands for all.
 * @param {Data} data
 * @param {Cells} view
 * @param {number} reading
 * @param {number} first
 * @param {Uint8Array | null} passing
 * @returns {ViewEdges}
 */
export function viewEdges(data, view, reading, first, passing) {
  const { tail, head, ranked, weights } = data.edges;
  const { order } = ranked[reading];
  const weight = weights[reading];
  const { adds } = data.readings[reading];
  /** @type {Map<number, number>} */
  const known = new Map();
  const cellCount = view.members.length;
  /** @type {ViewEdges} */
  const found = {
    count: 0,
    tail: [],
    head: [],
    weight: [],
    members: [],
    passes: [],
    stored: first,
    storedPassing: 0,
  };
  for (const e of order.slice(0, first)) {
    const from = view.of[tail[e]];
    const to = view.of[head[e]];
    const passes = !passing || passing[e] === 1;
    if (passes) found.storedPassing++;
    if (from === to) continue; // inside of one cell
    const key = (from * cellCount + to) * 2 + Number(passes);
    const at = known.get(key);
    const w = weight[e] ?? NaN;
    if (at === undefined) {
      known.set(key, found.count++);
      found.tail.push(from);
      found.head.push(to);
      found.weight.push(w);
      found.members.push([e]);
      found.passes.push(passes);
    } else {
      found.weight[at] = together(found.weight[at], w, adds);
      found.members[at].push(e);
    }
  }
  return found;
}

/**
 * @param {number} a
 * @param {number} b
 * @param {boolean} adds
 */
function together(a, b, adds) {
  if (Number.isNaN(a)) return b;
  if (Number.isNaN(b)) return a;
  if (adds) return a + b;
  return Math.abs(b) > Math.abs(a) ? b : a;
}

/**
 * What flows through a cell: of a layer the largest of its components'. Their sum would count a path
 * once for every component that it passes.
 * @param {Data} data
 * @param {Cells} view
 * @param {number} reading
 * @param {number} cell
 * @returns {{flow: number | null, node: number}}
 */
export function through(data, view, reading, cell) {
  const flows = data.nodes.through[reading];
  /** @type {number | null} */
  let flow = null;
  let largest = view.members[cell][0] ?? -1;
  for (const node of view.members[cell]) {
    const here = flows[node];
    if (here === null || Number.isNaN(here)) continue;
    if (flow === null || Math.abs(here) > Math.abs(flow)) {
      flow = here;
      largest = node;
    }
  }
  return { flow, node: largest };
}
