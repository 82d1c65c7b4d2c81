// The path under which a proxy serves these pages: this file lies in static/VERSION/ below it.

/**
 * @param {string} path of the server, as /chat
 * @returns {string} its address here
 */
export const link = (path) => new URL(`../..${path}`, import.meta.url).pathname;
