// A conversation as a picture: drawn on a canvas from what the page shows, in the page's colours.

const WIDTH = 1200;
const HIGHEST = 8000; // pixels of the page; browsers draw no canvas much higher, and nobody reads one
const SCALE = 1.5;
const EDGE = 40;
const GAP = 24;
const INSIDE = 20;

/** @typedef {{words: string, font: string, colour: string, x: number, height: number}} Line */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLElement[]} turns as the page shows them
 * @param {string} foot what stands below
 */
export function draw(canvas, turns, foot) {
  const colours = palette();
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const column = (WIDTH - 2 * EDGE - GAP) / 2;
  const plan = turns.map((turn) => ({
    question: lines(context, textOf(turn, ".message .body"), WIDTH - 2 * EDGE - 2 * INSIDE, colours),
    answers: ["a", "b"].map((side) => {
      const article = /** @type {HTMLElement} */ (turn.querySelector(`[data-side=${side}]`));
      return { article, lines: lines(context, textOf(article, ".body"), column - 2 * INSIDE, colours) };
    }),
  }));
  const heights = plan.map(({ question, answers }) => ({
    question: sum(question) + 2 * INSIDE,
    answers: Math.max(...answers.map((one) => sum(one.lines))) + 2 * INSIDE + 34,
  }));
  const whole = heights.reduce((height, one) => height + one.question + one.answers + 2 * GAP, EDGE) + 48;
  const height = Math.min(whole, HIGHEST);
  canvas.width = WIDTH * SCALE;
  canvas.height = height * SCALE;
  context.setTransform(SCALE, 0, 0, SCALE, 0, 0);
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, WIDTH, height);
  let top = EDGE;
  plan.forEach(({ question, answers }, at) => {
    box(context, EDGE, top, WIDTH - 2 * EDGE, heights[at].question, colours.wash, colours.wash);
    write(context, question, EDGE + INSIDE, top + INSIDE);
    top += heights[at].question + GAP;
    answers.forEach((one, place) => {
      const x = EDGE + place * (column + GAP);
      const won = one.article.hasAttribute("data-won");
      box(context, x, top, column, heights[at].answers, colours.raised, won ? colours.accent : colours.line, won ? 3 : 1);
      context.fillStyle = colours.muted;
      context.font = `600 15px ${colours.sans}`;
      context.fillText(heading(one.article), x + INSIDE, top + INSIDE, column - 2 * INSIDE);
      write(context, one.lines, x + INSIDE, top + INSIDE + 34);
    });
    top += heights[at].answers + GAP;
  });
  context.fillStyle = colours.paper; // where it was cut, the foot stands on paper of its own
  context.fillRect(0, height - 48, WIDTH, 48);
  context.fillStyle = colours.muted;
  context.font = `14px ${colours.sans}`;
  context.fillText(whole > HIGHEST ? `Cut off here. ${foot}` : foot, EDGE, height - 32, WIDTH - 2 * EDGE);
}

/** @param {HTMLElement} article */
function heading(article) {
  const words = [...(article.querySelector(".name")?.childNodes ?? [])].map((node) => node.textContent?.trim());
  return words.filter(Boolean).join("  ");
}

