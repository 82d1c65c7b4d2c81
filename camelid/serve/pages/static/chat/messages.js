// The messages of the branch that is shown. The server makes their HTML; here it is put in its place.

import { composes } from "./composing.js";

/**
 * @typedef {{id: number | null, parent: number | null, versions: number[], role: string, content: string, html: string,
 *   model: string | null, state: string, error: string | null, note: string}} View
 */

const list = /** @type {HTMLElement} */ (document.getElementById("messages"));
const template = /** @type {HTMLTemplateElement} */ (document.getElementById("message-template"));
const editTemplate = /** @type {HTMLTemplateElement} */ (document.getElementById("edit-template"));

/** @returns {HTMLElement[]} */
export const all = () => [...list.querySelectorAll("article")];

/**
 * @param {number} id
 * @returns {boolean} whether this message is shown
 */
export const has = (id) => all().some((article) => article.dataset.id === String(id));

/** @param {boolean} is whether an answer is being written; screen readers wait for its end */
export function setBusy(is) {
  list.setAttribute("aria-busy", String(is));
}

/** @param {View[]} views */
export function show(views) {
  list.replaceChildren(...views.map(made));
}

/**
 * Add a message behind its parent; what stood there belongs to another branch.
 * @param {View} view
 * @returns {HTMLElement}
 */
export function add(view) {
  if (view.id !== null) {
    const parent = all().findIndex((article) => article.dataset.id === String(view.parent));
    for (const article of all().slice(parent + 1)) article.remove();
  }
  const article = made(view);
  list.append(article);
  return article;
}

/**
 * @param {View} view
 * @returns {HTMLElement}
 */
function made(view) {
  const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  const article = /** @type {HTMLElement} */ (copy.querySelector("article"));
  part(article, "who").textContent = view.role === "user" ? "You" : view.model;
  setBlocks(article, [[0, view.html]]);
  settle(article, view);
  return article;
}

/**
 * Bring everything but the text up to date.
 * @param {HTMLElement} article
 * @param {View} view
 */
export function settle(article, view) {
  Object.assign(article.dataset, {
    id: view.id ?? "",
    role: view.role,
    state: view.state,
    versions: view.versions.join(" "),
    source: view.content,
  });
  part(article, "note").textContent = view.note;
  part(article, "problem").textContent = view.error;
  part(article, "problem").hidden = !view.error;
  part(article, "versions").hidden = view.versions.length < 2;
  part(article, "place").textContent = `${view.versions.indexOf(view.id ?? 0) + 1}/${view.versions.length}`;
}

/**
 * Put blocks of HTML in their places; the server has made them safe.
 * @param {HTMLElement} article
 * @param {[number, string][]} blocks
 * @param {string} [note]
 */
export function setBlocks(article, blocks, note) {
  const body = part(article, "body");
  for (const [index, html] of blocks) {
    while (body.children.length <= index) body.append(document.createElement("div"));
    body.children[index].innerHTML = html;
  }
  if (note !== undefined) part(article, "note").textContent = note;
}

/**
 * The version of a message before (-1) or after (1) this one.
 * @param {HTMLElement} article
 * @param {number} step
 * @returns {string | undefined} its id
 */
export function version(article, step) {
  const ids = (article.dataset.versions ?? "").split(" ");
  return ids[ids.indexOf(article.dataset.id ?? "") + step];
}

/**
 * Let a question be changed at its place.
 * @param {HTMLElement} article
 * @param {(content: string) => void} send
 */
export function edit(article, send) {
  if (article.querySelector(".edit")) return;
  const form = /** @type {HTMLFormElement} */ (
    /** @type {DocumentFragment} */ (editTemplate.content.cloneNode(true)).firstElementChild
  );
  const field = /** @type {HTMLTextAreaElement} */ (form.querySelector("textarea"));
  const close = () => {
    form.remove();
    article.classList.remove("editing");
    /** @type {HTMLElement} */ (article.querySelector("[data-action=edit]")).focus();
  };
  field.value = article.dataset.source ?? "";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    close();
    send(field.value);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !composes(event)) {
      event.stopPropagation();
      close();
    } else if (isSend(event) && event.target === field) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  /** @type {HTMLElement} */ (form.querySelector("[data-action=cancel]")).addEventListener("click", close);
  article.classList.add("editing");
  part(article, "body").after(form);
  field.focus();
}

/**
 * Enter sends, Shift+Enter begins a line; Enter that ends the composition of a character does neither.
 * @param {KeyboardEvent} event
 */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !composes(event);
}

/**
 * @param {HTMLElement} article
 * @param {string} name
 * @returns {HTMLElement}
 */
function part(article, name) {
  return /** @type {HTMLElement} */ (article.querySelector(`.${name}`));
}
