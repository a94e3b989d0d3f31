// Heads by layers, as a small table of colours. A click isolates the layer's attention.

import { cellColour, COLOURS, isDark } from "./colours.js";
import { byId, el, fill } from "./dom.js";
import { largest } from "./draw.js";
import { place } from "./places.js";
import { ending, number, shareOf, percent, weight, withoutPrefix } from "./words.js";

/** @typedef {import("./main.js").App} App */

/** So many letters of a name fit beside the heads. */
const LONGEST = 22;

/** @param {App} app */
export function drawHeads(app) {
  const { data, state } = app;
  const box = byId("heads");
  box.hidden = !data.heads || !data.heads.count;
  if (!data.heads || box.hidden) return;
  const { rows, count, values } = data.heads;
  const reading = data.readings[state.reading];
  const here = values[state.reading];
  const most = largest(here.flat());
  const colours = COLOURS[app.theme()];
  const heads = Array.from({ length: count }, (_, head) => head);
  const isolate = (/** @type {string | null} */ at) => {
    if (at === null) return;
    app.isolate(at);
    app.grid.revealChosen();
  };
  const body = rows
    .map((name, n) => {
      const row = data.rows.findIndex((known) => known.name === name);
      const at = row < 0 ? null : place(row, "*", false);
      const shown = ending(withoutPrefix(data, name), LONGEST);
      const label = at
        ? el("button", { type: "button", class: "label", "data-key": `head ${n}`, title: name, onclick: () => isolate(at) }, shown)
        : el("span", { title: name }, shown);
      const cells = heads.map((head) => {
        const x = here[n][head];
        const colour = x === null || Number.isNaN(x) ? "" : cellColour(colours, x, most, reading.signed);
        const said = `${name}, head ${head}: ${weight(reading, x)}`;
        return el(
          "td",
          {
            title: said,
            "aria-label": said,
            class: [x === null ? "none" : "", reading.signed && (x ?? 0) < 0 ? "negative" : "", colour && isDark(colour) ? "deep" : ""].join(" "),
            style: { background: colour },
            onclick: () => isolate(at),
            onpointerenter: () => (byId("head-said").textContent = said),
          },
          // The sign in ink as well: not by colour alone.
          reading.signed && (x ?? 0) < 0 ? "−" : "",
        );
      });
      return el("tr", { class: at !== null && state.at === at ? "chosen" : "" }, el("th", { role: "rowheader" }, label), ...cells);
    })
    .toReversed(); // the first row is the lowest, as in the grid
  const share = shareOf(reading, most);
  fill(
    box,
    el("h2", {}, "Heads"),
    el(
      "div",
      { class: "scrolled" },
      el(
        "table",
        { "aria-label": `${reading.name} through each head` },
        el("tbody", {}, ...body),
        el("tfoot", {}, el("tr", {}, el("td", {}), ...heads.map((head) => el("th", {}, String(head))))),
      ),
    ),
    el("p", { class: "quiet", id: "head-said" }, `deepest: ${share === null ? number(most) : percent(share)}`),
  );
}
