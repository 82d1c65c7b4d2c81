// What Direct Chat asks of the server.

import * as requests from "../requests.js";
import { link } from "../root.js";

export { Problem } from "../requests.js";

/** @param {string} path below /api/conversations */
const address = (path) => `${link("/api/conversations")}${path}`;

/**
 * @param {string} method
 * @param {string} path below /api/conversations
 * @param {object} [body]
 * @returns {Promise<any>} the answer's JSON; null if it has none
 */
export const call = (method, path, body) => requests.call(method, address(path), body);

/**
 * An answer as it is written.
 * @param {string} path below /api/conversations
 * @param {object | undefined} body
 * @param {AbortSignal} signal hanging up stops the answer, and ends the events
 * @returns {AsyncGenerator<any>} events, each with a type
 */
export const stream = (path, body, signal) => requests.stream(address(path), body, signal);

/**
 * What can be chosen for a model's answers.
 * @param {string} model
 * @returns {Promise<any[]>}
 */
export async function panelOf(model) {
  const response = await fetch(`${link("/api/panel")}?model=${encodeURIComponent(model)}`);
  return response.ok ? response.json() : [];
}
