// Numbers and sentences as the reader sees them.

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Reading} Reading */

/**
 * A number to three digits.
 * @param {number | null | undefined} x
 */
export function number(x) {
  if (x === null || x === undefined) return "–";
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) {
    // Not as a power of ten: a font without a raised minus would hide it.
    const [digits, exponent] = x.toExponential(2).split("e");
    return minus(`${Number(digits)}e${exponent.replace("+", "")}`);
  }
  return minus(String(Number(x.toPrecision(3))));
}

/** @param {string} text */
const minus = (text) => text.replace(/^-/, "−");

/**
 * A share as a percentage.
 * @param {number} share
 */
export function percent(share) {
  const hundredths = 100 * share;
  if (hundredths !== 0 && Math.abs(hundredths) < 0.01) return `${number(hundredths)} %`;
  // No part is all, however large.
  if (share < 1 && hundredths > 99.5) return `${Math.floor(hundredths * 10) / 10} %`;
  return minus(`${Number(hundredths >= 99.5 ? hundredths.toFixed(0) : hundredths.toPrecision(2))} %`);
}

/**
 * A count with separators.
 * @param {number} n
 */
export const count = (n) => n.toLocaleString("en-GB");

/**
 * A count and what is counted.
 * @param {number} n
 * @param {string} one
 * @param {string} [several]
 */
export const counted = (n, one, several = `${one}s`) => `${count(n)} ${n === 1 ? one : several}`;

/**
 * A weight, with its share of the total where weights add up.
 * @param {Reading} reading
 * @param {number | null} weight
 */
export function weight(reading, weight) {
  const share = shareOf(reading, weight);
  if (share !== null && reading.total === 1) return percent(share); // it is a share already
  return share === null ? number(weight) : `${number(weight)} (${percent(share)})`;
}

/**
 * The share of the total, where there is one.
 * @param {Reading} reading
 * @param {number | null} weight
 */
export function shareOf(reading, weight) {
  const { shares, total } = reading;
  if (!shares || weight === null || !total || !Number.isFinite(weight / total)) return null;
  return weight / total;
}

/** What edges carry, by semiring. */
/** @type {Record<string, string>} */
const CARRY = {
  AbsSumProduct: "the sum of |weight| over all paths that cross them: how much flows there, before signs cancel",
  SumProduct: "the sum over all paths that cross them: positive and negative paths cancel",
  MaxProduct: "the largest weight of a path that crosses them",
  MinProduct: "the smallest weight, the most negative, of a path that crosses them",
  AbsMaxProduct: "the size of the strongest path that crosses them",
  TopK: "the sizes of the strongest paths that cross them",
  Entropy: "the entropy of the paths that cross them, in nats: low for a few strong paths, high for many weak ones",
  Expectation: "a mean over the paths that cross them, each counted by its |weight|",
  PathLength: "the mean number of edges of the paths that cross them, each counted by its |weight|",
  PathCount: "the logarithm of the number of paths that cross them, in nats",
  Reachability: "whether any path crosses them",
};

/**
 * One sentence: what the reader sees.
 * @param {Reading} reading
 * @param {string | null} unit
 */
export function sentence(reading, unit) {
  const semiring = reading.semiring.match(/^\w+/)?.[0] ?? "";
  const carried = CARRY[semiring] ?? `what ${reading.semiring} makes of all paths that cross them`;
  const weighs = /^(Abs)?(Sum|Max|Min)Product$/.test(semiring);
  const inUnits = unit && weighs ? `, in ${unit}` : "";
  return `Edges carry ${carried}${inUnits}.`;
}

/**
 * A text of at most so many characters.
 * @param {string} text
 * @param {number} most
 */
export const shortened = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

/**
 * The end of a text, of at most so many characters.
 * @param {string} text
 * @param {number} most
 */
export const ending = (text, most) => (text.length <= most ? text : `…${text.slice(1 - most)}`);

/**
 * A token's label: white space that matters is made visible, an empty one gets a name.
 * @param {Data} data
 * @param {number} column
 */
export function token(data, column) {
  if (column < 0) return "no token";
  const label = data.columns[column];
  if (label === "") return data.columns.length === 1 ? "all tokens" : "(empty)";
  return label.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/^ +$/, (blanks) => "␣".repeat(blanks.length));
}

/**
 * A row's name without its layer's, which stands beside it.
 * @param {Data} data
 * @param {number} row
 */
export function shortName(data, row) {
  const { name, group } = data.rows[row];
  const within = group !== null && name.startsWith(group) ? name.slice(group.length).replace(/^[/.:]/, "") : "";
  return within || withoutPrefix(data, name);
}

/**
 * A row's name without what all rows' names begin with.
 * @param {Data} data
 * @param {string} name
 */
export const withoutPrefix = ({ prefix }, name) => (name.startsWith(prefix) && name.slice(prefix.length)) || name;
