// Sharing a conversation: a picture made here, and a link to a page of this server.

import { call, Problem } from "./api.js";
import { draw } from "./picture.js";
import { all } from "./turns.js";

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const dialog = /** @type {HTMLDialogElement} */ ($("sharing"));
const canvas = /** @type {HTMLCanvasElement} */ ($("picture"));
const field = /** @type {HTMLInputElement} */ ($("link"));

/** @type {string} the battle that the dialog stands for */
let shown = "";

/** @param {string} id of the battle */
export function open(id) {
  shown = id;
  showLink("");
  tell();
  dialog.showModal();
  draw(canvas, all(), `${document.title} · ${location.host}`);
}

/** @param {string} address empty: there is none yet */
function showLink(address) {
  field.value = address;
  field.hidden = $("copy-link").hidden = !address;
  $("make-link").hidden = Boolean(address);
}

/** @param {string} [text] what went wrong */
function tell(text) {
  $("share-problem").textContent = text ?? "";
  $("share-problem").hidden = !text;
}

/** @returns {Promise<Blob>} */
const picture = () =>
  new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no picture"))), "image/png"),
  );

/** @param {HTMLElement} button @param {string} words shown for a moment */
function done(button, words) {
  const label = button.innerHTML;
  button.textContent = words;
  setTimeout(() => (button.innerHTML = label), 1500);
}

$("save-picture").addEventListener("click", async () => {
  const address = URL.createObjectURL(await picture());
  const anchor = document.createElement("a");
  Object.assign(anchor, { href: address, download: `arena-${shown.slice(0, 8)}.png` });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
});

$("copy-picture").hidden = typeof ClipboardItem === "undefined" || !navigator.clipboard?.write;
$("copy-picture").addEventListener("click", async () => {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": picture() })]);
    done($("copy-picture"), "Copied");
  } catch {
    tell("The browser does not let pages copy pictures; save it instead.");
  }
});

$("make-link").addEventListener("click", async () => {
  try {
    const { address } = await call("POST", `/battles/${shown}/share`);
    showLink(new URL(address, location.href).href);
    field.focus();
    field.select();
    tell();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    tell(error.message);
  }
});

$("copy-link").addEventListener("click", async () => {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    document.execCommand("copy"); // pages from another machine without TLS have no clipboard of their own
  }
  done($("copy-link"), "Copied");
});
