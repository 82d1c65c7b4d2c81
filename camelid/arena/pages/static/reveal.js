// Who they were: shown after the vote, and gone with the next round.

import { mark, SIDES } from "./turns.js";

/** @typedef {import("./turns.js").Side} Side */
/** @typedef {import("./turns.js").Model} Model */

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @type {Record<string, {side: Side | null, words: string}>} */
const VOTES = {
  A: { side: "a", words: "You found A better" },
  B: { side: "b", words: "You found B better" },
  TIE: { side: null, words: "You found both as good" },
  BOTH_BAD: { side: null, words: "You found both bad" },
};

/**
 * @param {Record<Side, Model>} models
 * @param {string} vote
 */
export function show(models, vote) {
  const { side, words } = VOTES[vote];
  mark(side);
  $("reveal-title").textContent = side ? `${words}: ${models[side].name}` : words;
  $("who").replaceChildren(...SIDES.map((one) => described(one, models[one])));
  $("reveal").hidden = false;
}

/** Take every name out of the page. */
export function hide() {
  $("reveal").hidden = true;
  $("reveal-title").textContent = "";
  $("who").replaceChildren();
}

/** @param {Side} side @param {Model} model */
function described(side, model) {
  const group = document.createElement("div");
  const term = Object.assign(document.createElement("dt"), { textContent: `Model ${side.toUpperCase()}` });
  const detail = document.createElement("dd");
  const name = document.createElement("strong");
  name.textContent = model.name;
  if (/^https?:/.test(model.link ?? "")) {
    const anchor = Object.assign(document.createElement("a"), { href: model.link, target: "_blank", rel: "noreferrer" });
    anchor.append(name);
    detail.append(anchor);
  } else detail.append(name);
  const facts = [model.organisation, model.licence].filter(Boolean);
  if (facts.length) detail.append(` ${facts.join(" · ")}`);
  group.append(term, detail);
  return group;
}
