// Colours on the canvas, for a light and a dark page.
//
// Signs are told apart by hue and by line: red and solid, blue and dashed. The two hues are those of
// the library's pictures and stay apart with every kind of colour blindness; sizes go from pale to
// deep in one hue, so that lightness alone tells them.

/**
 * @typedef {object} Colours
 * @property {string} paper
 * @property {string} band  Behind every other layer.
 * @property {string} line
 * @property {string} ink
 * @property {string} muted
 * @property {string} edge  Of an edge without a sign.
 * @property {string} positive
 * @property {string} negative
 * @property {string} mark  What the reader has chosen.
 * @property {string[]} sizes  From none to the largest.
 */

/** @type {Record<"light" | "dark", Colours>} */
export const COLOURS = {
  light: {
    paper: "#ffffff",
    band: "#f6f7f7",
    line: "#e3e6e7",
    ink: "#1b2226",
    muted: "#5b666d",
    edge: "#2b5666",
    positive: "#b2182b",
    negative: "#2166ac",
    mark: "#e8a200",
    sizes: ["#dce5e7", "#b3ced3", "#7fb0ba", "#4a8d9b", "#236b7b", "#0d4957"],
  },
  dark: {
    paper: "#15191c",
    band: "#1a1f22",
    line: "#2b3135",
    ink: "#e4e8ea",
    muted: "#9aa5ab",
    edge: "#8cc3cf",
    positive: "#f4876f",
    negative: "#6cb1ee",
    mark: "#f2b632",
    sizes: ["#2a3438", "#2f4f58", "#377280", "#4b9aa8", "#7ec3cb", "#d2f1ee"],
  },
};

/**
 * A colour of the ramp of sizes.
 * @param {Colours} colours
 * @param {number} part  Of the largest.
 */
export function sizeColour({ sizes }, part) {
  const at = Math.min(Math.max(part, 0), 1) * (sizes.length - 1);
  const below = Math.min(Math.floor(at), sizes.length - 2);
  return mixed(sizes[below], sizes[below + 1], at - below);
}

/**
 * A colour between two.
 * @param {string} from
 * @param {string} to
 * @param {number} part
 */
export function mixed(from, to, part) {
  const [a, b] = [from, to].map((hex) => Number.parseInt(hex.slice(1), 16));
  const channel = (/** @type {number} */ shift) => {
    const [x, y] = [(a >> shift) & 255, (b >> shift) & 255];
    return Math.round(x + (y - x) * part);
  };
  return `rgb(${channel(16)}, ${channel(8)}, ${channel(0)})`;
}

/**
 * The colour of a number in a table: its size, or its sign and size.
 * @param {Colours} colours
 * @param {number} x
 * @param {number} largest
 * @param {boolean} signed
 */
export function cellColour(colours, x, largest, signed) {
  const part = largest > 0 ? Math.min(Math.abs(x) / largest, 1) : 0;
  if (!signed) return sizeColour(colours, part);
  return mixed(colours.sizes[0], x < 0 ? colours.negative : colours.positive, part);
}

/**
 * Whether text on a colour is to be white.
 * @param {string} rgb
 */
export function isDark(rgb) {
  const [r, g, b] = (rgb.match(/\d+/g) ?? ["0", "0", "0"]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b < 140;
}
