// Direct Chat: what is said, what is answered, and the keys and buttons for it.

import { call, Problem, stream } from "./api.js";
import { composes } from "./composing.js";
import { copy } from "./copy.js";
import { follow, toEnd } from "./follow.js";
import * as messages from "./messages.js";
import { link } from "../root.js";
import * as settings from "./settings.js";
import * as side from "./side.js";

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const question = /** @type {HTMLTextAreaElement} */ ($("question"));
const composer = /** @type {HTMLFormElement} */ ($("composer"));

let conversation = $("chat").dataset.conversation ?? "";
/** @type {{hangUp: AbortController, article: HTMLElement | null} | null} */
let answering = null;
let saving = Promise.resolve(); // what was changed in the settings reaches the server in this order

/** @param {string} [text] what went wrong; nothing to take it back */
function tell(text) {
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
}

/** @param {string} text for those who do not see the page */
function say(text) {
  $("status").textContent = text;
}

/** The conversation's id; a new one is made from the settings if there is none yet. */
async function open() {
  if (!conversation) {
    const made = await call("POST", "", settings.chosen());
    conversation = made.id;
    history.replaceState(null, "", link(`/chat/${conversation}`));
  }
  return conversation;
}

/**
 * Have an answer written and show it as it comes.
 * @param {string} path below the conversation
 * @param {object} [body]
 * @param {() => void} [begun] called when the server has taken the question
 */
async function answer(path, body, begun) {
  if (answering) return;
  const hangUp = new AbortController();
  answering = { hangUp, article: null };
  setBusy(true);
  tell();
  try {
    await saving;
    for await (const event of stream(`/${await open()}${path}`, body, hangUp.signal)) await take(event, begun);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    tell(error.message);
  } finally {
    answering = null;
    setBusy(false);
  }
}

/**
 * @param {any} event
 * @param {() => void} [begun]
 */
async function take(event, begun) {
  if (!answering) return;
  if (event.type === "start") {
    await catchUp(event.messages[0]);
    begun?.();
    $("welcome").hidden = true;
    side.put(event.conversation);
    for (const view of event.messages) if (answering) answering.article = messages.add(view);
    say("Answering");
    toEnd();
  } else if (event.type === "warning") {
    tell(event.message);
  } else if (answering.article) {
    if (event.type === "blocks") messages.setBlocks(answering.article, event.blocks, event.note);
    if (event.type === "done") {
      messages.settle(answering.article, event.message);
      say(event.message.state === "complete" ? `Answer complete: ${event.message.note}` : event.message.note);
    }
    follow();
  }
}

/**
 * Show what was said in another tab, if a message comes behind it.
 * @param {import("./messages.js").View} view
 */
async function catchUp(view) {
  if (view.id === null || view.parent === null || messages.has(view.parent)) return;
  const whole = await call("GET", `/${conversation}`);
  showBranch(whole, whole.path.slice(0, whole.path.indexOf(view.parent) + 1));
}

/** What another tab, or this one before it was left, has had said meanwhile; an answer that is written is followed. */
async function refresh() {
  if (!conversation || answering || document.hidden || document.querySelector(".edit")) return;
  try {
    const whole = await call("GET", `/${conversation}`);
    if (answering) return;
    if (whole.path.join() !== messages.all().map((article) => article.dataset.id).join()) showBranch(whole, whole.path);
    followLast();
  } catch (error) {
    if (!(error instanceof Problem)) throw error; // it is deleted, or the server is gone: the next question says so
  }
}

/** Go on with an answer that is still being written. */
function followLast() {
  const last = messages.all().at(-1);
  if (last?.dataset.state === "streaming") answer(`/messages/${last.dataset.id}/follow`);
}

async function stop() {
  const id = answering?.article?.dataset.id;
  try {
    if (id) await call("POST", `/${conversation}/messages/${id}/stop`);
    else answering?.hangUp.abort(); // it is not kept, so the server knows no name for it
  } catch {
    answering?.hangUp.abort();
  }
}

