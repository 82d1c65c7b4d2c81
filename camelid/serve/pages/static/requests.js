// Asking the server: JSON, and streams of events.

/** What the server says is wrong, in words for people. */
export class Problem extends Error {
  /**
   * @param {string} message
   * @param {number} [status] of HTTP; 0 if there was no answer, or not all of it
   * @param {string | null} [code] the word for programs
   */
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * @param {string} method
 * @param {string} address
 * @param {object} [body]
 * @returns {Promise<any>} the answer's JSON; null if it has none
 */
export async function call(method, address, body) {
  const options = { method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body) };
  const response = await fetch(address, options).catch(() => null);
  if (!response?.ok) throw problem(response?.status ?? 0, (await response?.text().catch(() => "")) ?? "");
  return response.status === 204 ? null : response.json();
}

/**
 * Events as they come. This is no fetch: Chromium reports every stream that a fetch has read to its end as a request
 * that failed.
 * @param {string} address
 * @param {object | undefined} body
 * @param {AbortSignal} signal hanging up stops the answer, and ends the events
 * @returns {AsyncGenerator<any>} the data of each
 */
export async function* stream(address, body, signal) {
  const request = new XMLHttpRequest();
  let wake = () => {};
  request.onprogress = request.onloadend = () => wake();
  signal.addEventListener("abort", () => request.abort());
  request.open("POST", address);
  request.setRequestHeader("content-type", "application/json");
  request.send(body && JSON.stringify(body));
  for (let place = 0, ended = false; !ended; ) {
    const news = new Promise((resolve) => (wake = () => resolve(null)));
    ended = request.readyState === XMLHttpRequest.DONE || signal.aborted; // which leaves it unsent
    if (request.status === 200) {
      const end = request.responseText.lastIndexOf("\n\n");
      for (const part of request.responseText.slice(place, Math.max(place, end)).split("\n\n")) {
        const data = part.split("\n").find((line) => line.startsWith("data: ")); // else it keeps the connection open
        if (data) yield checked(JSON.parse(data.slice(6)));
      }
      place = Math.max(place, end + 2);
    }
    if (!ended) await news;
  }
  if (request.status !== 200 && !signal.aborted) throw problem(request.status, request.responseText);
}

/**
 * @param {any} event
 * @returns {any} the same, unless it says that the stream cannot go on
 */
function checked(event) {
  if (event.error) throw new Problem(event.error.message, 200, event.error.code);
  return event;
}

/**
 * @param {number} status of HTTP; 0 if there was no answer, or not all of it
 * @param {string} text
 * @returns {Problem}
 */
function problem(status, text) {
  if (!status) return new Problem("The server does not answer. Is camelid serve still running?");
  try {
    const { message, code } = JSON.parse(text).error;
    return new Problem(message, status, code);
  } catch {
    return new Problem(`The server answered ${status}.`, status);
  }
}
