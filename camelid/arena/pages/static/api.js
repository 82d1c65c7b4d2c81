// What the arena's pages ask of the server.

import * as requests from "../requests.js";
import { link } from "../root.js";

export { Problem } from "../requests.js";

const UNREACHED = "The arena does not answer. Check the connection.";

/** @param {string} path below /arena/api */
const address = (path) => `${link("/arena/api")}${path}`;

/**
 * @param {string} method
 * @param {string} path below /arena/api
 * @param {object} [body]
 * @returns {Promise<any>} the answer's JSON; null if it has none
 */
export const call = (method, path, body) => requests.call(method, address(path), body).catch(ours);

/**
 * @param {string} path below /arena/api
 * @param {object | undefined} body
 * @param {AbortSignal} signal hanging up stops both answers
 * @returns {AsyncGenerator<any>} events, each with a type
 */
export async function* stream(path, body, signal) {
  try {
    yield* requests.stream(address(path), body, signal);
  } catch (error) {
    ours(error);
  }
}

/**
 * @param {unknown} error
 * @returns {never}
 */
function ours(error) {
  if (error instanceof requests.Problem && error.status === 0) error.message = UNREACHED;
  throw error;
}
