// The battle that this tab shows, for when the page is loaded again.

import { call, Problem } from "./api.js";

/** @param {string} mode @returns {string} the name that it is kept under */
const name = (mode) => `arena-${mode}`;

/**
 * @param {string} mode
 * @param {string} id empty: none
 */
export function keep(mode, id) {
  try {
    if (id) sessionStorage.setItem(name(mode), id);
    else sessionStorage.removeItem(name(mode));
  } catch {
    // storage is switched off: a page that is loaded again begins anew
  }
}

/** @param {string} mode @returns {Promise<any>} the battle; null if there is none, or it is gone */
export async function kept(mode) {
  try {
    const id = sessionStorage.getItem(name(mode));
    return id && (await call("GET", `/battles/${id}`));
  } catch (error) {
    if (error instanceof Problem && error.status === 404) keep(mode, "");
    return null;
  }
}
