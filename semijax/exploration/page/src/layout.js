// Where things are: rows from the bottom up, a column for each token, and the curves of edges.

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./view.js").Cells} Cells */
/** @typedef {import("./view.js").ViewEdges} ViewEdges */

/**
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {number} cell  The width of a column.
 * @property {number} left  Where the first column begins.
 * @property {number[]} y  The middle of each row.
 * @property {number[]} top  Where each row begins, and the room above it that its edges need.
 * @property {number[]} bottom
 * @property {number[]} span  How far edges go from token to token above each row, at most.
 * @property {number} radius  Of the largest node.
 */

const ROW = 25;
const LAYER_ROW = 32;
const GUTTER = 14;
const PAD = 14;

/** Columns are no narrower than upright labels need, unless the reader makes them. */
const NARROWEST = 18;

/**
 * How wide a token's column is.
 * @param {Data} data
 * @param {number} width  What is there to be filled.
 * @param {number} zoom
 */
export function columnWidth(data, width, zoom) {
  const columns = data.columns.length;
  const fitting = (width - 2 * GUTTER) / columns;
  return Math.max(Math.min(Math.max(fitting, NARROWEST), columns === 1 ? 260 : 120) * zoom, 10);
}

/**
 * @param {Data} data
 * @param {Cells} view
 * @param {{width: number, height: number}} room  What is there to be filled.
 * @param {number} zoom
 * @returns {Layout}
 */
export function layout(data, view, room, zoom) {
  const columns = data.columns.length;
  const cell = columnWidth(data, room.width, zoom);
  const span = spanAbove(data, view);
  // The further they go, the more room they need to be told apart.
  const air = span.map((far, row) => (far ? 6 + (view.rows[row].grouped ? 5 : 6.5) * Math.sqrt(far) : 0));
  const heights = view.rows.map(({ grouped }, row) => (grouped ? LAYER_ROW : ROW) + air[row]);
  const natural = heights.reduce((a, b) => a + b, 0);
  // Whole layers give way until they fit, which components do less: their names are to be read.
  const open = view.rows.some(({ grouped, group }) => group >= 0 && !grouped);
  const least = !open ? 0.45 : view.rows.some(({ grouped }) => grouped) ? 0.6 : 0.8;
  const stretch = Math.min(Math.max((room.height - 2 * PAD) / natural, least), 2) * zoom;
  const height = Math.max(natural * stretch + 2 * PAD, room.height);
  const y = [];
  const top = [];
  const bottom = [];
  let below = Math.min(height, natural * stretch + 2 * PAD) - PAD;
  for (const [row, { grouped }] of view.rows.entries()) {
    const own = (grouped ? LAYER_ROW : ROW) * stretch;
    bottom.push(below);
    y.push(below - own / 2);
    below -= heights[row] * stretch;
    top.push(below);
  }
  const smallest = Math.min(...view.rows.map(({ grouped }) => (grouped ? LAYER_ROW : ROW))) * stretch;
  return {
    width: Math.max(cell * columns + 2 * GUTTER, room.width),
    height,
    cell,
    left: GUTTER,
    y,
    top,
    bottom,
    span,
    radius: Math.max(Math.min(smallest * 0.34, cell * 0.3, 11), 2.5),
  };
}

/**
 * How many tokens edges cross above each row, at most. All stored edges count, so that nothing moves
 * when fewer are shown.
 * @param {Data} data
 * @param {Cells} view
 */
function spanAbove(data, view) {
  const { tail, head, count } = data.edges;
  const spans = view.rows.map(() => 0);
  for (let e = 0; e < count; e++) {
    const a = view.of[tail[e]];
    const b = view.of[head[e]];
    const from = a % view.stride;
    const to = b % view.stride;
    if (from === to || from === 0 || to === 0) continue;
    const rowOfHead = Math.floor(b / view.stride);
    const gap = Math.floor(a / view.stride) === rowOfHead ? rowOfHead : rowOfHead - 1;
    if (gap >= 0) spans[gap] = Math.max(spans[gap], Math.abs(from - to));
  }
  return spans;
}

/**
 * The middle of a column; nodes without a token span all, and edges meet them anywhere.
 * @param {Layout} at
 * @param {number} slot
 */
export const columnX = (at, slot) => at.left + (slot - 0.5) * at.cell;

/**
 * The curves of edges, eight numbers each: cubic Béziers.
 * @param {Layout} at
 * @param {Cells} view
 * @param {ViewEdges} edges
 */
export function curves(at, view, edges) {
  const found = new Float32Array(8 * edges.count);
  for (let e = 0; e < edges.count; e++) curve(at, view, edges.tail[e], edges.head[e], found, 8 * e);
  return found;
}

/**
 * The curve from a cell to a cell.
 * @param {Layout} at
 * @param {Cells} view
 * @param {number} tail
 * @param {number} head
 * @param {Float32Array} into
 * @param {number} first
 */
