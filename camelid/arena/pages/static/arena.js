// A battle, or two chosen models side by side: one question, two answers, a vote.

import { composes } from "../chat/composing.js";
import { copy } from "../chat/copy.js";
import { call, Problem, stream } from "./api.js";
import { keep, kept } from "./kept.js";
import * as notice from "./notice.js";
import { hide, show } from "./reveal.js";
import * as sharing from "./sharing.js";
import * as turns from "./turns.js";
import * as votes from "./votes.js";

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const arena = $("arena");
const mode = arena.dataset.mode ?? "battle";
const question = /** @type {HTMLTextAreaElement} */ ($("question"));
const composer = /** @type {HTMLFormElement} */ ($("composer"));
const buttons = /** @type {HTMLButtonElement[]} */ ([...document.querySelectorAll("[data-vote]")]);

let id = ""; // of the battle; empty before the first question
let ticket = ""; // good for one vote; empty while there is none
let voted = false;
/** @type {AbortController | null} */
let asking = null;
let again = () => {}; // what the button beside a problem does

/**
 * @param {string} [text] what went wrong; nothing to take it back
 * @param {() => void} [retry] what another try is, if one may help
 */
function tell(text, retry) {
  $("problem-text").textContent = text ?? "";
  $("problem").hidden = !text;
  $("again").hidden = !retry;
  again = retry ?? again;
}

/** @param {string} text for those who do not see the page */
function say(text) {
  $("status").textContent = text;
}

/** Show what can be done now. */
function settle() {
  const focused = document.activeElement;
  const begun = turns.all().length > 0;
  const busy = asking !== null;
  turns.setBusy(busy);
  arena.toggleAttribute("data-busy", busy);
  $("welcome").hidden = begun;
  $("votes").hidden = !begun || voted;
  $("after").hidden = !voted;
  composer.hidden = voted;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("share").hidden = $("new-round").hidden = !begun;
  $("regenerate").hidden = !begun || voted;
  for (const name of ["share", "new-round", "regenerate"]) /** @type {HTMLButtonElement} */ ($(name)).disabled = busy;
  for (const button of buttons) button.disabled = busy || voted || !ticket;
  for (const select of document.querySelectorAll("select")) select.disabled = begun;
  if (focused instanceof HTMLElement && focused !== document.body && !focused.checkVisibility()) $("turns").focus();
}

/** @returns {Record<turns.Side, turns.Model>} what stands in the two fields, side by side */
function chosen() {
  const [a, b] = [...document.querySelectorAll("select")].map((select) => ({ name: select.value }));
  return { a, b };
}

/** The battle's id; it is made with the first question. */
async function open() {
  if (!id) {
    const models = mode === "battle" ? undefined : turns.SIDES.map((side) => chosen()[side].name);
    id = (await call("POST", "/battles", { mode, models })).id;
    keep(mode, id);
  }
  return id;
}

/**
 * Have both answers written and show them as they come.
 * @param {string} path below the battle
 * @param {object | undefined} body
 * @param {() => void} retry what another try is, if it fails
 * @returns {Promise<boolean>} whether the server has taken the question
 */
async function answer(path, body, retry) {
  const hangUp = (asking = new AbortController());
  let taken = false;
  ticket = "";
  tell();
  settle();
  say("Both models answer.");
  try {
    for await (const event of stream(`/battles/${await open()}${path}`, body, hangUp.signal)) {
      taken = true;
      take(event, retry);
    }
    if (hangUp.signal.aborted) stopped();
    else if (!ticket && $("problem").hidden) fail("The answers ended too early.", retry);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fail(error.message, retry);
  } finally {
    asking = null;
    settle();
  }
  return taken;
}

/**
 * @param {any} event
 * @param {() => void} retry
 */
function take(event, retry) {
  if (event.type === "delta") {
    turns.setState(event.side, "streaming");
    turns.setBlocks(event.side, event.blocks);
  } else if (event.type === "end") {
    if (event.blocks) turns.setBlocks(event.side, event.blocks);
    turns.setState(event.side, "complete");
  } else if (event.type === "failed") {
    fail(event.message, retry);
  } else if (event.type === "ready") {
    ticket = event.ticket;
    say("Both answers are complete. Vote with the keys 1 to 4, or ask on.");
  }
}

/**
 * @param {string} message in neutral words
 * @param {() => void} retry
 */
function fail(message, retry) {
  for (const side of turns.SIDES) {
    if (turns.all().length && turns.answer(side).dataset.state !== "complete") turns.setState(side, "failed");
  }
  tell(message, retry);
}

function stopped() {
  for (const side of turns.SIDES) {
    if (turns.answer(side).dataset.state !== "complete") turns.setState(side, "stopped");
  }
  tell("Stopped. A vote needs two whole answers: have them written again, or ask on.");
}

