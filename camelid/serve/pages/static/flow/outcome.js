// Stage 3: the distribution over the vocabulary, what sampling removes of it, and the draw.

import { make, moves, percent, quoted, visible, whole } from "./make.js";

/**
 * @typedef {import("./server.js").Outcome} Outcome
 * @typedef {import("./server.js").Row} Row
 * @typedef {import("./server.js").Chosen} Chosen
 */

const TOP_KS = [1, 2, 3, 4, 5, 8, 10, 15, 20, 40, 80, 200, 1000, 0]; // 0, all, is the loosest: it stands at the end
const NAMES = /** @type {Record<string, string>} */ ({
  all: "vocabulary", bias: "bias", repetition: "repetition", presence: "presence", frequency: "frequency",
  temperature: "temperature", top_n_sigma: "top-nσ", top_k: "top-k", top_p: "top-p", min_p: "min-p",
  typical: "typical", epsilon: "epsilon", eta: "eta", draw: "draw", greedy: "greedy",
});

/**
 * The table like the deck's: token, bar, per cent; what a step has removed is struck out and says by which.
 * @param {HTMLTableSectionElement} body
 * @param {Outcome} outcome
 * @param {(row: Row) => void} pick
 */
export function showRows(body, outcome, pick) {
  const most = Math.max(...outcome.rows.flatMap((row) => [row.probability, row.left]));
  const old = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const rows = outcome.rows.map((row, at) => {
    const line = old.get(String(row.id)) ?? makeRow(row);
    const button = /** @type {HTMLButtonElement} */ (line.querySelector("button"));
    button.onclick = () => pick(row);
    button.setAttribute("aria-label", `write ${quoted(row)}`);
    const [before, after] = /** @type {NodeListOf<HTMLElement>} */ (line.querySelectorAll(".flow-bar"));
    requestAnimationFrame(() => {
      before.style.width = `${(100 * row.probability) / most}%`;
      after.style.width = `${(100 * row.left) / most}%`;
    });
    line.className = `flow-hue-${at % 6}${row.fell !== null ? " flow-fallen" : ""}`;
    const [raw, left] = line.querySelectorAll(".flow-number");
    raw.textContent = percent(row.probability);
    left.textContent = row.fell === null ? percent(row.left) : NAMES[row.fell] ?? row.fell;
    left.classList.toggle("flow-fell", row.fell !== null);
    return line;
  });
  body.replaceChildren(...rows);
}

/** @param {Row} row */
function makeRow(row) {
  const name = make("button", { type: "button", class: "flow-pick", title: `id ${row.id}` }, [
    visible(row.piece),
    ...(row.ends ? [make("span", { class: "flow-ends", text: "ends" })] : []),
  ]);
  return /** @type {HTMLTableRowElement} */ (
    make("tr", { "data-id": row.id }, [
      make("th", { scope: "row" }, [name]),
      make("td", { class: "flow-bars" }, [make("span", { class: "flow-bar flow-before" }), make("span", { class: "flow-bar flow-after" })]),
      make("td", { class: "flow-number" }),
      make("td", { class: "flow-number" }),
    ])
  );
}

/** How many tokens each step leaves; bars by the logarithm. @param {HTMLElement} list @param {Outcome} outcome */
export function showSteps(list, outcome) {
  const all = outcome.steps[0].n_left;
  const items = outcome.steps.slice(0, -1).map((step, at) => {
    const before = outcome.steps[Math.max(0, at - 1)].n_left;
    const bar = make("span", { class: "flow-bar" });
    bar.style.width = `${(100 * Math.log(step.n_left + 1)) / Math.log(all + 1)}%`;
    const removed = before - step.n_left;
    const did = at === 0 ? "" : removed ? `−${whole(removed)}` : "reshapes";
    return make("li", { title: step.note }, [
      make("span", { class: "flow-step", text: NAMES[step.name] ?? step.name }),
      make("span", { class: "flow-bars" }, [bar]),
      make("span", { class: "flow-number", text: whole(step.n_left) }),
      make("span", { class: "flow-did", text: did }),
    ]);
  });
  list.replaceChildren(...items);
}

