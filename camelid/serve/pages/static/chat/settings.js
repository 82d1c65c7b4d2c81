// The panel: system prompt and sampling choices of the conversation. Empty means: as the model has it.

import { panelOf } from "./api.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("settings"));
const problem = /** @type {HTMLElement} */ (document.getElementById("settings-problem"));
const model = /** @type {HTMLSelectElement} */ (document.getElementById("model"));

/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Control */

const controls = () =>
  /** @type {Control[]} */ ([...form.elements].filter((one) => /** @type {HTMLElement} */ (one).dataset.kind));

/**
 * What a field says; undefined if nothing was chosen.
 * @type {Record<string, (control: any) => unknown>}
 */
const READ = {
  number: (control) => (control.value === "" ? undefined : Number(control.value)),
  choice: (control) => control.value || undefined,
  switch: (control) => control.checked || undefined,
  lines: (control) => {
    const lines = control.value.split("\n").filter(Boolean);
    return lines.length ? lines : undefined;
  },
};

/** @returns {{model: string, system: string, params: Record<string, unknown>}} what is chosen */
export function chosen() {
  /** @type {Record<string, unknown>} */
  const params = {};
  let system = "";
  for (const control of controls()) {
    if (control.dataset.kind === "system") system = control.value;
    else {
      const value = READ[control.dataset.kind ?? ""](control);
      if (value !== undefined) params[control.name] = value;
    }
  }
  return { model: model.value, system, params };
}

/** @param {string} [text] what is wrong with a choice; nothing if all is well */
export function complain(text) {
  problem.textContent = text ?? "";
  problem.hidden = !text;
}

/** Show the defaults of the model that is chosen, where nothing else was. */
async function showDefaults() {
  for (const field of await panelOf(model.value)) {
    const control = /** @type {Control | null} */ (form.elements.namedItem(field.name));
    if (control?.dataset.kind === "number") {
      /** @type {HTMLInputElement} */ (control).placeholder = field.default === null ? "none" : String(field.default);
    }
  }
}

/** @param {() => void} changed called after each change */
export function start(changed) {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", changed);
  model.addEventListener("change", () => {
    changed();
    showDefaults();
  });
  document.getElementById("reset")?.addEventListener("click", () => {
    for (const control of controls()) {
      if (control.dataset.kind === "switch") /** @type {HTMLInputElement} */ (control).checked = false;
      else if (control instanceof HTMLSelectElement) {
        control.selectedIndex = [...control.options].findIndex((option) => option.value === "");
      } else if (control.dataset.kind !== "system") control.value = "";
    }
    changed();
  });
}
