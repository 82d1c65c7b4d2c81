// Input methods: a key that belongs to a character being composed is not ours.

/**
 * @param {KeyboardEvent} event
 * @returns {boolean} whether an input method takes this key; Safari ends a composition before its last keydown and
 *   tells by the code 229 alone
 */
export const composes = (event) => event.isComposing || event.keyCode === 229;
