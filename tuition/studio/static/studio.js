// What every page does beyond plain forms: copying commands, local times, words about failed requests.
// Each action works without it.
"use strict";

function say(sentence) {
  const notice = document.getElementById("notice");
  notice.textContent = sentence;
  notice.hidden = false;
  notice.scrollIntoView({ block: "nearest" });
}

function dress(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
  }
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.valueOf())) {
      time.textContent = moment.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    }
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
  const word = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = word; }, 1500);
});

// A click that cannot be taken back asks first.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("htmx:responseError", (event) => say(event.detail.xhr.responseText.slice(0, 500)));
document.addEventListener("htmx:sendError", () => say("The studio does not answer. It may be restarting; what you typed stays here."));
document.addEventListener("htmx:load", (event) => dress(event.target));
document.addEventListener("DOMContentLoaded", () => dress(document));
