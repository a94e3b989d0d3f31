// Data like those of a transformer: flows of random local weights, the same for the same seed.

const WORDS =
  "The keys to the old wooden cabinet , which nobody had opened since the summer , are still lying on the table near " +
  "the window where my grandmother used to read her letters ; they say that the lock has rusted and that no key will " +
  "ever turn in it again , but I have never really tried to open it myself .";

const PARTS = ["ln_1", "attn/query", "attn/key", "attn/value", "attn", "ln_2", "mlp", "add"];

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function random(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** What the page is given for a model of so many layers on so many tokens. */
export function fixture({ layers = 2, tokens = 12, most = 5000, seed = 1, heads = 12 } = {}) {
  const draw = random(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
  const words = WORDS.split(" ");
  const columns = tokens === 0 ? [""] : Array.from({ length: tokens }, (_, n) => words[n % words.length]);
  const width = columns.length;
  const rows = [{ name: "wte", group: null }];
  for (let layer = 0; layer < layers; layer++) {
    for (const part of PARTS) rows.push({ name: `h/${layer}/${part}`, group: `h/${layer}` });
  }
  rows.push({ name: "ln_f", group: null }, { name: "logit", group: null });
  const last = rows.length - 1;
  const id = (row, column) => row * width + column;
  const output = last * width;
  const edges = []; // [tail, head, local weight]
  const link = (tail, head, size) => edges.push([tail, head, size * (1 + 0.3 * normal()) * (draw() < 0.25 ? -1 : 1)]);
  for (let layer = 0; layer < layers; layer++) {
    const first = 1 + layer * PARTS.length;
    const at = Object.fromEntries(PARTS.map((part, n) => [part, first + n]));
    const below = layer === 0 ? 0 : first - 1;
    for (let i = 0; i < width; i++) {
      link(id(below, i), id(at.ln_1, i), 0.6);
      for (const part of ["attn/query", "attn/key", "attn/value"]) link(id(at.ln_1, i), id(at[part], i), 0.8);
      link(id(at["attn/query"], i), id(at.attn, i), 0.12);
      const scores = Array.from({ length: i + 1 }, (_, j) => Math.exp(1.6 * normal() + (j === 0 ? 1.5 : j >= i - 1 ? 1.5 : 0)));
      const sum = scores.reduce((a, b) => a + b);
      scores.forEach((score, j) => {
        link(id(at["attn/key"], j), id(at.attn, i), (0.3 * score) / sum);
        link(id(at["attn/value"], j), id(at.attn, i), score / sum);
      });
      link(id(at.attn, i), id(at.add, i), 0.7);
      link(id(at.attn, i), id(at.ln_2, i), 0.5);
      link(id(below, i), id(at.ln_2, i), 0.5);
      link(id(at.ln_2, i), id(at.mlp, i), 0.6);
      link(id(at.mlp, i), id(at.add, i), 0.8);
      link(id(below, i), id(at.add, i), 0.9);
    }
  }
  for (let i = 0; i < width; i++) link(id(layers ? last - 2 : 0, i), id(last - 1, i), 0.9);
  for (let i = 0; i < width; i++) link(id(last - 1, i), output, i === width - 1 ? 1 : 0.05);
  edges.sort((a, b) => a[1] - b[1]);

  const count = output + 1;
  const sweep = (add, weigh) => {
    const before = new Float64Array(count);
    const after = new Float64Array(count);
    for (let n = 0; n < width; n++) before[n] = 1;
    after[output] = 1;
    for (const [tail, head, w] of edges) before[head] = add(before[head], before[tail] * weigh(w));
    for (const [tail, head, w] of edges.toReversed()) after[tail] = add(after[tail], weigh(w) * after[head]);
    return {
      node: Array.from(before, (x, n) => x * after[n]),
      edge: edges.map(([tail, head, w]) => before[tail] * weigh(w) * after[head]),
      source: Array.from(after.slice(0, width)),
      total: before[output],
      after,
    };
  };
  const plus = (a, b) => a + b;
  const mass = sweep(plus, Math.abs);
  const gradient = sweep(plus, (w) => w);
  const strongest = sweep(Math.max, Math.abs);
  const entropy = {
    edge: mass.edge.map((x) => 2 + Math.log1p(1e3 * (x / mass.total))),
    node: mass.node.map((x) => 2 + Math.log1p(1e3 * (x / mass.total))),
    source: mass.source.map((x) => Math.log1p(1e3 * (x / mass.total))),
    total: 7.5,
  };
  const all = [mass, gradient, strongest, entropy];
  const order = [...edges.keys()].sort((a, b) => mass.edge[b] - mass.edge[a]);
  const kept = order.slice(0, most);
  const sum = (weights, list) => list.reduce((a, e) => a + Math.abs(weights[e]), 0);
  const node = (n) => ({ row: Math.floor(n / width), column: n === output ? -1 : n % width });
  const stories = tell(edges, { mass, gradient, strongest }, width, output, rows, columns, node);
  const matrix = (scale) => Array.from({ length: layers }, () => Array.from({ length: heads }, () => scale * draw() ** 3));
  const short = (x) => (Number.isFinite(x) ? Number(x.toPrecision(4)) : String(x));
  const ids = Array.from({ length: count }, (_, n) => n);
  return {
    version: 1,
    title: `Which token does “are” agree with? GPT-2, ${layers} layers`,
    unit: "logits per unit of input",
    rows,
    columns,
    readings: [
      { name: "mass", semiring: "AbsSumProduct()", total: mass.total, shares: true, adds: true, signed: false },
      { name: "gradient", semiring: "SumProduct()", total: gradient.total, shares: false, adds: true, signed: true },
      { name: "strongest", semiring: "AbsMaxProduct()", total: strongest.total, shares: false, adds: false, signed: false },
      { name: "entropy", semiring: "Entropy()", total: 7.5, shares: false, adds: false, signed: false },
    ],
    nodes: {
      row: ids.map((n) => node(n).row),
      column: ids.map((n) => node(n).column),
      scope: ids.map((n) => `transformer/${rows[node(n).row].name}`),
      line: ids.map((n) => `model.py:${12 + node(n).row} (${rows[node(n).row].name.split("/").at(-1)})`),
      value: ids.map(() => short(Math.abs(normal()) + 0.1)),
      through: all.map((reading) => reading.node.map(short)),
    },
    edges: {
      tail: kept.map((e) => edges[e][0]),
      head: kept.map((e) => edges[e][1]),
      weights: all.map((reading) => kept.map((e) => short(reading.edge[e]))),
      shown: all.map(({ edge }) => short(sum(edge, kept) / sum(edge, order))),
    },
    stories,
    heads: layers
      ? {
          rows: Array.from({ length: layers }, (_, layer) => `h/${layer}/attn`),
          count: heads,
          values: [matrix(mass.total / 3), matrix(1).map((row) => row.map((x) => x - 0.2)), matrix(0.5), matrix(5)],
        }
      : null,
    sources: { through: all.map((reading) => reading.source.map(short)) },
  };
}

/** The strongest path from each of the best tokens. */
function tell(edges, { mass, gradient, strongest }, width, output, rows, columns, node) {
  const best = new Map();
  for (const [tail, head, w] of edges) {
    const score = Math.abs(w) * strongest.after[head];
    if (!best.has(tail) || best.get(tail).score < score) best.set(tail, { score, head });
  }
  const starts = Array.from({ length: width }, (_, n) => n).sort((a, b) => strongest.after[b] - strongest.after[a]);
  return starts.slice(0, 10).map((start) => {
    const nodes = [start];
    while (nodes.at(-1) !== output) nodes.push(best.get(nodes.at(-1)).head);
    const hop = nodes.slice(1).findIndex((n, i) => node(n).column >= 0 && node(n).column !== node(nodes[i]).column);
    const moved =
      hop < 0
        ? "stays there all the way"
        : `moves to “${columns[node(nodes[hop + 1]).column]}” in ${rows[node(nodes[hop + 1]).row].name}`;
    return {
      nodes,
      told: `starts at “${columns[start]}”, ${moved} and ends in the logit`,
      score: Number(strongest.after[start].toPrecision(4)),
      together: [mass, gradient, strongest, { source: [5] }].map(({ source }, n) => Number((source[n < 3 ? start : 0] / (n < 3 ? 10 : 1)).toPrecision(4))),
    };
  });
}
