// The page: reads its data, keeps what the reader has chosen, and has every part drawn again.

import { buildControls, drawControls, zoom } from "./controls.js";
import { read } from "./data.js";
import { byId } from "./dom.js";
import { Grid } from "./grid.js";
import { drawHeads } from "./heads.js";
import { drawLegend } from "./legend.js";
import { Model } from "./model.js";
import { drawChosen, drawDetails } from "./panel.js";
import { MOST_SETS } from "./passing.js";
import { nodesAt, placeName } from "./places.js";
import { fromHash, toHash } from "./state.js";
import { drawStories } from "./stories.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./state.js").State} State */

/** What is isolated and a token are asked for beside the pins. */
const MOST_PINS = MOST_SETS - 2;

export class App {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    this.model = new Model(data);
    this.state = fromHash(data, location.hash, (place) => this.isPlace(place));
    this.allStories = false;
    /** @type {Set<() => void>} */
    this.waiting = new Set();
    this.grid = new Grid(this);
    buildControls(this);
    this.render();
    this.grid.revealChosen();
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) === toHash(data, this.state)) return;
      this.state = fromHash(data, location.hash, (place) => this.isPlace(place));
      this.render();
      this.grid.revealChosen();
    });
    new ResizeObserver(() => this.render()).observe(byId("grid"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.render());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {string} place */
  isPlace(place) {
    return nodesAt(this.data, place).length > 0;
  }

  /** @param {string} place */
  nodesAt(place) {
    return nodesAt(this.data, place);
  }

  /** The largest share there is to show, in the reading. */
  most() {
    return this.data.shown[this.state.reading];
  }

  scene() {
    return this.model.scene(this.state, this.grid.room());
  }

  /** @param {Partial<State>} change */
  set(change) {
    const all = this.state.share >= this.most();
    this.state = { ...this.state, ...change };
    // All that is stored is another share in each reading.
    if (change.reading !== undefined && change.share === undefined && (all || this.state.share > this.most())) {
      this.state.share = this.most();
    }
    const hash = toHash(this.data, this.state);
    // A page inside of another may not change its address.
    try {
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    } catch {
      /* the page works without */
    }
    this.render();
  }

  render() {
    const scene = this.scene();
    drawControls(this, scene);
    this.grid.render(scene, this.state);
    drawLegend(this, scene);
    drawChosen(this, scene);
    drawDetails(this, scene);
    drawStories(this);
    drawHeads(this);
  }

  /** Do something before the next picture, once. @param {() => void} what */
  later(what) {
    if (!this.waiting.size) {
      requestAnimationFrame(() => {
        const all = [...this.waiting];
        this.waiting.clear();
        for (const each of all) each();
      });
    }
    this.waiting.add(what);
  }

  /** Isolate what passes through a place; again: no more. @param {string | null} place */
  isolate(place) {
    if (place === null && this.state.at === null) return;
    this.set({ at: place === this.state.at ? null : place });
    this.say(this.state.at ? `Isolated: ${placeName(this.data, this.state.at)}` : "All edges are shown");
  }

  /** Pin a place; again: no more. @param {string} place */
  pin(place) {
    const { pins } = this.state;
    if (pins.includes(place)) this.set({ pins: pins.filter((pin) => pin !== place) });
    else if (pins.length < MOST_PINS) this.set({ pins: [...pins, place] });
    else return this.say(`No more than ${MOST_PINS} nodes can be pinned.`);
    this.say(`${this.state.pins.length} pinned`);
  }

  /** Keep a story highlighted; again: no more. @param {number} story */
  tell(story) {
    this.set({ story: this.state.story === story ? null : story });
    this.grid.revealChosen();
  }

  /** Isolate what starts at a token; again: no more. @param {number | null} token */
  source(token) {
    const { story } = this.state;
    const chosen = token === this.state.token ? null : token;
    const first = story === null ? null : this.data.stories[story].nodes[0];
    const kept = chosen === null || (first !== null && this.data.nodes.column[first] === chosen);
    this.set({ token: chosen, story: kept ? story : null });
  }

  showAllStories() {
    this.allStories = true;
    drawStories(this);
  }

  /** Make a layer one row, or its rows again. @param {number} group */
  fold(group) {
    const closed = new Set(this.state.closed);
    if (!closed.delete(group)) closed.add(group);
    this.set({ closed });
  }

  /** Nothing is isolated, pinned or highlighted any more. */
  clear() {
    this.set({ at: null, token: null, story: null, pins: [] });
    this.say("All edges are shown");
  }

  /** The keyboard has moved to another node. */
  focused() {
    drawDetails(this, this.scene());
  }

  /** @returns {"light" | "dark"} */
  theme() {
    const chosen = document.documentElement.dataset.theme;
    if (chosen === "light" || chosen === "dark") return chosen;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  toggleTheme() {
    document.documentElement.dataset.theme = this.theme() === "dark" ? "light" : "dark";
    this.render();
  }

  /** For a screen reader. @param {string} text */
  say(text) {
    byId("live").textContent = text;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const keys = /** @type {HTMLDialogElement} */ (byId("keys"));
    if (keys.open) return;
    const { reading } = this.state;
    const count = this.data.readings.length;
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
    if (digit >= 0 && digit < count) this.set({ reading: digit });
    else if (event.key === "[") this.set({ reading: (reading + count - 1) % count });
    else if (event.key === "]") this.set({ reading: (reading + 1) % count });
    else if (event.key === "+" || event.key === "=") zoom(this, 1);
    else if (event.key === "-") zoom(this, -1);
    else if (event.key === "?") keys.showModal();
    else if (event.key === "Escape") this.clear();
  }
}

try {
  new App(read(byId("data").textContent ?? ""));
} catch (error) {
  // Better a sentence than an empty page.
  byId("sentence").textContent = `These data cannot be shown: ${error instanceof Error ? error.message : error}`;
  throw error;
}
