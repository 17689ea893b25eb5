"use strict";
// Everything is put into the page as text, never as markup: what the data holds cannot become a part of it.
const ROWS_A_PAGE = 20, PLACES_A_CODE = 200;
const blocks = (name) => [...document.querySelectorAll(`script[data-block="${name}"]`)].map((b) => JSON.parse(b.textContent));
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// --- the data ---

const facts = blocks("facts")[0], words = new Map(), stops = new Set(facts.stops), items = [];
const placeOf = (file, line) => (line ? `${facts.files[file].name}:${line}` : facts.files[file].name);
const findings = blocks("findings").flat().map(([code, file, line, message, fix]) => ({ code, file, line, message, fix }));
const findingsAt = new Map();
for (const finding of findings) {
  const key = `${finding.file}:${finding.line}`;
  if (!findingsAt.has(key)) findingsAt.set(key, []);
  findingsAt.get(key).push(finding);
}
for (const block of blocks("examples")) {
  for (const [id, text] of block.words) words.set(id, text);
  for (const [file, line, part, ids, runs, odd] of block.examples) items.push({ file, line, part, ids, runs, odd });
}
const controls = new Set(facts.controls);
for (const [file, line, code, reason, text, more] of blocks("rejected").flat())
  items.push({ file, line, part: 0, rejected: { code, reason, text, more } });
const truncated = new Set(blocks("truncated").flat().map(([file, line]) => `${file}:${line}`));
items.sort((a, b) => a.file - b.file || a.line - b.line || a.part - b.part);
const shownAt = new Set(items.map((item) => `${item.file}:${item.line}`));

const found = (item) => findingsAt.get(`${item.file}:${item.line}`) || [];
function tokenTexts(item) {
  const texts = item.ids.map((id) => words.get(id) ?? "");
  for (const [position, text] of item.odd) texts[position] = text;
  return texts;
}
function haystack(item) {
  if (item.hay === undefined) {
    const said = found(item).map((f) => `${f.code} ${f.message}`).join("\n");
    const text = item.rejected ? `${item.rejected.reason}\n${item.rejected.text}` : tokenTexts(item).join("");
    item.hay = `${placeOf(item.file, item.line)}\n${said}\n${text}`.toLowerCase();
  }
  return item.hay;
}

// --- the summary ---

function tile(name, value, remark) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value, remark ? make("small", {}, remark) : null));
}

function showSummary() {
  const t = facts.total;
  $("tiles").append(
    tile("Rows in", count(t.rows), `= ${count(t.kept)} kept + ${count(t.rejected)} rejected + ${count(t.leftOut)} left out`),
    tile("Examples", count(t.examples), `${counted(t.truncated, "row")} truncated, ${count(t.split)} split`),
    tile("Tokens", count(t.tokens), t.examples ? `${count(Math.round(t.tokens / t.examples))} an example` : ""),
    tile("Learned", percent(t.learned, t.tokens), counted(t.learned, "token")),
  );
  if (facts.notShown) {
    $("note").hidden = false;
    $("note").textContent = `This page holds the first ${count(facts.shown)} of ${counted(t.examples, "example")}. The other ${count(facts.notShown)} are counted above and checked, and not shown; --limit ${t.examples} shows all of them.`;
  }
  const cells = (f) => [f.rows, f.kept, f.rejected, f.leftOut, f.truncated, f.split, f.examples, f.tokens].map((n) => make("td", {}, count(n)));
  for (const file of facts.files) {
    const name = make("td", {}, make("button", { class: "link", onclick: () => ask(file.name) }, file.name),
      make("div", { class: "quiet" }, [file.use, file.shape].filter(Boolean).join(" · ")));
    $("files").append(make("tr", {}, name, ...cells(file), make("td", {}, percent(file.learned, file.tokens))));
  }
  if (facts.files.length > 1)
    $("all").append(make("tr", {}, make("td", {}, "together"), ...cells(t), make("td", {}, percent(t.learned, t.tokens))));
  showHistogram(facts.histogram);
}

function showHistogram({ edges, counts }) {
  $("lengths").hidden = !counts.length;
  if (!counts.length) return;
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const most = Math.max(...counts), width = 720 / counts.length, picture = $("histogram");
  counts.forEach((n, i) => {
    const height = n ? Math.max(1, (130 * n) / most) : 0;
    const bar = svg("rect", { x: i * width + 0.5, y: 130 - height, width: Math.max(1, width - 1), height });
    bar.append(svg("title", {}, `${count(edges[i])} to ${count(edges[i + 1] - 1)} tokens: ${counted(n, "example")}`));
    picture.append(bar);
  });
  picture.append(svg("line", { x1: 0, x2: 720, y1: 130.5, y2: 130.5 }));
  $("most").textContent = `most in a bar: ${counted(most, "example")}`;
  $("from").textContent = `${count(edges[0])} tokens`;
  $("to").textContent = `${count(edges.at(-1) - 1)} tokens`;
  picture.setAttribute("aria-label", `Lengths of the examples, from ${edges[0]} to ${edges.at(-1) - 1} tokens`);
}

