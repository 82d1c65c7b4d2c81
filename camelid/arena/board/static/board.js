// Shows what was chosen, searched or sorted at once; the server makes the page, and without this the form's button and
// the links do the same.

const form = document.querySelector(".board-choose");
const live = document.getElementById("board-live");
let asked = 0;
let waiting = 0;

/** @param {string} address @param {string} [focus] what is to have the keyboard afterwards */
async function show(address, focus) {
  const number = ++asked;
  const answer = await fetch(address, { headers: { Accept: "text/html" } }).catch(() => null);
  if (number !== asked || !live) return; // something else was chosen meanwhile
  if (!answer || !answer.ok) {
    location.assign(address);
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const made = page.getElementById("board-live");
  if (number !== asked || !made) return;
  const left = live.querySelector(".table")?.scrollLeft ?? 0;
  live.replaceChildren(...made.childNodes);
  const table = live.querySelector(".table");
  if (table) table.scrollLeft = left;
  const views = page.querySelector(".board-views");
  if (views) document.querySelector(".board-views")?.replaceWith(views);
  const sort = page.querySelector('.board-choose input[name="sort"]');
  form?.querySelector('input[name="sort"]')?.remove();
  if (sort) form?.prepend(sort);
  history.replaceState(null, "", address);
  if (focus) live.querySelector(`th.${focus} a`)?.focus();
}

function choose() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.append(name, String(value));
  show(`${form.getAttribute("action")}${query.size ? `?${query}` : ""}`);
}

if (form instanceof HTMLFormElement && live) {
  form.addEventListener("change", choose);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    choose();
  });
  form.addEventListener("input", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.type === "search") {
      clearTimeout(waiting);
      waiting = setTimeout(choose, 150);
    }
  });
  live.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[data-sort]") : null;
    if (!(link instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(link.pathname + link.search, link.closest("th")?.classList[0]);
  });
}
