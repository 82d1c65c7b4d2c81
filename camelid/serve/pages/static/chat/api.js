// Asking the server: JSON, and streams of events.

import { link } from "../root.js";

/** What the server says is wrong, in words for people. */
export class Problem extends Error {}

/**
 * @param {string} method
 * @param {string} path below /api/conversations
 * @param {object} [body]
 * @returns {Promise<any>} the answer's JSON; null if it has none
 */
export async function call(method, path, body) {
  const options = { method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body) };
  const response = await fetch(`${link("/api/conversations")}${path}`, options).catch(() => null);
  if (!response?.ok) throw new Problem(reason(response?.status ?? 0, (await response?.text()) ?? ""));
  return response.status === 204 ? null : response.json();
}

/**
 * An answer as it is written. This is no fetch: Chromium reports every stream that a fetch has read to its end as a
 * request that failed.
 * @param {string} path below /api/conversations
 * @param {object | undefined} body
 * @param {AbortSignal} signal hanging up stops the answer, and ends the events
 * @returns {AsyncGenerator<any>} events, each with a type
 */
export async function* stream(path, body, signal) {
  const request = new XMLHttpRequest();
  let wake = () => {};
  request.onprogress = request.onloadend = () => wake();
  signal.addEventListener("abort", () => request.abort());
  request.open("POST", `${link("/api/conversations")}${path}`);
  request.setRequestHeader("content-type", "application/json");
  request.send(body && JSON.stringify(body));
  for (let place = 0, ended = false; !ended; ) {
    const news = new Promise((resolve) => (wake = () => resolve(null)));
    ended = request.readyState === XMLHttpRequest.DONE;
    if (request.status === 200) {
      const end = request.responseText.lastIndexOf("\n\n");
      for (const part of request.responseText.slice(place, Math.max(place, end)).split("\n\n")) {
        if (part.startsWith("data: ")) yield checked(JSON.parse(part.slice(6))); // else it keeps the connection open
      }
      place = Math.max(place, end + 2);
    }
    if (!ended) await news;
  }
  if (request.status !== 200 && !signal.aborted) throw new Problem(reason(request.status, request.responseText));
}

/**
 * What can be chosen for a model's answers.
 * @param {string} model
 * @returns {Promise<any[]>}
 */
export async function panelOf(model) {
  const response = await fetch(`${link("/api/panel")}?model=${encodeURIComponent(model)}`);
  return response.ok ? response.json() : [];
}

/**
 * @param {any} event
 * @returns {any} the same, unless it says that the stream cannot go on
 */
function checked(event) {
  if (event.error) throw new Problem(event.error.message);
  return event;
}

/**
 * @param {number} status of HTTP; 0 if there was no answer, or not all of it
 * @param {string} text
 * @returns {string}
 */
function reason(status, text) {
  if (!status) return "The server does not answer. Is camelid serve still running?";
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `The server answered ${status}.`;
  }
}
