// What the reader has chosen, and the same as the hash of the address: a link shows what is seen.

/** @typedef {import("./data.js").Data} Data */

/**
 * @typedef {object} State
 * @property {number} reading
 * @property {number} share  Of the sizes of all weights in the reading: what the edges shown have.
 * @property {Set<number>} closed  The groups that are one row.
 * @property {string | null} at  The place that is isolated, see `places.js`.
 * @property {string[]} pins  Places too.
 * @property {"all" | "any"} mode  Whether paths pass through all pins or through any.
 * @property {number | null} token  The column in which paths start.
 * @property {number | null} story
 * @property {number} zoom
 */

/** More rows than this are hard to take in: layers are one row each to begin with. */
const MANY_ROWS = 48;

/** So many edges are shown to begin with, or fewer; between whole layers many become one. */
const FEW_EDGES = { rows: 900, layers: 3000 };

export const ZOOMS = [0.5, 0.65, 0.8, 1, 1.25, 1.6, 2];

/**
 * What is shown to begin with.
 * @param {Data} data
 * @returns {State}
 */
export function beginning(data) {
  const folded = data.rows.length > MANY_ROWS && data.groups.length > 0;
  const last = Math.min(folded ? FEW_EDGES.layers : FEW_EDGES.rows, data.edges.count) - 1;
  const carried = last < 0 || last === data.edges.count - 1 ? data.shown[0] : data.edges.ranked[0].carried[last];
  const rounded = Math.max(Math.floor(carried * 100) / 100, Math.min(0.01, carried));
  return {
    reading: 0,
    share: last === data.edges.count - 1 ? data.shown[0] : rounded,
    closed: folded ? everyGroup(data) : new Set(),
    at: null,
    pins: [],
    mode: "all",
    token: null,
    story: null,
    zoom: 1,
  };
}

/** @param {Data} data */
export const everyGroup = (data) => new Set(data.groups.keys());

/**
 * The hash of the address: what differs from the beginning.
 * @param {Data} data
 * @param {State} state
 */
export function toHash(data, state) {
  const first = beginning(data);
  const hash = new URLSearchParams();
  if (state.reading !== first.reading) hash.set("reading", data.readings[state.reading].name);
  if (state.share !== first.share) hash.set("share", String(Number(state.share.toFixed(4))));
  const closed = closedText(data, state.closed);
  if (closed !== closedText(data, first.closed)) hash.set("closed", closed);
  if (state.at !== null) hash.set("at", state.at);
  if (state.pins.length) hash.set("pins", state.pins.join(","));
  if (state.mode !== first.mode) hash.set("mode", state.mode);
  if (state.token !== null) hash.set("token", String(state.token));
  if (state.story !== null) hash.set("story", String(state.story + 1));
  if (state.zoom !== first.zoom) hash.set("zoom", String(state.zoom));
  return hash.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
}

/**
 * What a hash says; what makes no sense with these data is left at the beginning.
 * @param {Data} data
 * @param {string} text
 * @param {(place: string) => boolean} isPlace
 * @returns {State}
 */
export function fromHash(data, text, isPlace) {
  const hash = new URLSearchParams(text.replace(/^#/, ""));
  const state = beginning(data);
  /** @param {string} name @param {number} below */
  const index = (name, below, first = 0) => {
    const given = hash.get(name);
    const found = Number(given) - first;
    return given && Number.isInteger(found) && found >= 0 && found < below ? found : null;
  };
  const reading = data.readings.findIndex((r) => r.name === hash.get("reading"));
  if (reading >= 0) state.reading = reading;
  const share = Number(hash.get("share") ?? NaN);
  if (share >= 0 && share <= 1) state.share = Math.min(share, data.shown[state.reading]);
  const closed = hash.get("closed");
  if (closed === "all") state.closed = everyGroup(data);
  else if (closed !== null) {
    const listed = closed.split(",").map(Number);
    state.closed = new Set(listed.filter((g) => Number.isInteger(g) && g >= 0 && g < data.groups.length));
    if (closed === "none" || closed === "") state.closed = new Set();
  }
  const at = hash.get("at");
  if (at && isPlace(at)) state.at = at;
  state.pins = [...new Set((hash.get("pins") ?? "").split(",").filter(isPlace))];
  if (hash.get("mode") === "any") state.mode = "any";
  state.token = index("token", data.columns.length);
  state.story = index("story", data.stories.length, 1);
  const zoom = Number(hash.get("zoom"));
  if (ZOOMS.includes(zoom)) state.zoom = zoom;
  return state;
}

/** @param {Data} data @param {Set<number>} closed */
function closedText(data, closed) {
  if (closed.size === 0) return "none";
  if (closed.size === data.groups.length) return "all";
  return [...closed].sort((a, b) => a - b).join(",");
}
