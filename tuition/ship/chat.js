// Each model keeps its own history; answers are asked for one after the other, as the server gives them.
"use strict";
const byId = (id) => document.getElementById(id);
const histories = new Map();

function headers() {
  const key = byId("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function say(column, kind, text) {
  const line = document.createElement("p");
  line.className = `said ${kind}`;
  line.textContent = text;
  column.append(line);
  return line;
}

async function start() {
  const health = await (await fetch("health")).json();
  byId("key-line").hidden = !health.key;
  if (!health.key) await showModels();
  else byId("key").addEventListener("change", showModels);
}

async function showModels() {
  const answer = await fetch("v1/models", { headers: headers() });
  if (!answer.ok) { byId("state").textContent = "The key is wrong."; return; }
  byId("state").textContent = "";
  byId("models").replaceChildren();
  histories.clear();
  for (const { id } of (await answer.json()).data) {
    const column = document.createElement("section");
    const title = document.createElement("h2");
    title.textContent = id;
    column.append(title);
    byId("models").append(column);
    histories.set(id, { column, messages: [] });
  }
}

async function ask(model, text) {
  const { column, messages } = histories.get(model);
  messages.push({ role: "user", content: text });
  say(column, "user", text);
  const line = say(column, "assistant", "");
  const answer = await fetch("v1/chat/completions", {
    method: "POST", headers: headers(), body: JSON.stringify({ model, messages, stream: true }),
  });
  if (!answer.ok) {
    line.classList.add("error");
    line.textContent = (await answer.json()).error.message;
    messages.pop();
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") continue;
      line.textContent += JSON.parse(event.slice(6)).choices[0]?.delta.content ?? "";
    }
  }
  messages.push({ role: "assistant", content: line.textContent });
}

function busy(is, text) {
  byId("send").disabled = byId("again").disabled = is;
  byId("state").textContent = text;
}

// A message leaves its field only when there is somebody to answer it, and the next one waits for its answers.
byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = byId("text").value;
  if (byId("send").disabled) return;
  busy(true, "Answering …");
  try {
    await started;
    if (!histories.size) { busy(false, "Give the API key first."); return; }
    byId("text").value = "";
    for (const model of histories.keys()) await ask(model, text);
    busy(false, "");
  } catch {
    busy(false, "The server does not answer.");
  }
});
byId("again").addEventListener("click", showModels);
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); byId("ask").requestSubmit(); }
});
byId("send").disabled = false; // until here a message would have gone nowhere
const started = start();
started.catch(() => busy(false, "The server does not answer."));
