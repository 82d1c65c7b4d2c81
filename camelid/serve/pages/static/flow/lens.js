// Stage 2, first picture: what each layer would say if it were the last one, for each position (logit lens).

import { make, percent, quoted, short, visible, whole } from "./make.js";

const COLUMNS = 10; // positions beside each other

/**
 * @typedef {import("./tree.js").Place} Place
 * @typedef {import("./server.js").Lens} Lens
 */

/** The positions that have a column: those of before, moved no further than it takes to have the chosen one among them.
 * @param {number} length @param {number} position @param {number} [first] of before; else the last ones are shown */
function shownPositions(length, position, first = length) {
  const near = Math.max(position - COLUMNS + 1, Math.min(position, first));
  const start = Math.max(0, Math.min(length - COLUMNS, near));
  return Array.from({ length: Math.min(COLUMNS, length) }, (_, at) => start + at);
}

/** The table of layers × positions. Arrow keys walk over it; the cell that is walked to is the one chosen. */
export class LensTable {
  /** @param {HTMLTableElement} table @param {(layer: number, position: number) => void} pick */
  constructor(table, pick) {
    this.table = table;
    this.pick = pick;
    this.layer = 0;
    this.position = 0;
    /** @type {number[]} */
    this.positions = [];
    table.addEventListener("keydown", (event) => this.#walk(event));
    table.addEventListener("click", (event) => {
      const cell = /** @type {HTMLElement} */ (event.target).closest("td[data-layer]");
      if (cell instanceof HTMLElement) this.#choose(Number(cell.dataset.layer), Number(cell.dataset.position));
    });
  }

  /** @param {Place} place @param {number} layer @param {number} position @param {boolean} rises let the rows come in one by one */
  show(place, layer, position, rises) {
    const { tokens, shape } = place.stage;
    this.layer = layer;
    this.position = position;
    this.positions = shownPositions(tokens.length, position, rises ? undefined : this.positions[0]);
    this.table.style.setProperty("--columns", String(this.positions.length));
    const head = this.positions.map((at) =>
      make("th", { scope: "col", class: at === position ? "flow-chosen" : "", text: short(tokens[at].piece) }),
    );
    const body = Array.from({ length: shape.n_layers }, (_, row) => {
      const cells = this.positions.map((at) => make("td", { "data-layer": row, "data-position": at, role: "gridcell" }));
      const line = make("tr", { class: rises ? "flow-rise" : "" }, [
        make("th", { scope: "row", text: row + 1 }),
        ...cells,
        make("td", { class: "flow-added" }, [make("span", { class: "flow-by-attention" }), make("span", { class: "flow-by-feed-forward" })]),
      ]);
      line.style.animationDelay = `${row * 22}ms`;
      return line;
    });
    const corner = make("th", { scope: "col", text: "layer" });
    const added = make("th", { scope: "col", class: "flow-added", text: "adds", title: "how much attention (upper) and feed-forward (lower) add; roots, so that small ones show" });
    this.table.tHead?.replaceChildren(make("tr", {}, [corner, ...head, added]));
    this.table.tBodies[0].replaceChildren(...body);
    for (const at of this.positions) this.fill(place.lens(at));
    this.#mark();
    this.#showAdded(place.lens(position));
    const box = this.table.parentElement;
    if (box && rises) box.scrollLeft = box.scrollWidth; // the chosen position is the last
  }

  /** Fill the column of a position, if it is shown. @param {Lens | undefined} lens */
  fill(lens) {
    if (!lens) return;
    lens.layers.forEach(({ top: [[piece, probability]], entropy }, layer) => {
      const cell = this.#cell(layer, lens.position);
      if (!cell) return;
      const says = `${quoted({ piece })} ${percent(probability)}`;
      cell.textContent = short(piece);
      cell.style.setProperty("--share", String(probability));
      cell.title = `layer ${layer + 1}: ${says}, ${entropy.toFixed(1)} bits open`;
      cell.setAttribute("aria-label", `layer ${layer + 1} says ${says}`);
    });
    if (lens.position === this.position) this.#showAdded(lens);
  }

  /** @param {Lens | undefined} lens */
  #showAdded(lens) {
    const most = Math.max(...(lens?.layers.flatMap((one) => [one.attention, one.feed_forward]) ?? [1]));
    const width = (/** @type {number | undefined} */ length) => `${100 * Math.sqrt((length ?? 0) / most)}%`;
    this.table.querySelectorAll("td.flow-added").forEach((cell, layer) => {
      const added = lens?.layers[layer];
      const [attention, feedForward] = /** @type {HTMLCollectionOf<HTMLElement>} */ (cell.children);
      attention.style.width = width(added?.attention);
      feedForward.style.width = width(added?.feed_forward);
      if (added) cell.setAttribute("aria-label", `attention adds ${added.attention}, feed-forward ${added.feed_forward}`);
    });
  }