function showCodes() {
  $("none").hidden = facts.codes.length > 0;
  for (const { code, title, severity, times } of facts.codes) {
    const own = findings.filter((f) => f.code === code), list = make("ol", {});
    const oneFix = own.length > 1 && own.every((finding) => finding.fix === own[0].fix);
    const body = make("div", { class: "body" }, oneFix ? make("p", {}, make("i", {}, facts.fixes[own[0].fix])) : null,
      make("p", {}, make("button", { class: "link", onclick: () => ask(code) }, "Show the rows")), list);
    const details = make("details", {}, make("summary", {}, make("b", { class: severity }, code), `${title} `,
      make("span", { class: "quiet" }, `${severity}, ${count(times)}×`)), body);
    details.addEventListener("toggle", () => {
      if (list.childElementCount) return;
      own.slice(0, PLACES_A_CODE).forEach((finding) => list.append(findingLine(finding, !oneFix)));
      const left = times - Math.min(own.length, PLACES_A_CODE);
      if (left) list.append(make("li", { class: "quiet" }, `and ${count(left)} more` + (times > own.length ? `, of which ${count(times - own.length)} are counted only` : "; Show the rows lists them")));
    });
    $("codes").append(make("li", {}, details));
  }
}

function findingLine(finding, withFix) {
  const place = placeOf(finding.file, finding.line);
  const where = finding.line ? make("button", { class: "link", onclick: () => ask(place) }, place) : make("b", {}, place);
  return make("li", {}, where, `: ${finding.message}. `, withFix ? make("i", {}, facts.fixes[finding.fix]) : null);
}

// --- the rows ---

let chosen = items, page = 0;
const KINDS = {
  all: () => true,
  examples: (item) => !item.rejected,
  rejected: (item) => Boolean(item.rejected),
  findings: (item) => found(item).length > 0,
  truncated: (item) => truncated.has(`${item.file}:${item.line}`),
  weighted: (item) => !item.rejected && item.runs.some(([, weight]) => weight !== 0 && weight !== 1),
};

function choose() {
  const query = $("q").value.trim(), low = query.toLowerCase(), kind = KINDS[$("kind").value];
  let within = items.filter(kind);
  if (/^[dr]\d{3}$/.test(low)) within = within.filter((item) => found(item).some((f) => f.code.toLowerCase() === low));
  else if (query) {
    const placed = /:\d+$/.test(query) ? within.filter((item) => placeOf(item.file, item.line).toLowerCase().endsWith(low)
      && (placeOf(item.file, item.line).length === query.length || !/[\w]/.test(placeOf(item.file, item.line).at(-query.length - 1)))) : [];
    within = placed.length ? placed : within.filter((item) => haystack(item).includes(low));
  }
  chosen = within;
  page = 0;
  showRows();
}

function ask(query) {
  $("q").value = query;
  $("kind").value = "all";
  choose();
  $("rows").scrollIntoView();
  $("q").focus({ preventScroll: true });
}

