// The notice on entry, which is remembered; and the dialog with keys, notice and one's own data.

import { call, Problem } from "./api.js";

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const dialog = (/** @type {string} */ id) => /** @type {HTMLDialogElement} */ ($(id));
const KEPT = "arena-notice";
const KEYS = "arena-keys";
const useKeys = /** @type {HTMLInputElement} */ ($("use-keys"));

/** @param {string} version of the notice's words: other words are shown again */
export function showOnce(version) {
  try {
    if (localStorage.getItem(KEPT) === version) return;
  } catch {
    // storage is switched off: it is shown each time
  }
  dialog("notice").addEventListener("cancel", (event) => event.preventDefault());
  dialog("notice").addEventListener("close", () => {
    try {
      localStorage.setItem(KEPT, version);
    } catch {
      // see above
    }
    if (matchMedia("(pointer: fine)").matches) $("question").focus();
  });
  dialog("notice").showModal();
}

/** @returns {boolean} whether single keys do something: who speaks to the computer may switch them off */
export const keysWork = () => useKeys.checked;

export const showMore = () => dialog("more").showModal();

/**
 * @param {(text: string) => void} tell where to say what went wrong
 * @param {() => void} deleted called when nothing is kept any more
 */
export function start(tell, deleted) {
  $("show-more").addEventListener("click", showMore);
  try {
    useKeys.checked = localStorage.getItem(KEYS) !== "off";
  } catch {
    // storage is switched off: keys work
  }
  const show = () => $("arena").toggleAttribute("data-no-keys", !useKeys.checked);
  show();
  useKeys.addEventListener("change", () => {
    show();
    try {
      localStorage.setItem(KEYS, useKeys.checked ? "on" : "off");
    } catch {
      // the choice lasts as long as the page
    }
  });
  $("delete").addEventListener("click", async () => {
    dialog("confirm").returnValue = "no";
    dialog("confirm").showModal();
    await new Promise((resolve) => dialog("confirm").addEventListener("close", resolve, { once: true }));
    if (dialog("confirm").returnValue !== "yes") return;
    dialog("more").close();
    try {
      await call("DELETE", "/me");
      deleted();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      tell(error.message);
    }
  });
}
