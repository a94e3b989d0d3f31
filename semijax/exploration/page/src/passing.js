// What passes through nodes: the edges and nodes on a directed path that visits each of several sets.

/** @typedef {import("./data.js").Data} Data */
/** @typedef {{nodes: Uint8Array, edges: Uint8Array}} Passing */

/** Sets of nodes that a path can be asked to visit at once: their number is an exponent below. */
export const MOST_SETS = 8;

/**
 * The edges and nodes on a path through the stored edges that visits all of the sets.
 *
 * A path visits some of the sets up to a node, and some from it on. Which of them is a mask of bits;
 * all masks that occur are found in one sweep each way.
 * @param {Data} data
 * @param {number[][]} sets
 * @returns {Passing}
 */
export function passingAll(data, sets) {
  const { nodes, edges } = data;
  const masks = 1 << sets.length;
  const own = new Uint16Array(nodes.count);
  sets.forEach((set, bit) => {
    for (const node of set) own[node] |= 1 << bit;
  });
  const before = sweep(nodes.order, edges.into, edges.tail, own, masks);
  const after = sweep(nodes.order.toReversed(), edges.outOf, edges.head, own, masks);
  closeDownwards(after, sets.length);
  const all = masks - 1;
  /** @param {number} from @param {number} to */
  const complete = (from, to) => {
    for (let mask = 0; mask < masks; mask++) {
      if (before[from * masks + mask] && after[to * masks + (all & ~mask)]) return 1;
    }
    return 0;
  };
  return {
    nodes: Uint8Array.from({ length: nodes.count }, (_, n) => complete(n, n)),
    edges: Uint8Array.from({ length: edges.count }, (_, e) => complete(edges.tail[e], edges.head[e])),
  };
}

/**
 * The edges and nodes of several at once.
 * @param {Passing[]} several
 * @returns {Passing}
 */
export function either(several) {
  const [first, ...others] = several;
  return others.reduce(
    (all, one) => ({
      nodes: all.nodes.map((yes, n) => yes | one.nodes[n]),
      edges: all.edges.map((yes, e) => yes | one.edges[e]),
    }),
    first,
  );
}

/**
 * The masks of sets that paths visit on the way to each node.
 * @param {number[]} order
 * @param {number[][]} incoming
 * @param {number[]} from
 * @param {Uint16Array} own
 * @param {number} masks
 */
function sweep(order, incoming, from, own, masks) {
  const found = new Uint8Array(own.length * masks);
  for (const node of order) {
    const at = node * masks;
    found[at + own[node]] = 1;
    for (const e of incoming[node]) {
      const there = from[e] * masks;
      for (let mask = 0; mask < masks; mask++) {
        if (found[there + mask]) found[at + (mask | own[node])] = 1;
      }
    }
  }
  return found;
}

/**
 * Who visits more sets visits fewer as well.
 * @param {Uint8Array} found
 * @param {number} bits
 */
function closeDownwards(found, bits) {
  for (let bit = 1; bit < 1 << bits; bit <<= 1) {
    for (let i = 0; i < found.length; i++) {
      if (found[i] && i & bit) found[i ^ bit] = 1; // the masks are the lowest bits of the index
    }
  }
}
