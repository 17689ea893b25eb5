// Answers shown as they are written. Without this file the form is sent as a form, and both answers come at once.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("chat");
  if (!form) return;
  const text = document.getElementById("text");
  const send = document.getElementById("send");
  const cease = document.getElementById("cease");
  let stopping = null;

  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit(send);
    }
  });
  cease.addEventListener("click", () => stopping?.abort());

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = text.value;
    if (!asked.trim() || stopping) return;
    text.value = "";
    stopping = new AbortController();
    send.disabled = true;
    cease.hidden = false;
    // one after the other: the machine writes one answer at a time
    for (const side of ["tuned", "base"]) await answer(side, asked, stopping.signal);
    stopping = null;
    send.disabled = false;
    cease.hidden = true;
    text.focus();
  });

  async function answer(side, asked, signal) {
    const field = form.elements[`history_${side}`];
    const model = form.elements[side].value;
    const history = [...JSON.parse(field.value), { role: "user", content: asked }];
    add(side, "user", "You").textContent = asked;
    const place = add(side, "assistant", model);
    place.textContent = "…";
    let written = "";
    try {
      const body = new URLSearchParams({
        model, history: JSON.stringify(history), tokens: form.elements.tokens.value, temperature: form.elements.temperature.value,
      });
      const response = await fetch("/chat/answer", { method: "POST", body, signal, headers: { Accept: "text/plain" } });
      if (!response.ok) throw new Error(await response.text());
      const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) {
        written += piece.value;
        place.textContent = written;
        place.scrollIntoView({ block: "nearest" });
      }
      place.textContent = written || "(an empty answer)";
    } catch (error) {
      if (error.name !== "AbortError") {
        place.textContent = error.message;
        place.classList.add("bad-text");
        return;
      }
      place.textContent = `${written} (stopped)`;
    }
    field.value = JSON.stringify([...history, { role: "assistant", content: written }]);
  }

  function add(side, role, who) {
    const turn = document.createElement("div");
    turn.className = `turn ${role}`;
    const name = document.createElement("p");
    name.className = "who";
    name.textContent = who;
    const words = document.createElement("div");
    words.className = "literal";
    turn.append(name, words);
    document.getElementById(`turns-${side}`).append(turn);
    return words;
  }
});
