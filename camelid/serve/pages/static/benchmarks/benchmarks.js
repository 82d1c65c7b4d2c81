// Goes from item to item, and from page to page of a list, by the arrow keys; the links work without it.

const WAYS = { ArrowLeft: "prev", ArrowRight: "next" };

document.addEventListener("keydown", (event) => {
  const way = WAYS[/** @type {keyof typeof WAYS} */ (event.key)];
  if (!way || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const at = event.target instanceof Element ? event.target : null;
  if (at?.closest("input, select, textarea")) return;
  const wide = at?.closest(".table, pre");
  if (wide && wide.scrollWidth > wide.clientWidth) return; // there the keys scroll
  const link = document.querySelector(`a[rel="${way}"]`);
  if (link instanceof HTMLAnchorElement) link.click();
});
