// Keeps the speeds of the Models page fresh while somebody looks at it.

import { link } from "../root.js";

const EVERY = 2000; // milliseconds

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch(link("/api/models")).catch(() => null); // a server that is gone leaves the last numbers
  if (!answer?.ok) return;
  for (const [name, live] of Object.entries(await answer.json())) {
    const card = [...document.querySelectorAll("[data-model]")].find((one) => one.getAttribute("data-model") === name);
    for (const [key, text] of Object.entries(live)) {
      const place = card?.querySelector(`[data-live="${key}"]`);
      if (place && place.textContent !== text) place.textContent = text;
    }
  }
}

setInterval(() => void refresh(), EVERY);
document.addEventListener("visibilitychange", () => void refresh());
