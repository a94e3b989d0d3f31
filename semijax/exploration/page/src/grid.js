// The grid: a scrolled sheet with row names on its left, tokens below, and two canvases in between.
// The lower canvas has the graph; the upper what the reader points at, so that pointing is quick.

import { COLOURS } from "./colours.js";
import { commonPrefix } from "./data.js";
import { describeCell, describeEdge, card, spoken } from "./describe.js";
import { byId, el, fill, rove, stop } from "./dom.js";
import { drawEdges, drawGround, drawNodes, drawPointed, drawRing, drawStory, part, spot, storyCells } from "./draw.js";
import { cellAt, columnWidth, edgeAt } from "./layout.js";
import { place } from "./places.js";
import { ending, number, percent, shareOf, shortName, shortened, token, weight } from "./words.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./draw.js").Scene} Scene */
/** @typedef {import("./main.js").App} App */

/** The least that is to be seen of the page, in pixels, for two sticky columns to fit. */
const NARROW = 600;

/** Names of layers so long stay whole. */
const SHORT = 10;

/** What stands beside the name of a layer: its button, and space. */
const BESIDE = 40;

/** What is scrolled to is so far from the edge. */
const MARGIN = 40;

export class Grid {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.scroller = byId("grid");
    this.rows = el("div", { class: "rows", role: "group", "aria-label": "Rows" });
    this.base = el("canvas", { class: "base", "aria-hidden": "true" });
    this.over = el("canvas", { class: "over", "aria-hidden": "true" });
    this.window = el("div", { class: "window" }, this.base, this.over);
    this.plot = el("div", {
      class: "plot",
      id: "plot",
      tabIndex: 0,
      role: "application",
      "aria-roledescription": "graph",
      "aria-label": "Components by tokens: arrow keys move from node to node, Enter isolates",
      "aria-describedby": "sentence",
    });
    this.plot.append(this.window);
    this.corner = el("div", { class: "corner" });
    this.tokens = el("div", { class: "tokens", role: "group", "aria-label": "Tokens at which paths start" });
    this.scroller.append(this.rows, this.plot, this.corner, this.tokens);
    this.tip = byId("tip");
    this.ruler = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
    /** @type {Scene | null} */
    this.scene = null;
    /** The node that the keyboard is at. */
    this.focus = -1;
    this.slot = 1;
    this.pointed = { cell: -1, edge: -1 };
    /** @type {number | null} */
    this.previewed = null;
    this.fromBottom = 0;
    /** What the sheet was laid out for. */
    this.placed = { wide: 0, high: 0, upright: false };
    this.paintOver = this.paintOver.bind(this);
    this.listen();
  }

  listen() {
    rove(this.rows, ["ArrowDown", "ArrowUp"]); // they come from the bottom up
    rove(this.tokens, ["ArrowLeft", "ArrowRight"]);
    const { plot, scroller } = this;
    const painted = () => this.paint();
    scroller.addEventListener(
      "scroll",
      () => {
        this.fromBottom = scroller.scrollHeight - scroller.scrollTop - this.placed.high;
        this.app.later(painted);
      },
      { passive: true },
    );
    plot.addEventListener("pointermove", (event) => this.point(event));
    plot.addEventListener("pointerleave", () => this.unpoint());
    plot.addEventListener("click", (event) => {
      if (!this.scene) return;
      const { x, y } = this.position(event);
      const cell = cellAt(this.scene.at, this.scene.view, x, y);
      if (cell >= 0) {
        this.focusCell(cell);
        this.app.isolate(this.placeOf(cell));
      } else if (edgeAt(this.scene.curves, this.scene.edges, x, y) < 0) this.app.isolate(null);
    });
    plot.addEventListener("keydown", (event) => this.key(event));
    plot.addEventListener("focus", () => {
      if (this.focus < 0 && this.scene) this.focusCell(this.firstCell());
      this.app.focused();
      this.paintOver();
    });
    plot.addEventListener("blur", this.paintOver);
  }

  /** What there is to be filled. */
  room() {
    const names = this.nameWidths();
    const width = Math.max(this.scroller.clientWidth - names.rows - names.groups, 120);
    return { width, height: Math.max(this.scroller.clientHeight - this.strip(width).height, 160) };
  }

  /** How wide the names of rows and layers are. */
  nameWidths() {
    const { data } = this.app;
    const narrow = this.scroller.clientWidth < NARROW;
    const widest = (/** @type {string[]} */ names, /** @type {number} */ most) =>
      Math.min(Math.max(...names.map((name) => this.wide(name)), 24), most);
    const groups = data.groups.length ? widest(this.groupNames(), narrow ? 56 : 110) + BESIDE : 0;
    const rows = widest(
      data.rows.map((_, row) => shortName(data, row)),
      narrow ? 72 : 150,
    );
    return { groups, rows: rows + 16 };
  }

  /** How wide a label is, even when it stands out. @param {string} text */
  wide(text) {
    this.ruler.font = `600 12px ${getComputedStyle(this.scroller).fontFamily}`;
    return this.ruler.measureText(text).width;
  }

  /** As much of a name as there is room for: its end, by which names differ. @param {string} name @param {number} room */
  fitted(name, room) {
    const width = this.wide(name);
    return width <= room ? name : ending(name, Math.max(Math.floor((room * name.length) / width), 2));
  }

  /** The layers' names without what they all begin with. */
  groupNames() {
    const names = this.app.data.groups.map(({ name }) => name);
    if (names.every((name) => name.length <= SHORT)) return names;
    let from = commonPrefix(names).length;
    // A bare number says little.
    if (names.some((name) => /^\d+$/.test(name.slice(from)))) from = names[0].lastIndexOf("/", from - 2) + 1;
    return names.map((name) => name.slice(from));
  }

  /** How high the strip of tokens is, and whether its labels stand upright. @param {number} width */
  strip(width) {
    const { data, state } = this.app;
    const longest = Math.max(...data.columns.map((_, c) => token(data, c).length));
    const upright = longest * 7 > columnWidth(data, width, state.zoom) - 4;
    const text = upright ? Math.min(longest, 12) * 6.8 + 12 : 26;
    return { upright, height: text + (data.sources ? 30 : 0) + (data.sources && !upright ? 6 : 0) };
  }

  /** @param {Scene} scene @param {State} state */
  render(scene, state) {
    const before = this.scene;
    this.scene = scene;
    if (!before || before.view !== scene.view || before.at !== scene.at) this.place(scene);
    if (this.focus < 0 || !scene.data.nodes.count) this.focus = -1;
    this.drawNames(scene, state);
    this.drawTokens(scene, state);
    this.paint();
    if (this.pointed.cell >= 0 || this.pointed.edge >= 0) this.unpoint();
  }

  /** @param {Scene} scene */
  place({ at }) {
    const names = this.nameWidths();
    const { clientWidth, clientHeight } = this.scroller;
    const { height: strip, upright } = this.strip(this.room().width);
    this.placed = { wide: clientWidth, high: clientHeight, upright };
    const style = this.scroller.style;
    style.gridTemplateColumns = `${names.groups + names.rows}px ${at.width}px`;
    style.gridTemplateRows = `${at.height}px ${strip}px`;
    this.rows.style.setProperty("--groups", `${names.groups}px`);
    const width = Math.min(clientWidth - names.groups - names.rows, at.width);
    const height = Math.min(clientHeight - strip, at.height);
    this.window.style.left = `${names.groups + names.rows}px`;
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.max(Math.round(width * dense), 1);
      canvas.height = Math.max(Math.round(height * dense), 1);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.window.style.width = `${width}px`;
    this.window.style.height = `${height}px`;
    // Paths begin at the bottom: what is there stays where it is.
    this.scroller.scrollTop = this.scroller.scrollHeight - clientHeight - this.fromBottom;
  }

  /**
   * Scroll to cells, if they are out of sight: to all that fit, the last of them first.
   * @param {number[]} list
   */
  reveal(list) {
    if (!this.scene || !list.length) return;
    const { at, view } = this.scene;
    const spots = list.map((cell) => spot(at, view, cell));
    const area = this.area();
    const xs = spots.filter(({ spans }) => !spans).map(({ x }) => x);
    const scroll = (/** @type {number[]} */ where, /** @type {number} */ from, /** @type {number} */ to) => {
      const [low, high] = [Math.min(...where) - MARGIN, Math.max(...where) + MARGIN];
      if (low >= from && high <= to) return from;
      return high - low <= to - from ? (low + high - (to - from)) / 2 : high - (to - from);
    };
    if (xs.length) this.scroller.scrollLeft = scroll(xs, area.left, area.right);
    this.scroller.scrollTop = scroll(
      spots.map(({ y }) => y),
      area.top,
      area.bottom,
    );
  }

  /** @param {Scene} scene @param {State} state */
  drawNames({ data, view, at }, state) {
    const widths = this.nameWidths();
    const groupNames = this.groupNames().map((name) => this.fitted(name, widths.groups - BESIDE));
    const { rows } = this;
    /** @type {HTMLElement[]} */
    const parts = [];
    view.rows.forEach(({ number: n, grouped, group }, row) => {
      const high = at.bottom[row] - at.top[row];
      const own = 2 * (at.bottom[row] - at.y[row]);
      if (group >= 0 && (row === 0 || view.rows[row - 1].group !== group)) {
        let last = row;
        while (last + 1 < view.rows.length && view.rows[last + 1].group === group) last++;
        parts.push(
          el(
            "div",
            {
              class: grouped ? "layer closed" : "layer",
              style: { top: `${at.top[last]}px`, height: `${at.bottom[row] - at.top[last]}px` },
            },
            el(
              "div",
              { class: "sticky", style: grouped ? { height: `${own}px`, marginTop: `${high - own}px` } : {} },
              el(
                "button",
                {
                  class: "fold",
                  type: "button",
                  "data-key": `fold ${group}`,
                  "aria-expanded": String(!grouped),
                  "aria-label": `${data.groups[group].name}: ${grouped ? "show its components" : "make it one row"}`,
                  title: grouped ? "Show its components" : "Make it one row",
                  onclick: () => this.app.fold(group),
                },
              ),
              this.nameButton(groupNames[group], place(group, "*", true), data.groups[group].name, state),
            ),
          ),
        );
      }
      if (grouped) return;
      const heading = el("div", { class: "row", style: { top: `${at.y[row] - own / 2}px`, height: `${own}px` } });
      if (own >= 11) {
        const shown = this.fitted(shortName(data, n), widths.rows - 16);
        heading.append(this.nameButton(shown, place(n, "*", false), data.rows[n].name, state));
      }
      parts.push(heading);
    });
    fill(rows, ...parts);
    stop(rows);
  }

  /** @param {string} text @param {string} at @param {string} title @param {State} state */
  nameButton(text, at, title, state) {
    const chosen = state.at === at || state.pins.includes(at);
    return el(
      "button",
      {
        class: "label",
        type: "button",
        title: `${title}: isolate what passes through it`,
        "data-key": at,
        "aria-pressed": String(chosen),
        onclick: () => this.app.isolate(at),
      },
      text,
    );
  }

  /** @param {Scene} scene @param {State} state */
  drawTokens({ data, at, reading }, state) {
    const flows = data.sources?.through[reading] ?? null;
    const most = flows ? Math.max(...flows.map((x) => (x !== null && Number.isFinite(x) ? Math.abs(x) : 0))) : 0;
    const asked = data.readings[reading];
    const { upright } = this.placed;
    const buttons = data.columns.map((_, column) => {
      const flow = flows?.[column] ?? null;
      const label = token(data, column);
      const size = flow === null || Number.isNaN(flow) ? 0 : part(flow, most) ** 2;
      const negative = asked.signed && (flow ?? 0) < 0;
      const starts = flows ? `: ${asked.name} ${weight(asked, flow)} starts here` : "";
      return el(
        "button",
        {
          class: upright ? "token upright" : "token",
          type: "button",
          "data-key": `token ${column}`,
          "aria-pressed": String(state.token === column),
          "aria-label": `${label}, token ${column + 1}${starts}`,
          title: `${label}${starts}`,
          style: { left: `${at.left + column * at.cell}px`, width: `${at.cell}px` },
          onclick: () => this.app.source(column),
        },
        data.sources
          ? el(
              "span",
              { class: "bar" },
              el("span", {
                class: negative ? "negative" : asked.signed ? "positive" : "",
                style: { height: `${Math.max(26 * size, flow ? 1 : 0)}px` },
              }),
            )
          : null,
        el("span", { class: "text" }, shortened(label, upright ? 13 : Math.max(Math.floor(at.cell / 6.2), 2))),
      );
    });
    fill(this.tokens, ...buttons);
    stop(this.tokens);
    const largestShare = shareOf(asked, most);
    fill(
      this.corner,
      el("span", {}, data.sources ? `${asked.name} that starts at each token` : "tokens"),
      data.sources && most
        ? el("span", { class: "quiet" }, `highest bar: ${largestShare === null ? number(most) : percent(largestShare)}`)
        : null,
    );
  }

  get colours() {
    return COLOURS[this.app.theme()];
  }

  area() {
    const { scrollLeft: left, scrollTop: top } = this.scroller;
    return { left, top, right: left + this.window.clientWidth, bottom: top + this.window.clientHeight };
  }

  /** Both canvases. */
  paint() {
    const { scene } = this;
    if (!scene) return;
    const pen = this.pen(this.base);
    const area = this.area();
    pen.fillStyle = this.colours.paper;
    pen.fillRect(area.left, area.top, area.right - area.left, area.bottom - area.top);
    drawGround(pen, scene, this.colours, area);
    drawEdges(pen, scene, this.colours, area);
    drawNodes(pen, scene, this.colours, area);
    this.paintOver();
  }

  /** What the reader points at or has chosen. */
  paintOver() {
    const { scene } = this;
    if (!scene) return;
    const { state, data } = this.app;
    const pen = this.pen(this.over);
    const { colours } = this;
    const story = this.previewed ?? state.story;
    this.base.classList.toggle("dim", story !== null);
    if (story !== null) drawStory(pen, scene, colours, data.stories[story].nodes);
    const { cell, edge } = this.pointed;
    if (cell >= 0) {
      const { edges } = scene;
      /** @type {number[]} */
      const near = [];
      for (let e = 0; e < edges.count; e++) {
        if (edges.passes[e] && (edges.tail[e] === cell || edges.head[e] === cell)) near.push(e);
      }
      drawPointed(pen, scene, colours, near);
      drawRing(pen, scene, cell, colours.ink, { width: 1.5 });
    } else if (edge >= 0 && edge < scene.edges.count) drawPointed(pen, scene, colours, [edge]);
    for (const pin of state.pins) {
      for (const at of this.cellsOf(pin)) drawRing(pen, scene, at, colours.mark, { width: 2.5, dash: [3, 2] });
    }
    if (state.at) for (const at of this.cellsOf(state.at)) drawRing(pen, scene, at, colours.mark, { width: 2.5 });
    if (this.focus >= 0 && document.activeElement === this.plot && this.plot.matches(":focus-visible")) {
      drawRing(pen, scene, scene.view.of[this.focus], colours.ink, { wider: 6, width: 2 });
    }
  }

  /** A clean canvas's pen, in the sheet's coordinates. @param {HTMLCanvasElement} canvas */
  pen(canvas) {
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const dense = canvas.width / (Number.parseFloat(canvas.style.width) || 1);
    const { left, top } = this.area();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(dense, 0, 0, dense, -left * dense, -top * dense);
    return pen;
  }

  /** The cells of a place, of whole rows too. @param {string} at */
  cellsOf(at) {
    const view = this.scene?.view;
    return view ? [...new Set(this.app.nodesAt(at).map((node) => view.of[node]))] : [];
  }

  /** @param {number} cell */
  placeOf(cell) {
    const { view } = /** @type {Scene} */ (this.scene);
    const { number: n, grouped } = view.rows[Math.floor(cell / view.stride)];
    return place(n, (cell % view.stride) - 1, grouped);
  }

  /** Where the pointer is on the sheet. @param {MouseEvent} event */
  position(event) {
    const box = this.plot.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** @param {PointerEvent} event */
  point(event) {
    const { scene } = this;
    if (!scene) return;
    const { x, y } = this.position(event);
    const cell = cellAt(scene.at, scene.view, x, y);
    const edge = cell < 0 ? edgeAt(scene.curves, scene.edges, x, y) : -1;
    this.plot.classList.toggle("over-node", cell >= 0);
    if (cell !== this.pointed.cell || edge !== this.pointed.edge) {
      this.pointed = { cell, edge };
      this.name(cell >= 0 ? [cell] : edge >= 0 ? [scene.edges.tail[edge], scene.edges.head[edge]] : []);
      this.app.later(this.paintOver);
      this.tip.hidden = cell < 0 && edge < 0;
      if (!this.tip.hidden) fill(this.tip, ...card(cell >= 0 ? describeCell(scene, cell) : describeEdge(scene, edge)));
    }
    if (!this.tip.hidden) this.moveTip(event.clientX, event.clientY);
  }

  /** Make the names of cells' rows and tokens stand out. @param {number[]} list */
  name(list) {
    for (const before of this.scroller.querySelectorAll(".here")) before.classList.remove("here");
    if (!this.scene) return;
    const { view } = this.scene;
    for (const cell of list) {
      const { number: n, grouped } = view.rows[Math.floor(cell / view.stride)];
      const column = (cell % view.stride) - 1;
      this.rows.querySelector(`[data-key="${place(n, "*", grouped)}"]`)?.classList.add("here");
      this.tokens.querySelector(`[data-key="token ${column}"]`)?.classList.add("here");
    }
  }

  /** Beside the pointer, and on the screen. @param {number} x @param {number} y */
  moveTip(x, y) {
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const left = x + 16 + width > window.innerWidth ? x - 16 - width : x + 16;
    const top = y + 16 + height > window.innerHeight ? y - 12 - height : y + 16;
    this.tip.style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
  }

  unpoint() {
    this.pointed = { cell: -1, edge: -1 };
    this.name([]);
    this.tip.hidden = true;
    this.plot.classList.remove("over-node");
    this.app.later(this.paintOver);
  }

  /** Scroll to the story or the place that is chosen. */
  revealChosen() {
    if (!this.scene) return;
    const { state, data } = this.app;
    if (state.story !== null) this.reveal(storyCells(this.scene.view, data.stories[state.story].nodes));
    else if (state.at) this.reveal(this.cellsOf(state.at));
  }

  /** @param {number | null} story */
  preview(story) {
    this.previewed = story;
    this.app.later(this.paintOver);
  }

  /** The lowest node of the first token. */
  firstCell() {
    const members = this.scene?.view.members ?? [];
    const found = members.findIndex((list, cell) => list.length > 0 && cell % (this.scene?.view.stride ?? 1) > 0);
    return found >= 0 ? found : members.findIndex((list) => list.length > 0);
  }

  /** @param {number} cell */
  focusCell(cell) {
    if (!this.scene || cell < 0) return;
    const { view, at } = this.scene;
    this.focus = view.members[cell][0];
    const slot = cell % view.stride;
    if (slot) this.slot = slot;
    const y = at.y[Math.floor(cell / view.stride)];
    const x = slot ? at.left + (slot - 0.5) * at.cell : null;
    const area = this.area();
    if (y - MARGIN < area.top) this.scroller.scrollTop = y - MARGIN;
    if (y + MARGIN > area.bottom) this.scroller.scrollTop += y + MARGIN - area.bottom;
    if (x !== null && x - MARGIN < area.left) this.scroller.scrollLeft = x - MARGIN;
    if (x !== null && x + MARGIN > area.right) this.scroller.scrollLeft += x + MARGIN - area.right;
    byId("live").textContent = spoken(describeCell(this.scene, cell));
    this.app.focused();
    this.app.later(this.paintOver);
  }

  /** The cell that the keyboard is at; −1: none. */
  focusedCell() {
    return this.scene && this.focus >= 0 ? this.scene.view.of[this.focus] : -1;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.scene) return;
    const cell = this.focusedCell();
    const steps = /** @type {Record<string, [number, number]>} */ ({
      ArrowUp: [1, 0],
      ArrowDown: [-1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    });
    if (event.key in steps) {
      event.preventDefault();
      const [up, right] = steps[event.key];
      const next = event.shiftKey && up ? this.along(cell, up) : this.next(cell, up, right);
      if (next >= 0) this.focusCell(next);
    } else if (event.key === "Enter" && cell >= 0) {
      event.preventDefault();
      this.app.isolate(this.placeOf(cell));
    } else if (event.key === "p" && cell >= 0) this.app.pin(this.placeOf(cell));
    else if (event.key === "g" && cell >= 0) {
      const { group } = this.scene.view.rows[Math.floor(cell / this.scene.view.stride)];
      if (group >= 0) this.app.fold(group);
    }
  }

  /**
   * The next cell with a node that way; −1: none.
   * @param {number} cell @param {number} up @param {number} right
   */
  next(cell, up, right) {
    const { members, stride, rows } = /** @type {Scene} */ (this.scene).view;
    let row = Math.floor(cell / stride);
    if (right) {
      const row0 = row * stride;
      for (let slot = (cell % stride) + right; slot > 0 && slot < stride; slot += right) {
        if (members[row0 + slot].length) return row0 + slot;
      }
      return -1;
    }
    for (row += up; row >= 0 && row < rows.length; row += up) {
      for (const slot of [this.slot, 0]) if (members[row * stride + slot].length) return row * stride + slot;
    }
    return -1;
  }

  /**
   * Along the largest edge up or down; −1: none is shown.
   * @param {number} cell @param {number} up
   */
  along(cell, up) {
    const { edges } = /** @type {Scene} */ (this.scene);
    const [near, far] = up > 0 ? [edges.tail, edges.head] : [edges.head, edges.tail];
    let best = -1;
    for (let e = 0; e < edges.count; e++) {
      if (near[e] !== cell || !edges.passes[e] || Number.isNaN(edges.weight[e])) continue;
      if (best < 0 || Math.abs(edges.weight[e]) > Math.abs(edges.weight[best])) best = e;
    }
    return best < 0 ? -1 : far[best];
  }
}
