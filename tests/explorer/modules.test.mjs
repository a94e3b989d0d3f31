// What the page computes, against the plain way to do it.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sources } from "./browser.mjs";
import { fixture, random } from "./fixture.mjs";

const module = (name) => import(new URL(`src/${name}.js`, sources));
const { read, countFor, commonPrefix } = await module("data");
const { passingAll, either } = await module("passing");
const { cells, viewEdges, through } = await module("view");
const { beginning, fromHash, toHash } = await module("state");
const { nodesAt, placeName } = await module("places");
const { number, percent, sentence, token } = await module("words");

const given = fixture({ layers: 2, tokens: 4 });
const data = read(JSON.stringify(given));

/** A graph of a few nodes, with all of its paths. */
function small(seed, count = 9) {
  const draw = random(seed);
  const [tail, head] = [[], []];
  for (let b = 0; b < count; b++) for (let a = 0; a < b; a++) if (draw() < 0.35) tail.push(a) && head.push(b);
  const none = tail.map(() => 1);
  const nodes = Array.from({ length: count }, (_, n) => n);
  const graph = read(
    JSON.stringify({
      version: 1, title: "", unit: null, rows: nodes.map((n) => ({ name: `${n}`, group: null })), columns: [""],
      readings: [{ name: "mass", semiring: "AbsSumProduct()", total: 1, shares: true, adds: true, signed: false }],
      nodes: { row: nodes, column: nodes.map(() => 0), scope: nodes.map(String), line: nodes.map(() => ""), value: nodes, through: [nodes] },
      edges: { tail, head, weights: [none], shown: [1] }, stories: [], heads: null, sources: null,
    }),
  );
  const paths = [];
  const extend = (node, visited, taken) => {
    paths.push({ visited, taken });
    tail.forEach((from, e) => from === node && extend(head[e], [...visited, head[e]], [...taken, e]));
  };
  for (const node of nodes) extend(node, [node], []);
  return { graph, paths, draw, count };
}

describe("what passes", () => {
  it("is what lies on a path that visits all sets", () => {
    for (let seed = 0; seed < 40; seed++) {
      const { graph, paths, draw, count } = small(seed);
      const sets = Array.from({ length: 1 + (seed % 4) }, () => Array.from({ length: 1 + Math.floor(draw() * 2) }, () => Math.floor(draw() * count)));
      const found = passingAll(graph, sets);
      const right = paths.filter(({ visited }) => sets.every((set) => set.some((node) => visited.includes(node))));
      const edges = new Set(right.flatMap(({ taken }) => taken));
      const nodes = new Set(right.flatMap(({ visited }) => visited));
      assert.deepEqual([...found.edges], graph.edges.tail.map((_, e) => Number(edges.has(e))));
      assert.deepEqual([...found.nodes], graph.nodes.row.map((_, n) => Number(nodes.has(n))));
    }
  });

  it("through any is through one or the other", () => {
    const { graph } = small(3);
    const [a, b] = [passingAll(graph, [[2]]), passingAll(graph, [[5]])];
    assert.deepEqual([...either([a, b]).edges], [...a.edges].map((yes, e) => yes | b.edges[e]));
  });
});

describe("edges between layers", () => {
  const closed = new Set([0, 1]);
  const view = cells(data, closed);

  it("add up where the reading's do, and else the largest stands for all", () => {
    for (const reading of [0, 1, 2]) {
      const edges = viewEdges(data, view, reading, data.edges.count, null);
      edges.members.forEach((members, e) => {
        const weights = members.map((m) => data.edges.weights[reading][m]);
        const right = data.readings[reading].adds ? weights.reduce((a, b) => a + b) : weights.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
        assert.equal(edges.weight[e], right);
      });
      const inside = data.edges.tail.filter((tail, e) => view.of[tail] === view.of[data.edges.head[e]]).length;
      assert.equal(edges.members.flat().length + inside, data.edges.count);
    }
  });

  it("are told apart by whether they pass", () => {
    const passing = passingAll(data, [nodesAt(data, "5:2")]);
    const edges = viewEdges(data, view, 0, data.edges.count, passing.edges);
    edges.members.forEach((members, e) => members.forEach((m) => assert.equal(edges.passes[e], passing.edges[m] === 1)));
  });

  it("lead between layers through which no more flows than through the largest component", () => {
    view.members.forEach((members, cell) => {
      if (!members.length) return;
      assert.equal(through(data, view, 0, cell).flow, Math.max(...members.map((n) => data.nodes.through[0][n])));
    });
  });
});

it("as many edges are shown as have a share of all sizes, in each reading", () => {
  given.edges.weights.forEach((weights, reading) => {
    const sizes = weights.map(Math.abs).sort((a, b) => b - a);
    const whole = sizes.reduce((a, b) => a + b) / given.edges.shown[reading];
    for (const share of [0.1, 0.5, 0.9]) {
      const count = countFor(data, reading, share);
      const carried = (n) => sizes.slice(0, n).reduce((a, b) => a + b, 0) / whole;
      assert.ok(carried(count) >= share - 1e-9 && carried(count - 1) < share);
    }
    assert.equal(countFor(data, reading, 1), data.edges.count);
  });
});

it("a link says what is chosen", () => {
  const state = {
    ...beginning(data), reading: 2, share: 0.25, closed: new Set([1]), at: "3:*", pins: ["g0:1", `${data.rows.length - 1}:-`],
    mode: "any", token: 3, story: 1, zoom: 0.8,
  };
  const isPlace = (place) => nodesAt(data, place).length > 0;
  assert.deepEqual(fromHash(data, `#${toHash(data, state)}`, isPlace), state);
  assert.equal(toHash(data, beginning(data)), "");
});

it("numbers and names are said as people write them", () => {
  assert.deepEqual(
    [null, 0, -0.5, 1234.5, 99999, 1.5e-7, -2e30, Infinity, -Infinity, NaN].map(number),
    ["–", "0", "−0.5", "1230", "100000", "1.5e-7", "−2e30", "∞", "−∞", "NaN"],
  );
  assert.deepEqual([0, 1, 0.999, 0.5, 0.0123, -0.2, 2.5, 1e-7].map(percent), ["0 %", "100 %", "99.9 %", "50 %", "1.2 %", "−20 %", "250 %", "1e-5 %"]);
  assert.equal(commonPrefix(["a/h/0", "a/h/1", "a/wte"]), "a/");
  assert.equal(commonPrefix(["a/h/0"]), "");
  assert.equal(placeName(data, "g1:2"), "h/1 at “to”");
  assert.equal(token({ columns: ["\n", "  "] }, 1), "␣␣");
  const reading = (semiring) => ({ name: "x", semiring, total: 1, shares: false, adds: false, signed: false });
  assert.match(sentence(reading("MaxProduct()"), "logits"), /largest weight of a path that crosses them, in logits\.$/);
  assert.match(sentence(reading("Mine(k=3)"), null), /what Mine\(k=3\) makes of all paths/);
});
