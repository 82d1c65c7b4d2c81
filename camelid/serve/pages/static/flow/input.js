// Stage 1: text has become tokens, tokens vectors, and each position turns its vectors by its own angles.

import { chip, draw, make, property, quoted } from "./make.js";

const CLOCKS = 3;
const ROW = 30; // pixels; the stylesheet's --flow-row
const ARCS = 44;

/** @typedef {import("./server.js").Stage} Stage */

/**
 * @param {HTMLElement} list an <ol>
 * @param {Stage} stage
 * @param {number} known how many tokens were there before: the others come in with a motion
 * @param {(position: number) => void} pick
 */
export function showInput(list, stage, known, pick) {
  const levels = Int8Array.from(atob(stage.embedding.levels), (letter) => letter.charCodeAt(0));
  const width = stage.embedding.width;
  const kept = Math.min(known, list.children.length);
  while (list.children.length > kept) list.lastElementChild?.remove();
  stage.tokens.slice(kept).forEach((token, index) => {
    const position = kept + index;
    const strip = /** @type {HTMLCanvasElement} */ (make("canvas", { class: "flow-strip", "aria-hidden": "true" }));
    strip.width = width;
    strip.height = 1;
    const row = make(
      "button",
      {
        type: "button",
        class: "flow-token",
        "aria-pressed": "false",
        "aria-label": `position ${position}: ${quoted(token)}, id ${token.id}`,
        title: tellEmbedding(stage, position, levels),
        onclick: () => pick(position),
      },
      [
        make("span", { class: "flow-position", text: position }),
        chip(token, position),
        make("span", { class: "flow-id", text: token.id }),
        strip,
        clocks(stage.frequencies, position),
      ],
    );
    const item = make("li", { class: "flow-enter" }, [row]);
    item.style.animationDelay = `${Math.min(index, 24) * 35}ms`;
    list.append(item);
    paintStrip(strip, levels.subarray(position * width, (position + 1) * width));
  });
}

/** An embedding in numbers. @param {Stage} stage @param {number} position @param {Int8Array} levels */
function tellEmbedding({ embedding, shape }, position, levels) {
  const first = [...levels.subarray(position * embedding.width, position * embedding.width + 4)];
  const numbers = first.map((level) => ((level / 127) * embedding.scale).toFixed(3));
  return `(${numbers.join(", ")}, …): ${shape.dim} numbers, together of length ${embedding.norms[position].toFixed(2)}`;
}

/** Paint all strips anew, after the colours have changed. @param {HTMLElement} list @param {Stage} stage */
export function repaintStrips(list, stage) {
  const levels = Int8Array.from(atob(stage.embedding.levels), (letter) => letter.charCodeAt(0));
  const width = stage.embedding.width;
  list.querySelectorAll("canvas").forEach((strip, position) => {
    paintStrip(strip, levels.subarray(position * width, (position + 1) * width));
  });
}

/** One colour for numbers above zero, one for those below. @param {HTMLCanvasElement} strip @param {Int8Array} levels */
function paintStrip(strip, levels) {
  const context = /** @type {CanvasRenderingContext2D} */ (strip.getContext("2d"));
  const above = property(strip, "--flow-above");
  const below = property(strip, "--flow-below");
  context.clearRect(0, 0, strip.width, 1);
  levels.forEach((level, at) => {
    context.globalAlpha = Math.min(1, (Math.abs(level) / 127) ** 0.6 * 1.15);
    context.fillStyle = level < 0 ? below : above;
    context.fillRect(at, 0, 1, 1);
  });
}

/** Hands of clocks that run at different speeds: how far rotary embedding turns some pairs at a position.
 * @param {number[]} frequencies radians per position @param {number} position */
function clocks(frequencies, position) {
  const parts = [];
  for (let clock = 0; clock < CLOCKS; clock++) {
    const angle = position * frequencies[Math.floor((clock * frequencies.length) / (2 * CLOCKS))];
    const x = 8 + clock * 18;
    parts.push(draw("circle", { cx: x, cy: 8, r: 7 }));
    parts.push(draw("line", { x1: x, y1: 8, x2: x + 6 * Math.sin(angle), y2: 8 - 6 * Math.cos(angle) }));
  }
  return draw("svg", { class: "flow-clocks", viewBox: `0 0 ${18 * CLOCKS - 2} 16`, "aria-hidden": "true" }, parts);
}

/** Mark the chosen position. @param {HTMLElement} list @param {number} position */
export function markPosition(list, position) {
  list.querySelectorAll(".flow-token").forEach((row, at) => {
    row.setAttribute("aria-pressed", String(at === position));
  });
}

/**
 * Arcs from the chosen position to those it looks at.
 * @param {SVGElement} svg
 * @param {number} position
 * @param {(to: number) => number} weight
 */
export function showArcs(svg, position, weight) {
  const arcs = [];
  for (let to = 0; to <= position; to++) {
    const share = weight(to);
    if (share < 0.01) continue;
    const from = position * ROW + ROW / 2;
    const end = to * ROW + ROW / 2;
    const reach = Math.min(ARCS - 6, 10 + (from - end) / 5);
    const path =
      to === position
        ? `M ${ARCS} ${from - 4} C ${ARCS - 16} ${from - 10}, ${ARCS - 16} ${from + 10}, ${ARCS} ${from + 4}`
        : `M ${ARCS} ${from} C ${ARCS - reach * 1.3} ${from}, ${ARCS - reach * 1.3} ${end}, ${ARCS} ${end}`;
    arcs.push(draw("path", { d: path, "stroke-width": (0.75 + 5 * share).toFixed(2), "stroke-opacity": (0.25 + 0.75 * share).toFixed(2) }));
  }
  svg.setAttribute("height", String((position + 1) * ROW));
  svg.replaceChildren(...arcs);
}
