// Stage 2, second picture: how much each position looks at each earlier one, for every head of a layer.

import { make, property, quoted, short, visible } from "./make.js";

const LABELLED = 28; // up to so many tokens have their names on the axes
const MARGIN = 64; // pixels for them …
const OVERHANG = 22; // … and for the end of the last one, which leans to the right

/** A weight of which a byte is known, as text. @param {number} share */
const told = (share) => (share < 1 / 510 ? "< 0.2 %" : `${(100 * share).toFixed(share < 0.9995 ? 1 : 0)} %`);

/**
 * @typedef {import("./server.js").Attention} Attention
 * @typedef {import("./make.js").Token} Token
 */

/** Heads as small pictures, one of them large; the cell under pointer or cursor is told in words. */
export class AttentionMap {
  /**
   * @param {{heads: HTMLElement, canvas: HTMLCanvasElement, reading: HTMLElement, looks: HTMLElement}} parts
   * @param {(head: number) => void} pickHead
   * @param {(position: number) => void} pickPosition
   */
  constructor(parts, pickHead, pickPosition) {
    Object.assign(this, parts);
    this.heads = parts.heads;
    this.canvas = parts.canvas;
    this.reading = parts.reading;
    this.looks = parts.looks;
    this.pickHead = pickHead;
    /** @type {Attention | null} */
    this.weights = null;
    /** @type {Token[]} */
    this.tokens = [];
    this.head = 0;
    this.layer = 0;
    this.position = 0;
    this.cursor = [0, 0];
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.#tell([this.position, this.#strongest()]));
    this.canvas.addEventListener("click", (event) => pickPosition(this.#under(event)[0]));
    this.canvas.addEventListener("keydown", (event) => this.#walk(event));
    this.canvas.addEventListener("blur", () => this.paint());
    this.heads.addEventListener("keydown", (event) => this.#walkHeads(event));
  }

  /** @param {Attention} weights @param {Token[]} tokens @param {number} heads @param {number} layer @param {number} head @param {number} position */
  show(weights, tokens, heads, layer, head, position) {
    Object.assign(this, { weights, tokens, layer, head, position });
    if (this.heads.children.length !== heads) this.#makeHeads(heads);
    [...this.heads.children].forEach((button, at) => {
      button.setAttribute("aria-checked", String(at === head));
      button.setAttribute("tabindex", at === head ? "0" : "-1");
      this.#paintSmall(/** @type {HTMLCanvasElement} */ (button.firstElementChild), at);
    });
    this.paint();
    this.#showLooks();
    this.#tell([position, this.#strongest()]);
  }

  /** The large picture. */
  paint() {
    if (!this.weights) return;
    const { canvas, tokens } = this;
    const size = Math.max(220, Math.min(440, canvas.parentElement?.clientWidth ?? 440));
    const dots = devicePixelRatio;
    const edge = tokens.length <= LABELLED ? MARGIN : 4;
    canvas.width = canvas.height = Math.round(size * dots);
    canvas.style.width = canvas.style.height = `${size}px`;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(dots, dots);
    const cell = (size - edge - (edge === MARGIN ? OVERHANG : 0)) / tokens.length;
    this.grid = { edge, cell };
    paintCells(context, canvas, tokens.length, edge, cell, (from, to) => this.#weight(from, to));
    if (edge === MARGIN) this.#paintNames(context, edge, cell);
    context.strokeStyle = property(canvas, "--flow-ink");
    context.lineWidth = 1.5;
    context.strokeRect(edge, edge + this.position * cell, (this.position + 1) * cell, cell);
    if (document.activeElement === canvas) {
      const [from, to] = this.cursor;
      context.lineWidth = 3;
      context.strokeRect(edge + to * cell, edge + from * cell, cell, cell);
    }
  }

  /** How much the chosen position looks at another, with the chosen head. @param {number} to */
  look(to) {
    return this.#weight(this.position, to);
  }

  /** @param {number} from @param {number} to */
  #weight(from, to) {
    return this.weights?.weight(this.head, from, to) ?? 0;
  }

  /** @param {number} heads */
  #makeHeads(heads) {
    const buttons = Array.from({ length: heads }, (_, head) => {
      const picture = make("canvas", { width: 48, height: 48, "aria-hidden": "true" });
      return make(
        "button",
        { type: "button", role: "radio", class: "flow-head", "aria-label": `head ${head + 1}`, title: `head ${head + 1}`, onclick: () => this.pickHead(head) },
        [picture],
      );
    });
    this.heads.replaceChildren(...buttons);
  }

  /** @param {HTMLCanvasElement} canvas @param {number} head */
  #paintSmall(canvas, head) {
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const length = this.tokens.length;
    context.clearRect(0, 0, canvas.width, canvas.height);
    paintCells(context, canvas, length, 0, canvas.width / length, (from, to) => this.weights?.weight(head, from, to) ?? 0);
  }

  /** @param {CanvasRenderingContext2D} context @param {number} edge @param {number} cell */
  #paintNames(context, edge, cell) {
    context.fillStyle = property(this.canvas, "--flow-ink");
    context.font = `${Math.min(12, Math.max(8, cell * 0.62))}px ui-monospace, monospace`;
    context.textBaseline = "middle";
    this.tokens.forEach((token, at) => {
      const name = short(token.piece).slice(0, 9);
      const middle = edge + (at + 0.5) * cell;
      context.textAlign = "right";
      context.fillText(name, edge - 6, middle);
      context.save();
      context.translate(middle, edge - 6);
      context.rotate(-Math.PI / 3);
      context.textAlign = "left";
      context.fillText(name, 0, 0);
      context.restore();
    });
  }

  /** The position that the chosen one looks at most. */
  #strongest() {
    let best = 0;
    for (let to = 0; to <= this.position; to++) if (this.look(to) > this.look(best)) best = to;
    return best;
  }