/** @returns {Record<string, string>} the page's colours and letters as they are now */
function palette() {
  const probe = document.createElement("span");
  document.body.append(probe);
  const named = ["paper", "raised", "ink", "muted", "line", "accent", "wash"].map((name) => {
    probe.className = `colour-${name}`;
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  const style = getComputedStyle(document.documentElement);
  return { ...Object.fromEntries(named), sans: style.getPropertyValue("--sans"), mono: style.getPropertyValue("--mono") };
}

/** @param {Element} within @param {string} where @returns {{words: string, kind: string}[]} what stands there, by blocks */
function textOf(within, where) {
  const body = /** @type {HTMLElement} */ (within.querySelector(where));
  const blocks = body.querySelectorAll("p, li, h3, h4, h5, h6, pre, tr");
  const found = [...blocks].filter((block) => !block.matches("li:has(> p)")).map(asBlock);
  return found.length ? found : [{ words: body.textContent ?? "", kind: "p" }];
}

/** @param {Element} block */
function asBlock(block) {
  const kind = block.tagName.toLowerCase();
  if (kind === "pre") return { words: (block.textContent ?? "").trimEnd(), kind };
  const cells = kind === "tr" ? [...block.children].map((cell) => cell.textContent?.trim()).join("  |  ") : null;
  const own = [...block.childNodes].filter((node) => !(node instanceof Element && node.matches("ul, ol")));
  const words = cells ?? own.map((node) => node.textContent).join("");
  const item = block.closest("li");
  const begins = item && (item === block || item.firstElementChild === block);
  const number = item?.parentElement?.tagName === "OL" ? `${[...item.parentElement.children].indexOf(item) + 1}. ` : "• ";
  return { words: (begins ? number : "") + words.trim(), kind: item && kind === "p" ? "li" : kind };
}

/**
 * Blocks of text in lines that fit.
 * @param {CanvasRenderingContext2D} context
 * @param {{words: string, kind: string}[]} blocks
 * @param {number} width
 * @param {Record<string, string>} colours
 * @returns {Line[]}
 */
function lines(context, blocks, width, colours) {
  /** @type {Line[]} */
  const made = [];
  for (const { words, kind } of blocks) {
    const size = kind === "pre" ? 14 : kind === "h3" ? 20 : 16;
    const font = kind === "pre" ? `14px ${colours.mono}` : `${/^h/.test(kind) ? 650 : 400} ${size}px ${colours.sans}`;
    context.font = font;
    const x = kind === "li" || kind === "pre" ? 14 : 0;
    const height = size * 1.5;
    for (const line of words.split("\n")) {
      for (const piece of wrapped(context, line, width - x)) made.push({ words: piece, font, colour: colours.ink, x, height });
    }
    made.push({ words: "", font, colour: colours.ink, x, height: kind === "li" || kind === "tr" ? 3 : 9 });
  }
  made.pop(); // nothing follows
  return made;
}

/** @param {CanvasRenderingContext2D} context @param {string} line @param {number} width @returns {string[]} */
function wrapped(context, line, width) {
  const pieces = [""];
  for (const word of line.split(/(?<=\s)/)) {
    const last = pieces.length - 1;
    if (context.measureText((pieces[last] + word).trimEnd()).width <= width) pieces[last] += word;
    else pieces.push(...broken(context, word, width));
  }
  return pieces[0] === "" && pieces.length > 1 ? pieces.slice(1) : pieces;
}

/** @param {CanvasRenderingContext2D} context @param {string} word @param {number} width @returns {string[]} that fit */
function broken(context, word, width) {
  const pieces = [""];
  for (const letter of word) {
    if (context.measureText(pieces[pieces.length - 1] + letter).width <= width) pieces[pieces.length - 1] += letter;
    else pieces.push(letter);
  }
  return pieces;
}

/** @param {Line[]} made */
const sum = (made) => made.reduce((height, line) => height + line.height, 0);

/** @param {CanvasRenderingContext2D} context @param {Line[]} made @param {number} left @param {number} top */
function write(context, made, left, top) {
  context.textBaseline = "top";
  for (const line of made) {
    context.font = line.font;
    context.fillStyle = line.colour;
    context.fillText(line.words, left + line.x, top);
    top += line.height;
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x @param {number} y @param {number} width @param {number} height
 * @param {string} fill @param {string} edge @param {number} [thick]
 */
function box(context, x, y, width, height, fill, edge, thick = 1) {
  context.beginPath();
  context.roundRect(x, y, width, height, 10);
  context.fillStyle = fill;
  context.fill();
  context.lineWidth = thick;
  context.strokeStyle = edge;
  context.stroke();
}