/** @param {boolean} is whether an answer is being written */
function setBusy(is) {
  const focused = document.activeElement;
  messages.setBusy(is);
  $("chat").toggleAttribute("data-busy", is);
  $("send").hidden = is;
  $("stop").hidden = !is;
  if (focused === $("send") || focused === $("stop")) question.focus();
}

/** @param {string} content */
function send(content) {
  if (!content.trim()) return;
  answer("/messages", { content }, () => {
    question.value = "";
    grow();
  });
}

/** @param {string} id a message on the branch to show */
async function choose(id) {
  const whole = await call("POST", `/${conversation}/messages/${id}/choose`);
  showBranch(whole, whole.path);
}

/**
 * @param {any} whole the conversation
 * @param {number[]} path ids of the messages to show
 */
function showBranch(whole, path) {
  const views = new Map(whole.messages.map((/** @type {any} */ view) => [view.id, view]));
  messages.show(path.map((one) => views.get(one)));
  $("welcome").hidden = path.length > 0;
}

/** What the buttons of a message do. @type {Record<string, (article: HTMLElement, button: HTMLElement) => unknown>} */
const ACTIONS = {
  copy: (article, button) => copy(button, article.dataset.source ?? ""),
  "copy-code": (_, button) => copy(button, button.closest(".code")?.querySelector("code")?.textContent ?? ""),
  edit: (article) =>
    messages.edit(article, (content) => answer(`/messages/${article.dataset.id}/edit`, { content })),
  regenerate: (article) => answer(`/messages/${article.dataset.id}/regenerate`),
  earlier: (article) => turn(article, -1),
  later: (article) => turn(article, 1),
};

/**
 * Show the version of a message before or after the one that is shown.
 * @param {HTMLElement} article
 * @param {number} step
 */
async function turn(article, step) {
  const id = messages.version(article, step);
  if (!id || answering) return;
  const place = messages.all().indexOf(article);
  await choose(id);
  const name = step < 0 ? "earlier" : "later";
  /** @type {HTMLElement} */ (messages.all()[place].querySelector(`[data-action=${name}]`)).focus();
  say(`Version ${messages.all()[place].querySelector(".place")?.textContent}`);
}

$("messages").addEventListener("click", async (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest("button");
  const article = /** @type {HTMLElement | null} */ (button?.closest("article"));
  if (!button || !article) return;
  try {
    await ACTIONS[button.dataset.action ?? ""]?.(article, button);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    tell(error.message);
  }
});

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
  if (!messages.isSend(event)) return;
  event.preventDefault();
  send(question.value);
});
$("stop").addEventListener("click", stop);
for (const example of document.querySelectorAll("[data-example]")) {
  example.addEventListener("click", () => send(example.textContent ?? ""));
}

/** Keep the settings; a conversation that is not there yet will begin with them. */
async function save() {
  settings.complain();
  try {
    if (conversation) await call("PATCH", `/${conversation}`, settings.chosen());
  } catch (error) {
    settings.complain(/** @type {Error} */ (error).message);
  }
}

settings.start(() => {
  saving = saving.then(save);
});

const keys = /** @type {HTMLDialogElement} */ ($("keys"));
$("show-keys").addEventListener("click", () => keys.showModal());
document.addEventListener("keydown", (event) => {
  if (composes(event)) return;
  const writes = /** @type {HTMLElement} */ (event.target).matches("input, textarea, select");
  if (event.key === "Escape" && answering) stop();
  else if (event.altKey && event.code === "KeyN") location.assign(link("/chat"));
  else if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "/") question.focus();
  else if (event.key === "?") keys.showModal();
  else return;
  event.preventDefault();
});

side.start(tell);
toEnd();
document.addEventListener("visibilitychange", refresh);
addEventListener("pageshow", (event) => event.persisted && refresh());
followLast();
if (matchMedia("(pointer: fine)").matches) question.focus();