  #showLooks() {
    const looks = this.tokens.slice(0, this.position + 1).map((token, to) => ({ token, to, share: this.look(to) }));
    looks.sort((one, other) => other.share - one.share);
    const rows = looks.slice(0, 6).map(({ token, to, share }) => {
      const bar = make("span", { class: "flow-bar" });
      bar.style.width = `${100 * share}%`;
      return make("tr", {}, [
        make("th", { scope: "row" }, [visible(token.piece), make("span", { class: "flow-place", text: ` ${to}` })]),
        make("td", { class: "flow-bars" }, [bar]),
        make("td", { class: "flow-number", text: told(share) }),
      ]);
    });
    this.looks.replaceChildren(...rows);
  }

  /** @param {number[]} cell */
  #tell([from, to]) {
    this.cursor = [from, to];
    if (!this.tokens[from] || !this.tokens[to]) return;
    const share = told(this.#weight(from, to));
    const said = `${quoted(this.tokens[from])} looks at ${quoted(this.tokens[to])}: ${share}`;
    this.reading.textContent = said;
    this.canvas.setAttribute("aria-label", `attention of head ${this.head + 1} in layer ${this.layer + 1}; ${said}`);
  }

  /** @param {PointerEvent | MouseEvent} event */
  #under(event) {
    const { edge, cell } = this.grid ?? { edge: 0, cell: 1 };
    const last = this.tokens.length - 1;
    const at = (/** @type {number} */ offset) => Math.max(0, Math.min(last, Math.floor((offset - edge) / cell)));
    return [at(event.offsetY), at(event.offsetX)];
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const [from, to] = this.#under(event);
    this.#tell([from, Math.min(to, from)]);
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const [from, to] = this.cursor;
    const moves = /** @type {Record<string, number[]>} */ ({
      ArrowUp: [from - 1, Math.min(to, from - 1)],
      ArrowDown: [from + 1, to],
      ArrowLeft: [from, to - 1],
      ArrowRight: [from, Math.min(to + 1, from)],
    });
    const cell = moves[event.key];
    if (!cell) return;
    event.preventDefault();
    if (cell[0] >= 0 && cell[0] < this.tokens.length && cell[1] >= 0) this.#tell(cell);
    this.paint();
  }

  /** @param {KeyboardEvent} event */
  #walkHeads(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const heads = this.heads.children.length;
    const head = (this.head + by + heads) % heads;
    this.pickHead(head);
    /** @type {HTMLElement} */ (this.heads.children[head]).focus();
  }
}

/**
 * Squares for all pairs: the stronger the look, the fuller the colour (by its root, so that weak looks show).
 * @param {CanvasRenderingContext2D} context
 * @param {HTMLCanvasElement} canvas
 * @param {number} length
 * @param {number} edge
 * @param {number} cell
 * @param {(from: number, to: number) => number} weight
 */
function paintCells(context, canvas, length, edge, cell, weight) {
  const gap = cell > 8 ? 1 : 0;
  const side = Math.max(cell - gap, 0.5);
  context.fillStyle = property(canvas, "--flow-empty");
  for (let from = 0; from < length; from++) context.fillRect(edge, edge + from * cell, (from + 1) * cell - gap, side);
  context.fillStyle = property(canvas, "--flow-heat");
  for (let from = 0; from < length; from++) {
    for (let to = 0; to <= from; to++) {
      context.globalAlpha = Math.sqrt(weight(from, to));
      context.fillRect(edge + to * cell, edge + from * cell, side, side);
    }
  }
  context.globalAlpha = 1;
}
