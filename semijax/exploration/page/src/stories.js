// The stories as a list, those that carry most first: pointing at one shows it in the grid, a click
// keeps it there. Stored are those with the strongest single paths.

import { byId, el, fill } from "./dom.js";
import { nodesAt, quoted } from "./places.js";
import { number, percent, weight } from "./words.js";

/** @typedef {import("./main.js").App} App */

/** So many are told to begin with. */
const FIRST = 5;

/** @param {App} app */
export function drawStories(app) {
  const { data, state } = app;
  const box = byId("stories");
  box.hidden = !data.stories.length;
  if (box.hidden) return;
  const size = (/** @type {import("./data.js").Story} */ { together }) => {
    const amount = together[state.reading];
    return amount !== null && Number.isFinite(amount) ? Math.abs(amount) : 0;
  };
  const largest = Math.max(...data.stories.map(size));
  const listed = data.stories
    .map((story, n) => ({ story, n }))
    .filter(({ story }) => state.token === null || data.nodes.column[story.nodes[0]] === state.token)
    .sort((a, b) => size(b.story) - size(a.story) || a.n - b.n);
  const where = [state.at, ...state.pins].flatMap((at) => (at === null ? [] : [new Set(nodesAt(data, at))]));
  const chosen = listed.findIndex(({ n }) => n === state.story);
  const all = app.allStories || chosen >= FIRST;
  const items = listed.slice(0, all ? listed.length : FIRST).map(({ story, n }, place) => {
    const passes = where.every((set) => story.nodes.some((node) => set.has(node)));
    return el(
      "li",
      { class: passes ? "" : "beside" },
      el(
        "button",
        {
          type: "button",
          class: "story",
          "data-key": `story ${n}`,
          "aria-pressed": String(state.story === n),
          onclick: () => app.tell(n),
          onpointerenter: () => app.grid.preview(n),
          onpointerleave: () => app.grid.preview(null),
          onfocus: () => app.grid.preview(n),
          onblur: () => app.grid.preview(null),
        },
        el("span", { class: "rank" }, String(place + 1)),
        el("span", { class: "told" }, story.told),
        el("span", { class: "meta" }, meta(data.readings[state.reading], story, state.reading)),
        el("span", { class: "share" }, el("span", { style: { width: `${(100 * size(story)) / (largest || 1)}%` } })),
      ),
    );
  });
  const from = state.token === null ? "" : ` from ${quoted(data, state.token)}`;
  fill(
    box,
    el("h2", {}, `Stories${from}`),
    el("p", { class: "quiet" }, "Those with the strongest single paths, by what all of their paths carry."),
    items.length ? el("ol", {}, ...items) : el("p", { class: "quiet" }, "None of the stored stories starts at this token."),
    listed.length > items.length
      ? el(
          "button",
          { type: "button", class: "link", onclick: () => app.showAllStories() },
          `show all ${listed.length}`,
        )
      : null,
  );
}

/**
 * What its best path has, and all its paths together.
 * @param {import("./data.js").Reading} reading
 * @param {import("./data.js").Story} story
 * @param {number} n
 */
function meta(reading, { score, together }, n) {
  const best = `best path ${number(score)}`;
  const all = together[n];
  if (all === null || /^AbsMax/.test(reading.semiring)) return best; // it says the same
  const said = reading.shares ? `${weight(reading, all)} of the ${reading.name}` : number(all);
  const share = reading.adds && !reading.shares && reading.total ? all / reading.total : NaN;
  return `all its paths ${said}${Number.isFinite(share) ? ` (${percent(share)})` : ""} · ${best}`;
}
