// From the data and what the reader has chosen to the scene that is drawn. Each step is done again
// only when something that it depends on has changed.

import { countFor } from "./data.js";
import { flows, largest } from "./draw.js";
import { curves, layout } from "./layout.js";
import { either, passingAll } from "./passing.js";
import { nodesAt } from "./places.js";
import { cells, through, viewEdges } from "./view.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./draw.js").Scene} Scene */

export class Model {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    /** @type {Map<string, {key: string, value: any}>} */
    this.known = new Map();
  }

  /**
   * The scene for a state.
   * @param {State} state
   * @param {{width: number, height: number}} room
   * @returns {Scene}
   */
  scene(state, room) {
    const { data } = this;
    const { reading } = state;
    const closed = [...state.closed].sort((a, b) => a - b).join();
    const asked = [state.at, state.token, state.mode, ...state.pins].join("|");
    const first = countFor(data, reading, state.share);
    const view = this.once("view", closed, () => cells(data, state.closed));
    const passing = this.once("passing", asked, () => this.passing(state));
    const edges = this.once("edges", `${closed}/${asked}/${first}/${reading}`, () =>
      viewEdges(data, view, reading, first, passing?.edges ?? null),
    );
    const at = this.once("at", `${closed}/${room.width}/${room.height}/${state.zoom}`, () =>
      layout(data, view, room, state.zoom),
    );
    // The scale is that of all stored edges: what is thick stays so when fewer are shown.
    const scale = this.once("scale", `${closed}/${reading}`, () => ({
      edge: largest(viewEdges(data, view, reading, data.edges.count, null).weight),
      node: largest(view.members.map((_, cell) => through(data, view, reading, cell).flow)),
    }));
    return {
      data,
      reading,
      view,
      edges,
      at,
      passing,
      scale,
      curves: curves(at, view, edges),
      flows: flows(data, view, reading, passing, scale.node),
    };
  }

  /** @param {State} state */
  passing({ at, token, pins, mode }) {
    const { data } = this;
    /** @type {number[][]} */
    const always = [];
    if (at !== null) always.push(nodesAt(data, at));
    if (token !== null) always.push(startsAt(data, token));
    const pinned = pins.map((pin) => nodesAt(data, pin));
    if (!always.length && !pinned.length) return null;
    if (mode === "any" && pinned.length) {
      return either(pinned.map((set) => passingAll(data, [...always, set])));
    }
    return passingAll(data, [...always, ...pinned]);
  }

  /**
   * @template T
   * @param {string} name
   * @param {string} key
   * @param {() => T} make
   * @returns {T}
   */
  once(name, key, make) {
    const known = this.known.get(name);
    if (known && known.key === key) return known.value;
    const value = make();
    this.known.set(name, { key, value });
    return value;
  }
}

/**
 * The nodes of a token at which paths start.
 * @param {Data} data
 * @param {number} token
 */
export function startsAt(data, token) {
  return data.nodes.start.filter((node) => data.nodes.column[node] === token);
}
