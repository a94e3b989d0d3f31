// Beside the grid: what is isolated and pinned, and the node that the reader is at.

import { card, cellTitle, cellToken, describeCell } from "./describe.js";
import { byId, el, fill } from "./dom.js";
import { placeName, quoted } from "./places.js";
import { count, counted, number, percent, shareOf } from "./words.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./draw.js").Scene} Scene */
/** @typedef {import("./state.js").State} State */

/** So many edges into and out of a node are listed. */
const LISTED = 5;

/**
 * What passes where: chips for what the reader has chosen, each of which can be taken back.
 * @param {App} app
 * @param {Scene} scene
 */
export function drawChosen(app, scene) {
  const { state, data } = app;
  /** @type {HTMLElement[]} */
  const chips = [];
  if (state.token !== null) {
    chips.push(chip(`starts at ${quoted(data, state.token)}`, "token", () => app.source(state.token)));
  }
  if (state.at !== null) chips.push(chip(`through ${placeName(data, state.at)}`, "at", () => app.isolate(null)));
  for (const pin of state.pins) {
    chips.push(chip(`${placeName(data, pin)}`, `pin ${pin}`, () => app.pin(pin), "pinned"));
  }
  const box = byId("chosen");
  box.hidden = !chips.length;
  if (!chips.length) return fill(box);
  const { stored, storedPassing } = scene.edges;
  fill(
    box,
    el(
      "div",
      { class: "head" },
      el("h2", {}, "Isolated"),
      el("button", { type: "button", class: "link", "data-key": "clear", onclick: () => app.clear() }, "clear"),
    ),
    el("div", { class: "chips" }, ...chips),
    state.pins.length > 1 ? modes(app) : null,
    ...passed(app, scene, stored, storedPassing),
  );
}

/** @param {App} app @param {Scene} scene @param {number} stored @param {number} passing */
function passed(app, scene, stored, passing) {
  const { data } = app;
  const all = scene.passing?.edges.reduce((sum, yes) => sum + yes, 0) ?? 0;
  if (!all) return [el("p", { class: "quiet" }, "No path through the stored edges does all of this.")];
  const which = stored === data.edges.count ? "stored edges" : "edges shown";
  const hidden = all - passing;
  return [
    el(
      "p",
      { class: "quiet" },
      `${count(passing)} of the ${count(stored)} ${which} lie on such a path. Each still carries all that crosses it.`,
    ),
    hidden
      ? el(
          "button",
          { type: "button", class: "link", "data-key": "more", onclick: () => app.set({ share: app.most() }) },
          `show ${hidden === 1 ? "the one" : `the ${count(hidden)}`} below the slider’s share too`,
        )
      : null,
  ];
}

/** @param {App} app */
function modes(app) {
  const choice = (/** @type {"all" | "any"} */ mode, /** @type {string} */ text) =>
    el(
      "label",
      {},
      el("input", {
        type: "radio",
        name: "mode",
        value: mode,
        "data-key": `mode ${mode}`,
        checked: app.state.mode === mode,
        onchange: () => app.set({ mode }),
      }),
      ` ${text}`,
    );
  return el(
    "div",
    { class: "modes", role: "radiogroup", "aria-label": "Pinned nodes" },
    choice("all", "through all pins"),
    choice("any", "through any pin"),
  );
}

/** @param {string} text @param {string} key @param {() => void} remove */
function chip(text, key, remove, kind = "") {
  return el(
    "span",
    { class: `chip ${kind}` },
    text,
    el("button", { type: "button", "data-key": `chip ${key}`, "aria-label": `Take back: ${text}`, onclick: remove }, "×"),
  );
}

/**
 * The node that the reader is at.
 * @param {App} app
 * @param {Scene} scene
 */
export function drawDetails(app, scene) {
  const box = byId("details");
  const cell = app.grid.focusedCell();
  if (cell < 0) {
    return fill(
      box,
      el("h2", {}, "Node"),
      el("p", { class: "quiet" }, "Point at a node or an edge to read its numbers. Click a node to isolate what passes through it. Press ? for the keys."),
    );
  }
  const at = app.grid.placeOf(cell);
  const { state } = app;
  const pinned = state.pins.includes(at);
  fill(
    box,
    el("h2", {}, "Node"),
    ...card(describeCell(scene, cell)),
    el(
      "div",
      { class: "buttons" },
      el(
        "button",
        { type: "button", "data-key": "isolate", "aria-pressed": String(state.at === at), onclick: () => app.isolate(at) },
        "Isolate",
      ),
      el(
        "button",
        { type: "button", "data-key": "pin", "aria-pressed": String(pinned), onclick: () => app.pin(at) },
        pinned ? "Unpin" : "Pin",
      ),
    ),
    edgeList(app, scene, cell, "into"),
    edgeList(app, scene, cell, "out of"),
  );
}

/** @param {App} app @param {Scene} scene @param {number} cell @param {"into" | "out of"} way */
function edgeList(app, scene, cell, way) {
  const { edges, data, reading } = scene;
  const [own, other] = way === "into" ? [edges.head, edges.tail] : [edges.tail, edges.head];
  /** @type {number[]} */
  const found = [];
  for (let e = 0; e < edges.count; e++) if (own[e] === cell && edges.passes[e]) found.push(e);
  if (!found.length) return el("p", { class: "quiet" }, `No edge ${way} it is shown.`);
  const size = (/** @type {number} */ e) => (Number.isNaN(edges.weight[e]) ? -1 : Math.abs(edges.weight[e]));
  found.sort((a, b) => size(b) - size(a));
  const items = found.slice(0, LISTED).map((e) => {
    const weight = Number.isNaN(edges.weight[e]) ? null : edges.weight[e];
    const share = shareOf(data.readings[reading], weight);
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", class: "go", "data-key": `${way} ${other[e]}`, onclick: () => app.grid.focusCell(other[e]) },
        el("span", {}, cellTitle(scene, other[e])),
        el("span", { class: "quiet" }, cellToken(scene, other[e])),
      ),
      el("span", { class: "number" }, share === null ? number(weight) : percent(share)),
    );
  });
  const more = found.length > LISTED ? `, the largest ${LISTED}` : "";
  return el(
    "div",
    { class: "edges" },
    el("h3", {}, `${counted(found.length, "edge")} ${way} it${more}`),
    el("ol", {}, ...items),
  );
}
