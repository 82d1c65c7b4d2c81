// Runs before the first paint, so that a kept choice of colours does not flash. The button lives in shell.js.
"use strict";

try {
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch {
  // storage is switched off: the system's choice stands
}