  /** @param {number} layer @param {number} position @returns {HTMLElement | null} */
  #cell(layer, position) {
    return this.table.querySelector(`td[data-layer="${layer}"][data-position="${position}"]`);
  }

  #mark() {
    this.table.querySelectorAll("td[data-layer]").forEach((cell) => {
      const { layer, position } = /** @type {HTMLElement} */ (cell).dataset;
      const chosen = Number(layer) === this.layer && Number(position) === this.position;
      cell.setAttribute("tabindex", chosen ? "0" : "-1");
      cell.setAttribute("aria-selected", String(chosen));
      cell.classList.toggle("flow-line", Number(layer) === this.layer || Number(position) === this.position);
    });
    this.table.querySelectorAll("tbody tr").forEach((row, at) => row.classList.toggle("flow-chosen", at === this.layer));
  }

  /** @param {number} layer @param {number} position */
  #choose(layer, position) {
    this.pick(layer, position);
    this.#cell(layer, position)?.focus();
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const layers = this.table.tBodies[0].rows.length;
    const last = this.positions.length ? this.positions[this.positions.length - 1] : 0;
    const moves = /** @type {Record<string, [number, number]>} */ ({
      ArrowUp: [this.layer - 1, this.position],
      ArrowDown: [this.layer + 1, this.position],
      ArrowLeft: [this.layer, this.position - 1],
      ArrowRight: [this.layer, this.position + 1],
      Home: [0, this.position],
      End: [layers - 1, this.position],
    });
    const to = moves[event.key];
    if (!to || !(event.target instanceof HTMLTableCellElement)) return;
    event.preventDefault();
    const [layer, position] = to;
    if (layer >= 0 && layer < layers && position >= 0 && (position <= last || event.key !== "ArrowRight")) {
      this.#choose(layer, position);
    }
  }
}

/** The chosen cell in words. @param {Place} place @param {number} layer @param {number} position @param {HTMLElement} into */
export function tellLens(place, layer, position, into) {
  const one = place.lens(position)?.layers[layer];
  const where = `If layer ${layer + 1} were the last, then after ${quoted(place.stage.tokens[position])} would come `;
  if (!one) {
    into.textContent = `${where}…`;
    return;
  }
  const said = one.top.flatMap(([piece, probability], at) => [
    at ? ", " : "",
    make("b", { text: visible(piece) }),
    ` ${percent(probability)}`,
  ]);
  const equal = 2 ** one.entropy;
  const many = equal < 10 ? equal.toFixed(1) : whole(Math.round(equal));
  const open = `. That leaves ${one.entropy.toFixed(1)} bits open, as a choice among ${many} equally likely tokens would. `;
  const { attention, feed_forward: feedForward, stream } = one;
  const added = `Attention added a vector of length ${attention.toFixed(1)}, feed-forward one of ${feedForward.toFixed(1)}, to what is now ${stream.toFixed(1)} long.`;
  into.replaceChildren(where, ...said, open, make("span", { class: "muted", text: added }));
}
