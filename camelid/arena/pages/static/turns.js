// The questions and their pairs of answers. The server makes the answers' HTML; here it is put in its place.

/** @typedef {"a" | "b"} Side */
/** @typedef {{name: string, organisation?: string, licence?: string, link?: string}} Model */

export const SIDES = /** @type {Side[]} */ (["a", "b"]);

const list = /** @type {HTMLElement} */ (document.getElementById("turns"));
const template = /** @type {HTMLTemplateElement} */ (document.getElementById("turn-template"));
const log = /** @type {HTMLElement} */ (document.getElementById("log"));
const toEnd = /** @type {HTMLElement} */ (document.getElementById("to-end"));
const NEAR = 60; // pixels from the end that count as being there

/** @returns {HTMLElement[]} */
export const all = () => [...list.querySelectorAll("section")];

/** @param {Side} side @returns {HTMLElement} the newest answer of a side */
export const answer = (side) => /** @type {HTMLElement} */ (all().at(-1)?.querySelector(`[data-side=${side}]`));

/** @param {boolean} is whether answers are being written; screen readers wait for their end */
export const setBusy = (is) => list.setAttribute("aria-busy", String(is));

/** @param {string} question */
export function add(question) {
  const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  const text = document.createElement("p");
  text.textContent = question;
  copy.querySelector(".message .body")?.append(text);
  list.append(copy);
  all().at(-1)?.scrollIntoView({ block: "start" });
  measure();
}

/** Take the newest turn away: its question was not taken. */
export const removeLast = () => all().at(-1)?.remove();

/** Take all turns away. */
export const clear = () => list.replaceChildren();

/** Empty both answers of the newest turn; they are written again. */
export function restart() {
  for (const side of SIDES) {
    part(side, "body").replaceChildren();
    setState(side, "waiting");
  }
}

/** @param {Side} side @param {string} state waiting, streaming, complete, stopped or failed */
export function setState(side, state, problem = "") {
  answer(side).dataset.state = state;
  part(side, "problem").textContent = problem;
  part(side, "problem").hidden = !problem;
}

/**
 * Put blocks of HTML in their places; the server has made them safe.
 * @param {Side} side
 * @param {[number, string][]} blocks
 */
export function setBlocks(side, blocks) {
  const body = part(side, "body");
  for (const [index, html] of blocks) {
    while (body.children.length <= index) body.append(document.createElement("div"));
    body.children[index].innerHTML = html;
  }
  measure();
}

/** @returns {boolean} whether both answers of the newest turn have come to their end */
export const areComplete = () => all().length > 0 && SIDES.every((side) => answer(side).dataset.state === "complete");

/**
 * Write names above all answers of both sides.
 * @param {Record<Side, Model>} models
 */
export function name(models) {
  for (const side of SIDES) {
    for (const heading of list.querySelectorAll(`[data-side=${side}] .name`)) {
      const strong = document.createElement("strong");
      strong.textContent = models[side].name;
      heading.replaceChildren(`Model ${side.toUpperCase()}`, strong);
    }
  }
}

/** @param {Side | null} side whose answers won; null: neither's, or both sides' */
export function mark(side) {
  for (const article of /** @type {NodeListOf<HTMLElement>} */ (list.querySelectorAll(".answer"))) {
    article.toggleAttribute("data-won", article.dataset.side === side);
    if (article.dataset.side !== side) continue;
    const words = Object.assign(document.createElement("span"), { className: "better", textContent: "✓ better" });
    article.querySelector(".name")?.append(words);
  }
}

/** Say whether there is more below. */
function measure() {
  const last = all().at(-1)?.querySelector(".pair");
  toEnd.hidden = !last || last.getBoundingClientRect().bottom < log.getBoundingClientRect().bottom + NEAR;
}

/** @param {Side} side @param {string} of @returns {HTMLElement} */
const part = (side, of) => /** @type {HTMLElement} */ (answer(side).querySelector(`.${of}`));

log.addEventListener("scroll", measure, { passive: true });
new ResizeObserver(measure).observe(log);
toEnd.addEventListener("click", () => {
  all().at(-1)?.querySelector(".pair")?.scrollIntoView({ block: "end" });
  log.focus();
});
