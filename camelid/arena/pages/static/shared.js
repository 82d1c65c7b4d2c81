// A conversation that was shared: code can be copied.

import { copy } from "../chat/copy.js";

document.getElementById("turns")?.addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest("button");
  if (button?.dataset.action !== "copy-code") return;
  copy(button, button.closest(".code")?.querySelector("code")?.textContent ?? "");
});
