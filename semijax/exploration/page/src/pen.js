// A pen that writes SVG: it knows of a canvas's context what the drawing uses.

/**
 * What the drawing asks of a pen; a canvas's 2D context is one.
 * @typedef {Pick<CanvasRenderingContext2D, "strokeStyle" | "fillStyle" | "lineWidth" | "globalAlpha" |
 *   "font" | "textAlign" | "textBaseline" | "lineCap" | "beginPath" | "moveTo" | "lineTo" |
 *   "bezierCurveTo" | "arc" | "rect" | "closePath" | "stroke" | "fill" | "fillRect" | "fillText" |
 *   "setLineDash" | "save" | "restore" | "translate" | "rotate">} Pen
 */

/** @param {number} x */
const short = (x) => String(Number(x.toFixed(2)));

/** @param {string} text */
const escaped = (text) =>
  // What XML has no way to write is left out.
  // eslint-disable-next-line no-control-regex
  text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "")
    .replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** @implements {Pen} */
export class SvgPen {
  constructor() {
    /** @type {string[]} */
    this.parts = [];
    this.path = "";
    this.strokeStyle = /** @type {any} */ ("#000");
    this.fillStyle = /** @type {any} */ ("#000");
    this.lineWidth = 1;
    this.globalAlpha = 1;
    this.font = "12px sans-serif";
    this.textAlign = /** @type {CanvasTextAlign} */ ("left");
    this.textBaseline = /** @type {CanvasTextBaseline} */ ("alphabetic");
    this.lineCap = /** @type {CanvasLineCap} */ ("butt");
    /** @type {number[]} */
    this.dash = [];
    /** @type {string[]} */
    this.moves = [];
    /** @type {number[]} */
    this.saved = [];
  }

  beginPath() {
    this.path = "";
  }
  /** @param {number} x @param {number} y */
  moveTo(x, y) {
    this.path += `M${short(x)} ${short(y)}`;
  }
  /** @param {number} x @param {number} y */
  lineTo(x, y) {
    this.path += `L${short(x)} ${short(y)}`;
  }
  /** @param {...number} points */
  bezierCurveTo(...points) {
    this.path += `C${points.map(short).join(" ")}`;
  }
  /** A whole circle. @param {number} x @param {number} y @param {number} r */
  arc(x, y, r) {
    const [a, b, d] = [short(x - r), short(y), short(2 * r)];
    this.path += `M${a} ${b}a${short(r)} ${short(r)} 0 1 0 ${d} 0a${short(r)} ${short(r)} 0 1 0 -${d} 0`;
  }
  /** @param {number} x @param {number} y @param {number} w @param {number} h */
  rect(x, y, w, h) {
    this.path += `M${short(x)} ${short(y)}h${short(w)}v${short(h)}h${short(-w)}z`;
  }
  closePath() {
    this.path += "z";
  }
  stroke() {
    if (!this.path) return;
    const dash = this.dash.length ? ` stroke-dasharray="${this.dash.map(short).join(" ")}"` : "";
    const look = `stroke="${this.strokeStyle}" stroke-width="${short(this.lineWidth)}" stroke-linecap="${this.lineCap}"`;
    this.add(`<path d="${this.path}" fill="none" ${look}${dash}${this.alpha("stroke")}/>`);
  }
  fill() {
    if (this.path) this.add(`<path d="${this.path}" fill="${this.fillStyle}"${this.alpha("fill")}/>`);
  }
  /** @param {number} x @param {number} y @param {number} w @param {number} h */
  fillRect(x, y, w, h) {
    const size = `width="${short(w)}" height="${short(h)}"`;
    this.add(`<rect x="${short(x)}" y="${short(y)}" ${size} fill="${this.fillStyle}"${this.alpha("fill")}/>`);
  }
  /** @param {string} text @param {number} x @param {number} y */
  fillText(text, x, y) {
    const anchor = { left: "start", center: "middle", right: "end" }[String(this.textAlign)] ?? "start";
    const drop = this.textBaseline === "middle" ? "0.35em" : this.textBaseline === "top" ? "0.8em" : "0";
    const font = this.font.replace(/"/g, "'");
    this.add(
      `<text x="${short(x)}" y="${short(y)}" dy="${drop}" text-anchor="${anchor}" style="font:${font}" ` +
        `fill="${this.fillStyle}"${this.alpha("fill")}>${escaped(text)}</text>`,
    );
  }
  /** @param {Iterable<number>} dash */
  setLineDash(dash) {
    this.dash = [...dash];
  }
  save() {
    this.saved.push(this.moves.length);
  }
  restore() {
    this.moves.length = this.saved.pop() ?? 0;
  }
  /** @param {number} x @param {number} y */
  translate(x, y) {
    this.moves.push(`translate(${short(x)} ${short(y)})`);
  }
  /** @param {number} angle */
  rotate(angle) {
    this.moves.push(`rotate(${short((angle * 180) / Math.PI)})`);
  }

  /** @param {"stroke" | "fill"} of */
  alpha(of) {
    return this.globalAlpha < 1 ? ` ${of}-opacity="${short(this.globalAlpha)}"` : "";
  }
  /** @param {string} part */
  add(part) {
    this.parts.push(this.moves.length ? `<g transform="${this.moves.join(" ")}">${part}</g>` : part);
  }
  /** @param {number} width @param {number} height @param {string} title */
  document(width, height, title) {
    const size = `width="${short(width)}" height="${short(height)}" viewBox="0 0 ${short(width)} ${short(height)}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size}><title>${escaped(title)}</title>\n${this.parts.join("\n")}\n</svg>\n`;
  }
}