function showRows() {
  const pages = Math.max(1, Math.ceil(chosen.length / ROWS_A_PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const from = page * ROWS_A_PAGE, shown = chosen.slice(from, from + ROWS_A_PAGE);
  $("list").replaceChildren(...shown.map(article));
  const query = $("q").value.trim();
  const unknown = query && !chosen.length ? unknownPlace(query) : "";
  const range = chosen.length ? `${count(from + 1)}–${count(from + shown.length)} of ${count(chosen.length)}` : unknown || "Nothing fits.";
  for (const pager of document.querySelectorAll(".pager")) {
    pager.querySelector("output").textContent = range;
    pager.querySelector("[data-step='-1']").disabled = page === 0;
    pager.querySelector("[data-step='1']").disabled = page === pages - 1;
  }
}

function unknownPlace(query) {
  const hit = findings.find((f) => placeOf(f.file, f.line) === query);
  return hit && !shownAt.has(`${hit.file}:${hit.line}`) ? "The row stands beyond the examples that this page holds." : "";
}

function article(item) {
  const place = placeOf(item.file, item.line), said = found(item), element = make("article", { tabindex: "-1" });
  const head = make("h3", {}, place);
  if (item.rejected) {
    element.className = "rejected";
    head.append(make("span", { class: "error" }, "rejected"));
    const told = said.find((f) => f.code === item.rejected.code);
    element.append(head, make("p", { class: "why" }, make("b", { class: "error" }, item.rejected.code), ` ${item.rejected.reason}. `,
      told ? make("i", {}, facts.fixes[told.fix]) : null));
    const body = make("pre", { tabindex: "0", dir: "auto" });
    putText(body, item.rejected.text, "", false);
    if (item.rejected.text) element.append(body);
    if (item.rejected.more) element.append(make("p", { class: "sub" }, `and ${count(item.rejected.more)} more characters`));
  } else {
    const learned = item.runs.reduce((sum, [n, weight]) => sum + (weight ? n : 0), 0);
    head.append(make("span", {}, `${counted(item.ids.length, "token")}, ${count(learned)} learned (${percent(learned, item.ids.length)})`));
    if (item.part) head.append(make("span", {}, `part ${item.part + 1}`));
    if (truncated.has(`${item.file}:${item.line}`)) head.append(make("span", { class: "warning" }, "truncated"));
    element.append(head, tokensOf(item));
  }
  for (const f of said) {
    if (item.rejected && f.code === item.rejected.code) continue;
    element.append(make("p", { class: "why" }, make("button", { class: `link ${f.severity || ""}`, onclick: () => ask(f.code) }, f.code), ` ${f.message}. `, make("i", {}, facts.fixes[f.fix])));
  }
  return element;
}

function tokensOf(item) {
  const body = make("pre", { tabindex: "0", dir: "auto" }), borders = $("borders").checked, texts = tokenTexts(item);
  let position = 0;
  for (const [length, weight] of item.runs) {
    const end = position + length;
    if (weight && weight !== 1) body.append(make("span", { class: "w", "data-weight": `×${weight}`, title: `learned with weight ${weight}` }));
    const stop = (at) => weight && stops.has(item.ids[at]), alone = (at) => borders || controls.has(item.ids[at]) || stop(at);
    while (position < end) {
      const id = item.ids[position];
      let until = position + 1;
      if (!alone(position)) while (until < end && !alone(until)) until += 1;
      const kind = [weight ? "l" : "", controls.has(id) ? "c" : "", stop(position) ? "e" : "", borders ? "k" : ""];
      const span = make("span", { class: kind.filter(Boolean).join(" "), title: borders ? `token ${id}` : null });
      putText(span, texts.slice(position, until).join(""), $("q").value.trim(), $("spaces").checked);
      body.append(span);
      position = until;
    }
  }
  return body;
}

// a space is drawn where it would not be seen: in a row of several, and at the ends of a piece
const UNSEEN = /(\n)|(\t)|( {2,}|^ | $)|((?!\u200d)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}])/gu;
const UNSEEN_AND_SPACES = /(\n)|(\t)|( +)|((?!\u200d)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}])/gu;

function putText(parent, text, query, spaces) {
  let from = 0;
  for (const hit of text.matchAll(spaces ? UNSEEN_AND_SPACES : UNSEEN)) {
    putMarked(parent, text.slice(from, hit.index), query);
    from = hit.index + hit[0].length;
    if (hit[1]) parent.append(make("span", { class: "n" }), "\n");
    else if (hit[2]) parent.append(make("span", { class: "t" }, "\t"));
    else if (hit[3]) for (const space of hit[3]) parent.append(make("span", { class: "s" }, space));
    else parent.append(make("span", { class: "u" }, `U+${hit[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`));
  }
  putMarked(parent, text.slice(from), query);
}

function putMarked(parent, text, query) {
  const low = text.toLowerCase(), wanted = query.toLowerCase();
  let from = 0;
  if (wanted && low.length === text.length)
    for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
      parent.append(text.slice(from, at), make("mark", {}, text.slice(at, at + wanted.length)));
      from = at + wanted.length;
    }
  parent.append(text.slice(from));
}

// --- keys ---

function stepPage(step) {
  page += step;
  showRows();
  $("rows").scrollIntoView();
}

function stepArticle(step) {
  const all = [...document.querySelectorAll("article")];
  const next = all.indexOf(document.activeElement.closest("article")) + step;
  if (all[Math.max(0, next)]) all[Math.max(0, next)].focus();
}

const KEYS = {
  "/": () => { $("q").focus(); $("q").select(); },
  j: () => stepArticle(1),
  k: () => stepArticle(-1),
  n: () => stepPage(1),
  p: () => stepPage(-1),
  t: () => { $("borders").click(); },
  s: () => { $("spaces").click(); },
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape" && typing) { $("q").value = ""; choose(); $("q").blur(); }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
let waiting = 0;
$("q").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); });
$("kind").addEventListener("change", choose);
$("borders").addEventListener("change", showRows);
$("spaces").addEventListener("change", showRows);
for (const button of document.querySelectorAll(".pager button")) button.addEventListener("click", () => stepPage(Number(button.dataset.step)));

showSummary();
showCodes();
showRows();