/** @param {string} text */
async function send(text) {
  if (asking || voted || !text.trim()) return;
  turns.add(text);
  if (mode !== "battle") turns.name(chosen());
  question.value = "";
  grow();
  if (matchMedia("(pointer: fine)").matches) $("turns").focus(); // so that the keys of the vote work at once
  const ask = () => answer("/messages", { text }, regenerate);
  if (await ask()) return;
  turns.removeLast(); // the server has not taken it: it goes back to where it was written
  if (!question.value) question.value = text;
  grow();
  again = () => send(question.value);
  settle();
}

function regenerate() {
  if (asking || voted || !turns.all().length) return;
  turns.restart();
  answer("/regenerate", undefined, regenerate);
}

/** @param {string} vote */
async function cast(vote) {
  if (!ticket || voted || asking) return;
  await settleVote({ id, ticket, vote });
}

/** @param {votes.Vote} vote */
async function settleVote(vote) {
  for (const button of buttons) {
    button.disabled = true;
    button.setAttribute("aria-pressed", String(button.dataset.vote === vote.vote));
  }
  tell();
  try {
    reveal((await votes.cast(vote, tell)).models, vote.vote);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    for (const button of buttons) button.removeAttribute("aria-pressed");
    settle();
    tell(error.message, votes.isPassing(error.status) ? () => settleVote(vote) : undefined);
  }
}

/**
 * Show who they were.
 * @param {Record<turns.Side, turns.Model>} models
 * @param {string} vote
 */
function reveal(models, vote) {
  voted = true;
  ticket = "";
  tell();
  turns.name(models);
  show(models, vote);
  settle();
  $("reveal").focus();
  say(`Your vote counts. Model A was ${models.a.name}, model B was ${models.b.name}.`);
}

function newRound() {
  if (asking) return;
  id = ticket = "";
  voted = false;
  keep(mode, id);
  turns.clear();
  for (const button of buttons) button.removeAttribute("aria-pressed");
  hide();
  tell();
  settle();
  say("A new round.");
  question.focus();
}

/** Show the battle that this tab showed before, and send a vote that has not arrived. */
async function restore() {
  const battle = await kept(mode);
  if (!battle || turns.all().length) return;
  id = battle.id;
  ticket = battle.ticket ?? "";
  for (const turn of battle.turns) {
    turns.add(turn.question);
    for (const side of turns.SIDES) {
      turns.setBlocks(side, [[0, turn[side].html]]);
      turns.setState(side, turn[side].state);
    }
  }
  if (battle.models) turns.name(battle.models);
  settle();
  const vote = votes.pending();
  if (battle.models && battle.vote) reveal(battle.models, battle.vote);
  else if (vote?.id === id) settleVote(vote);
  else if (!turns.areComplete()) fail("The answers were cut off when the page was left.", regenerate);
}

/** Make the field as high as its text; browsers that do so by themselves are left alone. */
function grow() {
  if (CSS.supports("field-sizing: content")) return;
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send(question.value);
});
question.addEventListener("input", grow);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || composes(event)) return;
  event.preventDefault();
  send(question.value);
});
for (const example of document.querySelectorAll("[data-example]")) {
  example.addEventListener("click", () => send(example.textContent ?? ""));
}
for (const button of buttons) button.addEventListener("click", () => cast(button.dataset.vote ?? ""));
$("stop").addEventListener("click", () => asking?.abort());
$("regenerate").addEventListener("click", regenerate);
for (const name of ["new-round", "next-round"]) $(name).addEventListener("click", newRound);
$("share").addEventListener("click", () => sharing.open(id));
$("again").addEventListener("click", () => again());
$("turns").addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest("button");
  if (button?.dataset.action !== "copy-code") return;
  copy(button, button.closest(".code")?.querySelector("code")?.textContent ?? "");
});

document.addEventListener("keydown", (event) => {
  if (composes(event) || document.querySelector("dialog[open]")) return;
  const writes = /** @type {HTMLElement} */ (event.target).matches("input, textarea, select");
  const button = buttons["1234".indexOf(event.key)];
  if (event.key === "Escape" && asking) asking.abort();
  else if (event.key === "Escape" && writes) $("turns").focus();
  else if (writes || event.ctrlKey || event.metaKey || event.altKey || !notice.keysWork()) return;
  else if (button && !button.disabled) button.click();
  else if (event.key === "n" && turns.all().length) newRound();
  else if (event.key === "r" && turns.all().length) regenerate();
  else if (event.key === "s" && turns.all().length && !asking) sharing.open(id);
  else if (event.key === "/") question.focus();
  else if (event.key === "?") notice.showMore();
  else return;
  event.preventDefault();
});

notice.start(tell, newRound);
settle();
restore();
if (matchMedia("(pointer: fine)").matches) question.focus();
notice.showOnce(arena.dataset.notice ?? "");