export function curve(at, view, tail, head, into, first) {
  const rowA = Math.floor(tail / view.stride);
  const rowB = Math.floor(head / view.stride);
  const slotA = tail % view.stride || head % view.stride;
  const slotB = head % view.stride || slotA;
  const spine = at.left / 2;
  const xa = slotA ? columnX(at, slotA) : spine;
  const xb = slotB ? columnX(at, slotB) : spine;
  const ya = at.y[rowA];
  const yb = at.y[rowB];
  let [cxa, cya, cxb, cyb] = [xa, ya, xb, yb];
  if (rowA === rowB) {
    // An arch over the row, the highest for the furthest; a curve stays below its control points.
    const room = (ya - at.top[rowA]) * 1.25;
    const rise = room * Math.sqrt(Math.abs(slotA - slotB) / Math.max(at.span[rowA], 1));
    const lean = (xb - xa) * 0.15;
    [cxa, cya, cxb, cyb] = [xa + lean, ya - rise, xb - lean, yb - rise];
  } else if (slotA === slotB) {
    // Around what stands between: the further, the wider.
    const between = Math.abs(rowB - rowA) - 1;
    const widest = Math.min(0.55 * at.cell, 64);
    const bow = between ? widest * Math.min(0.35 + 0.22 * Math.sqrt(between), 1) : 0;
    [cxa, cya, cxb, cyb] = [xa + bow, ya + (yb - ya) * 0.3, xb + bow, yb - (yb - ya) * 0.3];
  } else {
    // Straight up out of the one, straight up into the other.
    const half = (yb - ya) * 0.55;
    [cya, cyb] = [ya + half, yb - half];
  }
  into.set([xa, ya, cxa, cya, cxb, cyb, xb, yb], first);
}

/**
 * A point of a curve and the direction there.
 * @param {Float32Array} curve
 * @param {number} first
 * @param {number} t
 */
export function pointOn(curve, first, t) {
  const s = 1 - t;
  const [xa, ya, cxa, cya, cxb, cyb, xb, yb] = curve.subarray(first, first + 8);
  return {
    x: s ** 3 * xa + 3 * s * s * t * cxa + 3 * s * t * t * cxb + t ** 3 * xb,
    y: s ** 3 * ya + 3 * s * s * t * cya + 3 * s * t * t * cyb + t ** 3 * yb,
    dx: s * s * (cxa - xa) + 2 * s * t * (cxb - cxa) + t * t * (xb - cxb),
    dy: s * s * (cya - ya) + 2 * s * t * (cyb - cya) + t * t * (yb - cyb),
  };
}

/**
 * The cell at a point, or −1.
 * @param {Layout} at
 * @param {Cells} view
 * @param {number} x
 * @param {number} y
 */
export function cellAt(at, view, x, y) {
  const row = rowAt(at, y);
  if (row < 0) return -1;
  const slot = Math.floor((x - at.left) / at.cell) + 1;
  const far = Math.abs(y - at.y[row]);
  if (slot >= 1 && slot < view.stride) {
    const cell = row * view.stride + slot;
    const near = Math.max(at.radius + 2, Math.min(12, 0.45 * at.cell));
    if (view.members[cell].length && Math.hypot(x - columnX(at, slot), far) <= near) return cell;
  }
  const spanning = row * view.stride;
  return view.members[spanning].length && far <= 8 ? spanning : -1;
}

/**
 * The row whose middle is nearest to a height.
 * @param {Layout} at
 * @param {number} y
 */
function rowAt(at, y) {
  let nearest = -1;
  let distance = Infinity;
  at.y.forEach((middle, row) => {
    if (Math.abs(middle - y) < distance) [nearest, distance] = [row, Math.abs(middle - y)];
  });
  return nearest;
}

/**
 * The edge nearest to a point, if one is near enough; −1 if not.
 * @param {Float32Array} curve
 * @param {ViewEdges} edges
 * @param {number} x
 * @param {number} y
 */
export function edgeAt(curve, edges, x, y, near = 5) {
  let nearest = -1;
  let distance = near;
  for (let e = 0; e < edges.count; e++) {
    if (!edges.passes[e]) continue;
    const first = 8 * e;
    const [xa, ya, cxa, cya, cxb, cyb, xb, yb] = curve.subarray(first, first + 8);
    // A curve lies between its ends and control points.
    if (x < Math.min(xa, xb, cxa, cxb) - near || x > Math.max(xa, xb, cxa, cxb) + near) continue;
    if (y < Math.min(ya, yb, cya, cyb) - near || y > Math.max(ya, yb, cya, cyb) + near) continue;
    let [px, py] = [xa, ya];
    for (let step = 1; step <= 24; step++) {
      const to = pointOn(curve, first, step / 24);
      const here = toSegment(x, y, px, py, to.x, to.y);
      if (here < distance) [nearest, distance] = [e, here];
      [px, py] = [to.x, to.y];
    }
  }
  return nearest;
}

/**
 * The distance of a point from a straight line between two others.
 * @param {number} x @param {number} y
 * @param {number} ax @param {number} ay
 * @param {number} bx @param {number} by
 */
function toSegment(x, y, ax, ay, bx, by) {
  const length = (bx - ax) ** 2 + (by - ay) ** 2;
  const t = length ? Math.min(Math.max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0), 1) : 0;
  return Math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay));
}
