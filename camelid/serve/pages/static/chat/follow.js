// Scrolling with an answer that grows, but not against a reader who has scrolled away.

const NEAR = 60; // pixels from the end that count as being there

const log = /** @type {HTMLElement} */ (document.getElementById("log"));
const button = /** @type {HTMLElement} */ (document.getElementById("to-end"));
let follows = true;
let last = 0;

const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;

/** Go to the end, and stay there while it moves. */
export function toEnd() {
  follows = true;
  log.scrollTop = log.scrollHeight;
  button.hidden = true;
}

/** The content has grown: stay at the end if the reader is there. */
export function follow() {
  if (follows) toEnd();
  else button.hidden = isAtEnd();
}

const leave = () => {
  follows = false;
};

// A wheel begins slowly, near the end; what it wants shows before the first scrolling does.
log.addEventListener("wheel", (event) => event.deltaY < 0 && leave(), { passive: true });
log.addEventListener("touchmove", leave, { passive: true });
log.addEventListener("keydown", (event) => ["ArrowUp", "PageUp", "Home"].includes(event.key) && leave());
log.addEventListener("scroll", () => {
  if (isAtEnd() && log.scrollTop > last) follows = true;
  else if (!isAtEnd() && log.scrollTop < last) follows = false; // growth moves nothing, so it was the reader
  last = log.scrollTop;
  button.hidden = follows || isAtEnd();
});
button.addEventListener("click", () => {
  toEnd();
  document.getElementById("question")?.focus();
});
new ResizeObserver(follow).observe(log);
