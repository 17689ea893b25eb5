// Single keys press what carries them in data-key, unless somebody is typing. Ctrl Enter sends what was typed.
"use strict";

document.documentElement.classList.add("scripted");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("textarea, select, input:not([type=radio], [type=checkbox])")) return;
  const pressed = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key.toLowerCase());
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
  pressed.closest("details[open]")?.querySelector("textarea")?.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const send = event.target.closest("details")?.querySelector("[data-send]");
  if (!send) return;
  event.preventDefault();
  send.click();
});

// How long the page was looked at, for those who ask.
document.addEventListener("DOMContentLoaded", () => {
  const field = document.querySelector("input[name=seconds]");
  if (!field) return;
  let visible = 0;
  setInterval(() => {
    if (document.visibilityState === "visible") { visible += 1; field.value = visible; }
  }, 1000);
});
