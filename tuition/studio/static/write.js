// The editor: saves as one types, keeps a copy in this browser, never overwrites another tab's text.
// Without it every button still works as a plain form.
"use strict";

document.documentElement.classList.add("scripted");

// A text that was sent needs no copy here any more: the page that follows shows that it arrived.
function forgetWhatWasSent(task) {
  const sent = sessionStorage.getItem("sent");
  if (sent && sent !== task) {
    localStorage.removeItem(`draft-${sent}`);
    sessionStorage.removeItem("sent");
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("answer");
  forgetWhatWasSent(form?.dataset.task);
  if (!form) return;
  const boxes = [...form.querySelectorAll("textarea[name=turn]")];
  const state = document.getElementById("state");
  const address = `/write/${form.dataset.task}/draft`;
  const mirror = `draft-${form.dataset.task}`;
  let rev = Number(form.elements.rev.value);
  let saved = JSON.stringify(boxes.map((box) => box.defaultValue)); // somebody may have typed before this ran
  let timer = 0;
  let sending = false;
  let conflicted = false;

  function texts(some = boxes) { return JSON.stringify(some.map((box) => box.value)); }
  function show(sentence) { state.textContent = sentence; }

  // A saved text is kept too: the page that comes next may have been drawn just before it was saved.
  function keep(some = boxes) {
    try {
      localStorage.setItem(mirror, JSON.stringify({ rev, texts: texts(some), isSaved: texts(some) === saved }));
    } catch { /* a full or forbidden storage: the server still has what was saved */ }
  }

  function body() {
    const fields = new URLSearchParams({ rev });
    for (const box of boxes) fields.append("turn", box.value);
    return fields;
  }

  function later(milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(() => { timer = 0; save(); }, milliseconds);
  }

  async function save(last = false) {
    if (texts() === saved || (sending && !last) || conflicted) return;
    sending = true;
    const sent = texts();
    try {
      const answer = await fetch(address, {
        method: "POST", body: body(), keepalive: last && sent.length < 60000, headers: { Accept: "application/json" },
      });
      if (answer.status === 200) {
        rev = (await answer.json()).rev;
        form.elements.rev.value = rev;
        saved = sent;
        show("Saved.");
      } else if (answer.status === 409 && answer.headers.get("content-type").startsWith("application/json")) {
        collide(await answer.json());
      } else {
        show(`Not saved: ${(await answer.text()).slice(0, 300)}`);
      }
    } catch {
      show("The studio does not answer. What you typed is kept in this browser; saving goes on by itself.");
      later(3000);
    } finally {
      sending = false;
      keep();
      if (texts() !== saved && !conflicted && !timer) later(800);
    }
  }

  function collide(theirs) {
    if (JSON.stringify(theirs.turns) === texts()) { // this tab's own last words, sent while it was left
      rev = theirs.rev;
      form.elements.rev.value = rev;
      saved = texts();
      show("Saved.");
      return;
    }
    conflicted = true;
    show("Not saved: another tab was first.");
    document.getElementById("theirs").textContent = theirs.turns.join("\n\n");
    document.getElementById("conflict").hidden = false;
    document.getElementById("conflict").scrollIntoView({ block: "nearest" });
    // from now on this tab's text is meant to follow theirs, once the person saves or sends it
    rev = theirs.rev;
    form.elements.rev.value = rev;
    document.getElementById("take-theirs").onclick = () => {
      theirs.turns.forEach((text, n) => { if (boxes[n]) boxes[n].value = text; });
      saved = texts();
      conflicted = false;
      document.getElementById("conflict").hidden = true;
      show("Saved.");
      keep();
    };
  }

  function fill(old) {
    old.forEach((text, n) => { boxes[n].value = text; boxes[n].dispatchEvent(new Event("input", { bubbles: true })); });
  }

  function restore() {
    let kept = null;
    try { kept = JSON.parse(localStorage.getItem(mirror)); } catch { return; }
    if (!kept || kept.texts === saved || (kept.isSaved && kept.rev <= rev)) return;
    const old = JSON.parse(kept.texts);
    const fits = old.length === boxes.length && texts() === saved;
    if (old.every((text, n) => boxes[n]?.value === text)) { // a button carried it here, and may have added turns
      keep();
    } else if (kept.isSaved && fits) {
      fill(old);
      rev = kept.rev;
      form.elements.rev.value = rev;
      saved = texts();
      show("Saved.");
      keep();
    } else if (kept.rev === rev && fits) {
      fill(old);
      show("This browser had kept what was not saved yet; it is back in the box.");
      save();
    } else {
      document.getElementById("theirs").textContent = old.join("\n\n");
      document.querySelector("#conflict h2").textContent = "This browser kept another text of this draft";
      document.getElementById("conflict").hidden = false;
      document.getElementById("take-theirs").onclick = () => {
        old.forEach((text, n) => { if (boxes[n]) boxes[n].value = text; });
        document.getElementById("conflict").hidden = true;
        save();
      };
    }
  }

  form.addEventListener("input", () => {
    keep();
    later(600);
  });
  form.addEventListener("submit", (event) => {
    const unsaid = ["question", "flagged"].some((name) => form.elements[name].value.trim());
    if (unsaid && !event.submitter?.closest("details") && !confirm("Your question or flag is not sent yet, and would be lost. Go on without it?")) {
      event.preventDefault();
      return;
    }
    clearTimeout(timer);
    if (!event.submitter?.hasAttribute("formaction")) sessionStorage.setItem("sent", form.dataset.task);
    if (event.submitter?.value === "false") keep(boxes.slice(0, -2)); // the last turns are taken away
    conflicted = true; // the form itself carries the text from here on
  });
  window.addEventListener("pagehide", () => save(true));
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") save(true); });
  window.addEventListener("storage", (event) => {
    if (event.key === mirror && event.newValue) show("This draft is open in another tab too.");
  });

  let visible = 0;
  setInterval(() => {
    if (document.visibilityState === "visible") { visible += 1; form.elements.seconds.value = visible; }
  }, 1000);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) {
      event.preventDefault();
      form.requestSubmit(event.target.closest("details")?.querySelector("button")); // a question is asked, an answer sent
    } else if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    }
  });

  restore();
  if (texts() !== saved) for (const box of boxes) box.dispatchEvent(new Event("input", { bubbles: true }));
});
