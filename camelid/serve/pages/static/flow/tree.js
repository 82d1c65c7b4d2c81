// What has been written, as a tree: every token hangs on the one before it, and any point can be gone on from.

import { make, percent, quoted, visible } from "./make.js";

/**
 * @typedef {import("./server.js").Stage} Stage
 * @typedef {import("./server.js").Lens} Lens
 * @typedef {import("./server.js").Chosen} Chosen
 */

/** A place in the tree: the prompt, or one token written after it. */
export class Place {
  /** @param {Stage} stage @param {Place | null} parent @param {Chosen | null} chosen @param {string} how */
  constructor(stage, parent = null, chosen = null, how = "") {
    this.stage = stage;
    this.parent = parent;
    this.chosen = chosen;
    this.how = how;
    /** @type {Place[]} */
    this.children = [];
    /** @type {Map<number, import("./server.js").Attention>} a layer's attention */
    this.attention = new Map();
    /** @type {Map<number, Lens>} of positions before this place's own */
    this.lenses = new Map([[stage.lens.position, stage.lens]]);
    /** @type {Set<number>} positions whose lens has been asked for */
    this.pending = new Set();
  }

  /** The place that a token leads to: the one already there, or a new branch.
   * @param {Stage} stage @param {Chosen} chosen @param {string} how */
  grow(stage, chosen, how) {
    const there = this.children.find((child) => child.chosen?.id === chosen.id);
    if (there) {
      there.stage = stage;
      return there;
    }
    const child = new Place(stage, this, chosen, how);
    this.children.push(child);
    return child;
  }

  /** From the prompt to here. @returns {Place[]} */
  path() {
    return [...(this.parent ? this.parent.path() : []), this];
  }

  /** The lens after a position, if it is known: those of tokens before do not change with what follows.
   * @param {number} position @returns {Lens | undefined} */
  lens(position) {
    return this.lenses.get(position) ?? this.parent?.lens(position);
  }
}

/**
 * Draw the tree: a line for each branch, which begins under the token it departs from.
 * @param {HTMLElement} list an <ol>
 * @param {Place} root
 * @param {Place} current
 * @param {(place: Place) => void} go
 */
export function showTree(list, root, current, go) {
  const path = new Set(current.path());
  const lines = /** @type {HTMLElement[]} */ ([]);

  /** @param {Place} first @param {number} indent */
  const line = (first, indent) => {
    const item = make("li", { class: "flow-branch" });
    if (indent) item.style.paddingLeft = `${indent}ch`;
    if (first.parent) item.append(make("span", { class: "flow-turn", "aria-hidden": "true", text: "↳" }));
    lines.push(item);
    const later = /** @type {[Place, number][]} */ ([]);
    let width = indent + (first.parent ? 2 : 0);
    for (let place = /** @type {Place | undefined} */ (first); place; place = place.children[0]) {
      const here = place;
      const text = here.chosen ? written(here.chosen.piece) : beginning(here.stage);
      item.append(
        make("button", {
          type: "button",
          class: path.has(here) ? "flow-node flow-on-path" : "flow-node",
          "aria-current": here === current ? "step" : undefined,
          "aria-label": here.chosen ? `back to after ${quoted(here.chosen)}, ${origin(here)}` : "back to the prompt",
          title: here.chosen ? `${origin(here)}` : "the text you gave",
          text,
          onclick: () => go(here),
        }),
      );
      width += [...text].length;
      for (const branch of here.children.slice(1)) later.push([branch, width]);
    }
    for (const [branch, at] of later.reverse()) line(branch, at);
  };

  line(root, 0);
  list.replaceChildren(...lines);
  list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** A piece as it stands in the text: spaces that keep their width, and no line ends. @param {string} piece */
const written = (piece) => visible(piece).replaceAll("␣", "\u00a0");

/** The prompt's last tokens. @param {Stage} stage */
function beginning({ tokens, n_prompt }) {
  const shown = tokens.slice(Math.max(0, n_prompt - 4), n_prompt);
  return `${n_prompt > 4 ? "…" : ""}${shown.map((token) => written(token.piece)).join("")}`;
}

/** @param {Place} place */
function origin(place) {
  const probability = place.chosen ? percent(place.chosen.probability) : "";
  return `${place.how}, ${probability}`;
}
