// Keeps the Runs pages fresh while somebody looks at them, and tells the values of curves under the pointer.

const EVERY = 2000; // milliseconds
const LEFT = 52; // where curves begin and end in their pictures
const RIGHT = 430;

/** @type {PointerEvent | null} where the pointer was last */
let pointer = null;
const live = document.querySelector("[data-live]");

/** Takes the parts that have changed from the server; what is open, ticked or focused stays so. */
async function refresh() {
  const address = live?.getAttribute("data-live");
  if (!live || !address || document.hidden) return;
  const answer = await fetch(address).catch(() => null); // a server that is gone leaves the last picture
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = live.querySelector(`[data-part="${part.getAttribute("data-part")}"]`);
    if (!old || told(old) === told(part)) continue;
    keep(old, part);
    const held = reachable(old).findIndex((element) => element === document.activeElement);
    const now = document.importNode(part, true);
    old.replaceWith(now);
    if (held >= 0) reachable(now)[held]?.focus();
  }
  if (pointer) point(document.elementFromPoint(pointer.clientX, pointer.clientY), pointer.clientX);
}

/**
 * @param {Element} part
 * @returns {HTMLElement[]} what the Tab key reaches in it
 */
function reachable(part) {
  return [...part.querySelectorAll("a, button, input, summary, [tabindex]")];
}

/**
 * @param {Element} part
 * @returns {string} what it says, without what this script has added
 */
function told(part) {
  const copy = /** @type {Element} */ (part.cloneNode(true));
  for (const added of copy.querySelectorAll(".run-cursor")) added.remove();
  for (const output of copy.querySelectorAll("output")) output.textContent = "";
  return copy.innerHTML.replace(/ open=""/g, "");
}

/**
 * @param {Element} old
 * @param {Element} fresh
 */
function keep(old, fresh) {
  const details = old.querySelector("details");
  if (details?.open) fresh.querySelector("details")?.setAttribute("open", "");
  for (const box of /** @type {NodeListOf<HTMLInputElement>} */ (old.querySelectorAll("input:checked"))) {
    fresh.querySelector(`input[value="${CSS.escape(box.value)}"]`)?.setAttribute("checked", "");
  }
}

/**
 * @param {SVGSVGElement} picture
 * @param {number} across 0 … 1 from the first value to the last
 */
function tell(picture, across) {
  const [left, right, bottom, top] = (picture.dataset.range ?? "").split(" ").map(Number);
  const box = picture.viewBox.baseVal;
  const place = LEFT + across * (RIGHT - LEFT);
  const values = [...picture.querySelectorAll(".run-mean")].map((path) => {
    const near = nearest(path.getAttribute("d") ?? "", place);
    return near === null ? "–" : (bottom + ((box.height - 26 - near) / (box.height - 36)) * (top - bottom)).toPrecision(4);
  });
  const output = picture.closest("figure")?.querySelector("output");
  if (output) output.textContent = `${values.join(" · ")} at ${Math.round(left + across * (right - left)).toLocaleString("en")}`;
  let cursor = picture.querySelector(".run-cursor");
  if (!cursor) {
    cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "run-cursor");
    picture.append(cursor);
  }
  cursor.setAttribute("d", `M${place} 10V${box.height - 26}`);
}

/**
 * @param {string} path made of M and L only
 * @param {number} place
 * @returns {number | null} the height of the point that is nearest to a place; null beyond the path's ends
 */
function nearest(path, place) {
  const points = path.slice(1).split("L").map((point) => point.split(" ").map(Number));
  if (!path || place < points[0][0] - 2 || place > points[points.length - 1][0] + 2) return null;
  let best = points[0];
  for (const point of points) if (Math.abs(point[0] - place) < Math.abs(best[0] - place)) best = point;
  return best[1];
}

/**
 * @param {EventTarget | null} target what lies under the pointer
 * @param {number} x of the pointer
 */
function point(target, x) {
  const picture = target instanceof Element ? target.closest("svg[data-range]") : null;
  if (!(picture instanceof SVGSVGElement)) return;
  const box = picture.getBoundingClientRect();
  const place = ((x - box.left) / box.width) * picture.viewBox.baseVal.width;
  tell(picture, Math.min(1, Math.max(0, (place - LEFT) / (RIGHT - LEFT))));
}

document.addEventListener("pointermove", (event) => {
  pointer = event;
  point(event.target, event.clientX);
});

if (live) {
  setInterval(() => void refresh(), EVERY);
  document.addEventListener("visibilitychange", () => void refresh());
}
