// Copying a message or a block of code.

const SHOWN = 1500; // milliseconds that a button says that it has copied

/**
 * @param {HTMLElement} button
 * @param {string} text
 */
export async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text); // pages from another machine without TLS have no clipboard of their own
  }
  if (button.dataset.done !== undefined) return;
  const label = button.textContent;
  button.dataset.done = "";
  if (button.classList.contains("icon-button")) button.setAttribute("aria-label", "Copied");
  else button.textContent = "Copied";
  setTimeout(() => {
    delete button.dataset.done;
    if (button.classList.contains("icon-button")) button.setAttribute("aria-label", "Copy");
    else button.textContent = label;
  }, SHOWN);
}

/** @param {string} text */
function copyBySelection(text) {
  const field = document.createElement("textarea");
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  field.value = text;
  field.className = "hidden-visually";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  before?.focus();
}
