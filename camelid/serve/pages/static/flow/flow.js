// The Flow page: text in, three stages, the next token, and again.

import * as server from "./server.js";
import { AttentionMap } from "./attention.js";
import { markPosition, repaintStrips, showArcs, showInput } from "./input.js";
import { LensTable, tellLens } from "./lens.js";
import { moves, percent, quoted } from "./make.js";
import { Sliders, dropNeedle, fly, showDraw, showRows, showSteps } from "./outcome.js";
import { Place, showTree } from "./tree.js";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

class FlowPage {
  constructor() {
    this.model = "";
    /** @type {Place | null} */
    this.root = null;
    /** @type {Place | null} */
    this.place = null;
    this.position = 0;
    this.layer = 0;
    this.head = 0;
    this.settled = false; // layer and head have been chosen by hand
    this.writes = false; // goes on by itself
    this.asked = new AbortController(); // of the text shown: aborted when another begins
    this.judged = new AbortController(); // of sampling parameters: aborted by the next change
    this.lens = new LensTable($("flow-lens"), (layer, position) => this.settle({ layer, position }));
    this.map = new AttentionMap(
      { heads: $("flow-heads"), canvas: $("flow-map"), reading: $("flow-reading"), looks: $("flow-looks") },
      (head) => this.settle({ head }),
      (position) => this.look({ position }),
    );
    this.sliders = new Sliders($("flow-sampling"), () => this.judgeSoon());
    $("flow-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      void this.begin();
    });
    $("flow-draw").addEventListener("click", () => void this.write("draw"));
    $("flow-greedy").addEventListener("click", () => void this.write("greedy"));
    $("flow-play").addEventListener("click", () => void this.play());
    $("flow-layer").addEventListener("input", () => this.settle({ layer: $("flow-layer").valueAsNumber - 1 }));
    for (const example of document.querySelectorAll("[data-flow-text]")) {
      example.addEventListener("click", () => {
        $("flow-text").value = /** @type {HTMLElement} */ (example).dataset.flowText;
        void this.begin();
      });
    }
    const repaint = () => this.repaint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    new MutationObserver(repaint).observe(document.documentElement, { attributes: true });
    new ResizeObserver(() => this.map.paint()).observe($("flow-map").parentElement);
  }

  /** Read the text in the form. */
  async begin() {
    this.writes = false;
    this.asked.abort();
    this.asked = new AbortController();
    this.say("Reading …");
    const model = $("flow-model").value;
    const params = model === this.model ? this.sliders.params : {};
    await this.attempt(async () => {
      const stage = await server.start({ model, text: $("flow-text").value, params }, this.asked.signal);
      this.model = model;
      this.root = new Place(stage);
      const fits = this.layer < stage.shape.n_layers && this.head < stage.shape.n_heads;
      if (!this.settled || !fits) Object.assign(this, stage.telling);
      $("flow-layer").max = stage.shape.n_layers;
      this.sliders.params = stage.outcome.params;
      this.show(this.root, 0);
      const [best] = stage.outcome.rows;
      this.say(`${stage.tokens.length} tokens, ${stage.shape.n_layers} layers; the likeliest next token is ${quoted(best)}, ${percent(best.probability)}.`);
      await this.fillLens(this.root);
    });
  }

  /** Choose the next token and go on from there. @param {"draw" | "greedy" | number} take */
  async write(take) {
    const place = this.place;
    if (!place || this.busy) return false;
    this.setBusy(true);
    const done = await this.attempt(async () => {
      const ask = { model: this.model, ids: place.stage.ids, n_prompt: place.stage.n_prompt, params: this.sliders.params };
      const { chosen, stage } = await server.step({ ...ask, take }, this.asked.signal);
      const how = chosen.number !== null ? "drawn" : typeof take === "number" ? "picked by hand" : "the likeliest";
      if (this.place !== place) return;
      await dropNeedle($("flow-share"), chosen);
      await fly(document.querySelector(`#flow-rows tr[data-id="${chosen.id}"] .flow-pick`), $("flow-tokens").lastElementChild);
      if (this.place !== place) return;
      this.show(place.grow(stage, chosen, how), place.stage.tokens.length);
      const [best] = stage.outcome.rows;
      const ends = chosen.ends ? " With this token the model ends its text." : "";
      this.say(`Wrote ${quoted(chosen)}, ${how}, ${percent(chosen.probability)}.${ends} Next the likeliest is ${quoted(best)}, ${percent(best.probability)}.`);
      if (chosen.ends) this.writes = false;
    });
    this.setBusy(false);
    return done;
  }

  /** Write on until stopped, the text ends, or the page is full. */
  async play() {
    this.writes = !this.writes;
    while (this.writes && this.place && this.place.stage.ids.length < this.place.stage.longest) {
      this.showPlaying();
      if (!(await this.write("draw"))) break;
      await new Promise((resolve) => setTimeout(resolve, moves() ? 250 : 900));
    }
    this.writes = false;
    this.showPlaying();
  }

  showPlaying() {
    $("flow-play").textContent = this.writes ? "Stop" : "Write on";
    $("flow-play").setAttribute("aria-pressed", String(this.writes));
  }

  /** Show a place of the tree. @param {Place} place @param {number} known tokens that were shown before */
  show(place, known) {
    this.place = place;
    this.position = place.stage.tokens.length - 1;
    $("flow").hidden = false;
    showInput($("flow-tokens"), place.stage, known, (position) => this.look({ position }));
    showTree($("flow-tree"), /** @type {Place} */ (this.root), place, (other) => this.goTo(other));
    this.lens.show(place, this.layer, this.position, known === 0);
    this.showOutcome();
    this.look({});
    const tokens = $("flow-tokens").parentElement;
    tokens.scrollTo({ top: tokens.scrollHeight, behavior: moves() ? "smooth" : "auto" });
  }

  /** Back (or over) to another place; its table is for the sampling parameters of now. @param {Place} place */
  goTo(place) {
    this.writes = false;
    let shared = 0;
    const [now, then] = [this.place?.stage.ids ?? [], place.stage.ids];
    while (shared < then.length && now[shared] === then[shared]) shared++;
    this.show(place, shared);
    const at = place.chosen ? `Back after ${quoted(place.chosen)}` : "Back at the prompt";
    this.say(`${at}: ${place.stage.tokens.length} tokens.`);
    void this.judge();
  }

  /** Look at a layer or head chosen by hand, and stay there. @param {{layer?: number, head?: number, position?: number}} choice */
  settle(choice) {
    this.settled = true;
    this.look(choice);
  }

  /** Look at another layer, head or position. @param {{layer?: number, head?: number, position?: number}} choice */
  look({ layer = this.layer, head = this.head, position = this.position }) {
    const place = this.place;
    if (!place) return;
    Object.assign(this, { layer, head, position });
    if (this.lens.layer !== layer || this.lens.position !== position) this.lens.show(place, layer, position, false);
    $("flow-layer").value = layer + 1;
    $("flow-layer").nextElementSibling.textContent = `${layer + 1} of ${place.stage.shape.n_layers}`;
    $("flow-from").textContent = quoted(place.stage.tokens[position]);
    markPosition($("flow-tokens"), position);
    tellLens(place, layer, position, $("flow-says"));
    void this.showAttention(place);
    void this.fillLens(place);
  }

  /** @param {Place} place */
  async showAttention(place) {
    const { layer } = this;
    const length = place.stage.tokens.length;
    await this.attempt(async () => {
      const ask = { model: this.model, ids: place.stage.ids, layer };
      const weights = place.attention.get(layer) ?? (await server.attention(ask, length, this.asked.signal));
      place.attention.set(layer, weights);
      if (this.place !== place || this.layer !== layer) return;
      this.map.show(weights, place.stage.tokens, place.stage.shape.n_heads, layer, this.head, this.position);
      showArcs($("flow-arcs"), this.position, (to) => this.map.look(to));
    });
  }

  /** Ask for the lens of positions that are shown and not known, the chosen one first. @param {Place} place */
  async fillLens(place) {
    for (const position of [this.position, ...[...this.lens.positions].reverse()]) {
      if (this.place !== place || !this.lens.positions.includes(position)) return;
      if (place.lens(position)) continue;
      const owner = place.path().find((one) => one.stage.ids.length > position) ?? place;
      if (owner.pending.has(position)) continue;
      owner.pending.add(position);
      await this.attempt(async () => {
        const lens = await server.lens({ model: this.model, ids: owner.stage.ids, position }, this.asked.signal);
        owner.lenses.set(position, lens);
        if (this.place !== place) return;
        this.lens.fill(lens);
        if (position === this.position) tellLens(place, this.layer, position, $("flow-says"));
      });
      owner.pending.delete(position);
    }
  }

  showOutcome() {
    if (!this.place) return;
    const { outcome, tokens } = this.place.stage;
    $("flow-context").textContent = tokens.slice(-12).map((token) => token.piece).join("");
    showRows($("flow-rows"), outcome, (row) => void this.write(row.id));
    showSteps($("flow-steps"), outcome);
    showDraw($("flow-share"), outcome);
    const [before, after] = outcome.others.map(percent);
    $("flow-others").textContent = `All other tokens together: ${before} before sampling, ${after} after.`;
  }

  judgeSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.judge(), 40);
  }

  /** The table anew, with the sampling parameters of now. */
  async judge() {
    const place = this.place;
    if (!place) return;
    this.judged.abort();
    this.judged = new AbortController();
    await this.attempt(async () => {
      const ask = { model: this.model, ids: place.stage.ids, n_prompt: place.stage.n_prompt, params: this.sliders.params };
      place.stage.outcome = await server.outcome(ask, this.judged.signal);
      if (this.place === place) this.showOutcome();
    });
  }

  repaint() {
    this.map.paint();
    if (this.place) repaintStrips($("flow-tokens"), this.place.stage);
    if (this.place) void this.showAttention(this.place);
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.busy = busy;
    $("flow").setAttribute("aria-busy", String(busy));
  }

  /** Do something that the server may refuse; whether it was done. @param {() => Promise<void>} work */
  async attempt(work) {
    try {
      await work();
      return true;
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return false;
      this.writes = false;
      if (!(error instanceof server.Refused)) throw error;
      this.say(error.message, true);
      return false;
    }
  }

  /** @param {string} text @param {boolean} [wrong] */
  say(text, wrong = false) {
    $("flow-status").textContent = text;
    $("flow-status").classList.toggle("error", wrong);
  }
}

const page = new FlowPage();
const asked = new URLSearchParams(location.search);
if (asked.get("text")) $("flow-text").value = asked.get("text");
const named = [...$("flow-model").options].find((option) => option.value === asked.get("model"));
if (named) named.selected = true;
void page.begin();
