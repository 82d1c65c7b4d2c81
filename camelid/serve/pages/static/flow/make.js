// Small things that every stage of the Flow page uses: elements, token chips, numbers as text.

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {{id: number, piece: string, bytes: string, control: boolean, ends: boolean}} Token */

/**
 * An element with properties (`class`, `text`, `data-…`, `aria-…`, `onclick` …) and children.
 * @param {string} tag
 * @param {Record<string, unknown>} [properties]
 * @param {(Node | string)[]} [children]
 * @returns {HTMLElement}
 */
export function make(tag, properties = {}, children = []) {
  const element = document.createElement(tag);
  fill(element, properties);
  element.append(...children);
  return element;
}

/** The same in SVG. @param {string} tag @param {Record<string, unknown>} [properties] @param {Node[]} [children] */
export function draw(tag, properties = {}, children = []) {
  const element = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  fill(element, properties);
  element.append(...children);
  return element;
}

/** @param {Element} element @param {Record<string, unknown>} properties */
function fill(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = String(value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** A piece with spaces and line ends made visible. @param {string} piece */
export function visible(piece) {
  return piece.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

/** The same without the space that most tokens begin with, for narrow places. @param {string} piece */
export const short = (piece) => visible(/^ \S/.test(piece) ? piece.slice(1) : piece);

/** A token as a coloured chip, its spaces faint. @param {Token} token @param {number} position */
export function chip(token, position) {
  const parts = visible(token.piece).split(/([␣⏎⇥∅])/);
  const children = parts.filter(Boolean).map((part) =>
    "␣⏎⇥∅".includes(part) ? make("span", { class: "flow-space", text: part }) : part,
  );
  const kind = token.control ? "flow-chip flow-control" : `flow-chip flow-hue-${position % 6}`;
  return make("span", { class: kind, title: `id ${token.id}, bytes ${token.bytes || "none"}` }, children);
}

/** A token in a sentence. @param {{piece: string}} token */
export const quoted = (token) => `‹${visible(token.piece)}›`;

/** A share as per cent, with as many digits as say something. @param {number} share */
export function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0\u00a0%";
  if (value < 0.01) return "<\u00a00.01\u00a0%";
  return `${value.toFixed(value < 1 ? 2 : value < 99.95 ? 1 : 0)}\u00a0%`;
}

/** A whole number with its thousands apart. @param {number} value */
export const whole = (value) => value.toLocaleString("en");

/** Whether motion is welcome. */
export const moves = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A custom property's value, resolved for this element. @param {Element} element @param {string} name */
export const property = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();