/** What is left, in the order of ids as the draw goes through it; the shown tokens in colour.
 * @param {HTMLElement} strip @param {Outcome} outcome */
export function showDraw(strip, outcome) {
  const parts = outcome.rows.flatMap((row, at) => {
    if (row.fell !== null) return [];
    const part = make("span", { class: `flow-share flow-hue-${at % 6}`, title: `${quoted(row)} ${percent(row.left)}` });
    if (row.left > 0.09) part.textContent = visible(row.piece);
    part.style.left = `${100 * row.begins}%`;
    part.style.width = `${100 * row.left}%`;
    return [part];
  });
  strip.replaceChildren(...parts, make("span", { class: "flow-needle", hidden: true }));
}

/** Let the needle fall where the random number lies. @param {HTMLElement} strip @param {Chosen} chosen */
export async function dropNeedle(strip, chosen) {
  const needle = strip.querySelector(".flow-needle");
  if (!(needle instanceof HTMLElement) || chosen.number === null) return;
  const end = `${100 * chosen.number}%`;
  needle.hidden = false;
  needle.style.left = end;
  if (!moves()) return;
  const swing = [{ left: "0%" }, { left: "100%", offset: 0.4 }, { left: `${Math.max(0, 100 * chosen.number - 12)}%`, offset: 0.75 }, { left: end }];
  await needle.animate(swing, { duration: 750, easing: "ease-out" }).finished;
}

/** The chosen token flies from the table to the end of the text, where it is fed back.
 * @param {HTMLElement | null} from @param {HTMLElement | null} to */
export async function fly(from, to) {
  if (!from || !to || !moves()) return;
  const [start, end] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
  const ghost = /** @type {HTMLElement} */ (from.cloneNode(true));
  ghost.className = "flow-ghost";
  ghost.setAttribute("aria-hidden", "true");
  ghost.style.left = `${start.left}px`;
  ghost.style.top = `${start.top}px`;
  document.body.append(ghost);
  const [x, y] = [end.left - start.left, end.bottom - start.top];
  const lift = `translate(${x / 2}px, ${Math.min(0, y) - 60}px) scale(1.25)`;
  const path = [{ transform: "none" }, { transform: lift, offset: 0.5 }, { transform: `translate(${x}px, ${y}px)`, opacity: 0.4 }];
  await ghost.animate(path, { duration: 650, easing: "ease-in-out" }).finished;
  ghost.remove();
}

/** The sliders of the sampling steps. */
export class Sliders {
  /** @param {HTMLElement} box holds <input type=range name=…> each with an <output> @param {() => void} changed */
  constructor(box, changed) {
    this.inputs = /** @type {HTMLInputElement[]} */ ([...box.querySelectorAll("input[type=range]")]);
    for (const input of this.inputs) {
      input.addEventListener("input", () => {
        this.#tell(input);
        changed();
      });
    }
  }

  /** @returns {Record<string, number>} */
  get params() {
    return Object.fromEntries(this.inputs.map((input) => [input.name, value(input)]));
  }

  /** @param {Record<string, number>} params */
  set params(params) {
    for (const input of this.inputs) {
      if (!(input.name in params)) continue;
      const given = params[input.name];
      const places = TOP_KS.map((k) => Math.abs((k || Infinity) - (given || Infinity)) || 0);
      input.value = String(input.name === "top_k" ? places.indexOf(Math.min(...places)) : given);
      this.#tell(input);
    }
  }

  /** @param {HTMLInputElement} input */
  #tell(input) {
    const now = value(input);
    const off = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 }[input.name] === now;
    const greedy = input.name === "temperature" && now === 0;
    const text = greedy ? "0, greedy" : input.name === "top_k" ? (now ? whole(now) : "all") : now.toFixed(2);
    input.setAttribute("aria-valuetext", off ? `${text}, off` : text);
    const output = input.parentElement?.querySelector("output");
    if (!output) return;
    output.textContent = text;
    output.classList.toggle("flow-off", off);
  }
}

/** @param {HTMLInputElement} input */
const value = (input) => (input.name === "top_k" ? TOP_KS[input.valueAsNumber] : input.valueAsNumber);
