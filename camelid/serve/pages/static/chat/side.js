// The list of conversations: what can be done with the current one; and the columns that open and close.

import { call, Problem } from "./api.js";
import { composes } from "./composing.js";
import { link } from "../root.js";

const list = /** @type {HTMLElement} */ (document.getElementById("conversations"));
const older = /** @type {HTMLElement} */ (document.getElementById("older"));
const MORE = 100; // conversations at a time
const template = /** @type {HTMLTemplateElement} */ (document.getElementById("row-template"));
const title = /** @type {HTMLElement} */ (document.getElementById("title"));
const confirmation = /** @type {HTMLDialogElement} */ (document.getElementById("confirm"));

/**
 * Show a conversation as the current and latest one.
 * @param {{id: string, title: string}} conversation
 */
export function put(conversation) {
  const row = list.querySelector(`[data-id="${conversation.id}"]`) ?? made(conversation.id);
  const anchor = /** @type {HTMLElement} */ (row.querySelector("a"));
  anchor.textContent = conversation.title;
  anchor.setAttribute("aria-current", "page");
  if (list.firstElementChild !== row) list.prepend(row);
  name(conversation.title);
}

/**
 * @param {string} id
 * @returns {Element}
 */
function made(id) {
  const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  const row = /** @type {HTMLElement} */ (copy.firstElementChild);
  row.dataset.id = id;
  for (const anchor of row.querySelectorAll("a")) {
    const kind = anchor.dataset.action;
    anchor.href = link(kind ? `/api/conversations/${id}/export` : `/chat/${id}`) + (kind ? `?format=${kind}` : "");
  }
  return row;
}

/** Add the conversations that follow those that are listed. */
async function loadOlder() {
  const found = await call("GET", `?before=${older.dataset.before}&limit=${MORE + 1}`);
  const first = list.children.length;
  for (const { id, title } of found.slice(0, MORE)) {
    if (list.querySelector(`[data-id="${id}"]`)) continue; // it has come up meanwhile
    const row = made(id);
    /** @type {HTMLElement} */ (row.querySelector("a")).textContent = title;
    list.append(row);
  }
  older.dataset.before = found[Math.min(found.length, MORE) - 1]?.id;
  /** @type {HTMLElement} */ (older.parentElement).hidden = found.length <= MORE;
  list.children[first]?.querySelector("a")?.focus();
}

/** @param {string} text */
function name(text) {
  title.textContent = text;
  document.title = `${text} · camelid`;
}

/** @param {HTMLElement} row */
function rename(row) {
  const anchor = /** @type {HTMLElement} */ (row.querySelector("a"));
  const field = document.createElement("input");
  field.value = anchor.textContent ?? "";
  field.maxLength = 200;
  field.setAttribute("aria-label", "Title");
  let open = true;
  const close = () => {
    if (!open) return;
    open = false; // taking the field away takes the focus from it, which closes it
    field.replaceWith(anchor);
    anchor.focus();
  };
  field.addEventListener("keydown", async (event) => {
    event.stopPropagation();
    if (composes(event)) return;
    if (event.key === "Escape") close();
    if (event.key !== "Enter") return;
    const { title } = await call("PATCH", `/${row.dataset.id}`, { title: field.value.trim() });
    anchor.textContent = title;
    name(title);
    close();
  });
  field.addEventListener("blur", close);
  anchor.replaceWith(field);
  field.select();
}

/** @param {HTMLElement} row */
async function remove(row) {
  const question = /** @type {HTMLElement} */ (document.getElementById("confirm-text"));
  question.textContent = `Delete “${row.querySelector("a")?.textContent}” for good?`;
  confirmation.returnValue = "no";
  confirmation.showModal();
  await new Promise((resolve) => confirmation.addEventListener("close", resolve, { once: true }));
  if (confirmation.returnValue !== "yes") return;
  await call("DELETE", `/${row.dataset.id}`);
  location.assign(link("/chat"));
}

/** @param {(problem: string) => void} tell where to say what went wrong */
export function start(tell) {
  older.addEventListener("click", async (event) => {
    event.preventDefault();
    try {
      await loadOlder();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      tell(error.message);
    }
  });
  list.addEventListener("click", async (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    const row = /** @type {HTMLElement | null} */ (button?.closest("li"));
    if (!button || !row) return;
    try {
      await (button.dataset.action === "rename" ? rename(row) : remove(row));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      tell(error.message);
    }
  });
  for (const button of document.querySelectorAll("[data-opens], [data-closes]")) {
    button.addEventListener("click", () => toggle(/** @type {HTMLElement} */ (button)));
  }
  for (const button of document.querySelectorAll("[data-closes]")) {
    button.closest("aside")?.addEventListener("keydown", (event) => {
      const opener = document.querySelector(`[data-opens="${/** @type {HTMLElement} */ (button).dataset.closes}"]`);
      if (/** @type {KeyboardEvent} */ (event).key !== "Escape" || opener?.ariaExpanded !== "true") return;
      event.stopPropagation(); // else it would stop an answer
      toggle(/** @type {HTMLElement} */ (button));
    });
  }
}

/**
 * Open or close a column. Beside a wide page the list of conversations always stands open.
 * @param {HTMLElement} button
 */
function toggle(button) {
  const id = button.dataset.opens ?? button.dataset.closes ?? "";
  const column = /** @type {HTMLElement} */ (document.getElementById(id));
  const opener = /** @type {HTMLElement} */ (document.querySelector(`[data-opens="${id}"]`));
  const opens = opener.getAttribute("aria-expanded") !== "true";
  opener.setAttribute("aria-expanded", String(opens));
  column.classList.toggle("open", opens);
  if (id === "panel") column.hidden = !opens;
  const next = opens ? column.querySelector("textarea, a") : opener;
  /** @type {HTMLElement} */ (next).focus();
}
