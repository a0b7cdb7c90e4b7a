// Runs before the page is drawn, so that a chosen theme does not flash in the other one.
"use strict";
{
  const chosen = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const keep = (theme) => { try { theme ? localStorage.setItem("theme", theme) : localStorage.removeItem("theme"); } catch { /* not allowed here */ } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const theme = chosen();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  // Browsers load neither modules nor models from a disk.
  const unserved = () => {
    const box = document.getElementById("problem");
    box.querySelector(".cause").textContent = "This page works only when a web server sends it.";
    box.querySelector(".hint").textContent = "In its folder run `python3 -m http.server`, and open http://localhost:8000/.";
    box.hidden = false;
  };

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => {
      button.setAttribute("aria-pressed", dark());
      button.title = dark() ? "Switch to light" : "Switch to dark";
    };
    button.addEventListener("click", () => {
      const next = dark() ? "light" : "dark";
      const same = (next === "dark") === system.matches;
      if (same) delete root.dataset.theme; else root.dataset.theme = next;
      keep(same ? null : next);
      say();
    });
    system.addEventListener("change", say);
    say();
    if (location.protocol === "file:") unserved();
  });
}
