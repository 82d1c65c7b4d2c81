// What the Flow page asks the server for.

import { link } from "../root.js";

/**
 * @typedef {import("./make.js").Token} Token
 * @typedef {{top: [string, number][], entropy: number, attention: number, feed_forward: number,
 *   stream: number}} LensLayer pieces with their probabilities, bits, and lengths
 * @typedef {{position: number, layers: LensLayer[]}} Lens
 * @typedef {Token & {probability: number, left: number, begins: number, fell: string | null}} Row
 * @typedef {{rows: Row[], others: [number, number], params: Record<string, number>,
 *   steps: {name: string, field: string | null, n_left: number, note: string}[]}} Outcome
 * @typedef {{ids: number[], n_prompt: number, longest: number, shape: Record<string, number>, tokens: Token[],
 *   embedding: {width: number, scale: number, levels: string, norms: number[]}, frequencies: number[], lens: Lens,
 *   telling: {layer: number, head: number}, outcome: Outcome}} Stage
 * @typedef {Token & {probability: number, number: number | null}} Chosen
 */

/** A mistake that the server has told in words. */
export class Refused extends Error {}

/** @param {string} path @param {object} body @param {AbortSignal} [signal] */
async function post(path, body, signal) {
  const ask = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
  const answer = await fetch(`${link("/api/flow")}${path}`, ask).catch((error) => {
    if (error instanceof TypeError) throw new Refused("The server cannot be reached; is it still running?");
    throw error;
  });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Refused(told?.error?.message ?? `The server answered ${answer.status}.`);
}

/** @param {object} ask @param {AbortSignal} [signal] @returns {Promise<Stage>} */
export const start = async (ask, signal) => (await post("", ask, signal)).json();

/** @param {object} ask @param {AbortSignal} [signal] @returns {Promise<{chosen: Chosen, stage: Stage}>} */
export const step = async (ask, signal) => (await post("/step", ask, signal)).json();

/** @param {object} ask @param {AbortSignal} [signal] @returns {Promise<Outcome>} */
export const outcome = async (ask, signal) => (await post("/outcome", ask, signal)).json();

/** @param {object} ask @param {AbortSignal} [signal] @returns {Promise<Lens>} */
export const lens = async (ask, signal) => (await post("/lens", ask, signal)).json();

/** A layer's attention. @param {object} ask @param {number} length @param {AbortSignal} [signal] */
export async function attention(ask, length, signal) {
  return new Attention(new Uint8Array(await (await post("/attention", ask, signal)).arrayBuffer()), length);
}

/** The weights of all heads of a layer; each position looks at itself and those before it. */
export class Attention {
  /** @param {Uint8Array} bytes @param {number} length */
  constructor(bytes, length) {
    this.bytes = bytes;
    this.length = length;
  }

  /** From 0 to 1. @param {number} head @param {number} from @param {number} to */
  weight(head, from, to) {
    if (to > from) return 0;
    const triangle = (this.length * (this.length + 1)) / 2;
    return this.bytes[head * triangle + (from * (from + 1)) / 2 + to] / 255;
  }
}
