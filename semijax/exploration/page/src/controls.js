// Above the grid: which reading, how many edges, which rows, how large; what can be saved.

import { byId, el, fill } from "./dom.js";
import { savePng, saveCsv, saveSvg } from "./export.js";
import { everyGroup, ZOOMS } from "./state.js";
import { count, percent, sentence } from "./words.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./draw.js").Scene} Scene */

/**
 * What is there once.
 * @param {App} app
 */
export function buildControls(app) {
  const { data } = app;
  document.title = data.title;
  byId("title").textContent = data.title;
  const slider = /** @type {HTMLInputElement} */ (byId("share"));
  slider.step = "any";
  slider.addEventListener("input", () => {
    // Whole percentages make plain links; the end is all there is.
    const share = Number(slider.value);
    const whole = Math.round(share * 200) / 200;
    app.set({ share: share >= app.most() ? app.most() : Math.min(whole, app.most()) });
  });
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const share = Math.round((app.state.share + step) * 100) / 100;
    app.set({ share: Math.min(Math.max(share, 0), app.most()) });
  });
  fill(
    byId("readings"),
    ...data.readings.map((reading, n) =>
      el(
        "label",
        { title: reading.semiring },
        el("input", { type: "radio", name: "reading", value: String(n), onchange: () => app.set({ reading: n }) }),
        el("span", {}, reading.name),
      ),
    ),
  );
  byId("layers").hidden = !data.groups.length;
  byId("fold").addEventListener("click", () => app.set({ closed: everyGroup(data) }));
  byId("unfold").addEventListener("click", () => app.set({ closed: new Set() }));
  byId("smaller").addEventListener("click", () => zoom(app, -1));
  byId("larger").addEventListener("click", () => zoom(app, 1));
  byId("svg").addEventListener("click", () => saveSvg(app));
  byId("png").addEventListener("click", () => savePng(app));
  byId("csv").addEventListener("click", () => saveCsv(app));
  byId("theme").addEventListener("click", () => app.toggleTheme());
  // A link would change the address, which says what is shown.
  byId("skip").addEventListener("click", () => byId("plot").focus());
  const keys = /** @type {HTMLDialogElement} */ (byId("keys"));
  byId("help").addEventListener("click", () => keys.showModal());
  byId("close-keys").addEventListener("click", () => keys.close());
}

/** @param {App} app @param {number} step */
export function zoom(app, step) {
  const next = ZOOMS[ZOOMS.indexOf(app.state.zoom) + step];
  if (next) app.set({ zoom: next });
}

/** @param {App} app @param {Scene} scene */
export function drawControls(app, scene) {
  const { data, state } = app;
  const reading = data.readings[state.reading];
  byId("sentence").textContent = sentence(reading, data.unit);
  for (const input of byId("readings").querySelectorAll("input")) {
    input.checked = Number(input.value) === state.reading;
  }
  const slider = /** @type {HTMLInputElement} */ (byId("share"));
  slider.max = String(app.most());
  if (Number(slider.value) !== state.share) slider.value = String(state.share);
  const { stored } = scene.edges;
  const said = `${percent(state.share)} of ${reading.shares ? `the ${reading.name}` : "all sizes"}`;
  slider.setAttribute("aria-valuetext", `${said}, ${count(stored)} edges`);
  byId("share-said").textContent = said;
  byId("count").textContent = `${count(stored)} of ${count(data.edges.count)} edges`;
  /** @type {HTMLButtonElement} */ (byId("smaller")).disabled = state.zoom === ZOOMS[0];
  /** @type {HTMLButtonElement} */ (byId("larger")).disabled = state.zoom === ZOOMS.at(-1);
  /** @type {HTMLButtonElement} */ (byId("fold")).disabled = state.closed.size === data.groups.length;
  /** @type {HTMLButtonElement} */ (byId("unfold")).disabled = state.closed.size === 0;
}
