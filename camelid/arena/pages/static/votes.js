// A vote is a ticket that is good once. One that does not arrive is sent again, the same: it cannot count twice.

import { call, Problem } from "./api.js";

const WAITS = [500, 1000, 2000, 4000, 8000]; // milliseconds before each further try
const KEPT = "arena-vote";

/** @typedef {{id: string, ticket: string, vote: string}} Vote */

/**
 * Send a vote until the server has answered it.
 * @param {Vote} vote
 * @param {(text: string) => void} say told when it has to be sent again
 * @returns {Promise<any>} the server's answer, with the models
 */
export async function cast(vote, say) {
  keep(vote);
  for (let tries = 0; ; tries++) {
    try {
      const answer = await call("POST", "/votes", { ticket: vote.ticket, vote: vote.vote });
      forget();
      return answer;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!isPassing(error.status)) {
        forget(); // it was refused, for a reason that another try does not change
        throw error;
      }
      if (tries === WAITS.length) throw error;
      say("Your vote has not arrived yet; it is sent again.");
      await new Promise((resolve) => setTimeout(resolve, WAITS[tries]));
    }
  }
}

/** @param {number} status of HTTP; 0 if there was no answer */
export const isPassing = (status) => status === 0 || status === 429 || status >= 500;

/** @returns {Vote | null} one that was not answered before the page was left */
export function pending() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  } catch {
    return null;
  }
}

/** @param {Vote} vote */
function keep(vote) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(vote));
  } catch {
    // storage is switched off: the vote lives as long as the page
  }
}

function forget() {
  try {
    sessionStorage.removeItem(KEPT);
  } catch {
    // nothing was kept
  }
}
