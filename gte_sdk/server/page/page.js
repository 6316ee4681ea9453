// The page at /: embeds texts with /v1/embeddings, searches them by cosine, and maps their two main directions.
"use strict";

// A help desk's notes: the question shares no word with the note that answers it.
const EXAMPLES = [
  "Refunds are paid to the card that was charged, within five days.", "A return is free within thirty days of delivery.",
  "Gift cards cannot be exchanged for cash.", "To reset a password, follow the link on the login page.",
  "Two-factor codes come from an app, not by SMS.", "An account is locked after ten wrong attempts.",
  "Parcels to islands take two days longer.", "The courier tries three times, then leaves a card.",
  "Furniture is delivered to the kerb, not up the stairs.", "The washing machine leaks if its filter is loose.",
  "A red light on the router means no connection.", "Batteries last longer if they are not charged to the full.",
  "Invoices are sent on the first of each month.", "Companies can order on account.", "Prices include VAT.",
];
const EXAMPLE_QUERY = "how do I get my money back?";
const RATIO = 440 / 640, MARGIN = 36, SHOWN_HITS = 8, MAX_TEXTS = 2000, LABELLED = 60;
const LABEL_CHARACTERS = [32, 16, 11], LABEL_HEIGHT = 15, LABEL_GAP = 9;
const UNREACHABLE = "The server does not answer. It may have been stopped, or the network is down: start it again, then retry.";

const element = (id) => document.getElementById(id);
let modelName = "";
let maxTokens = 0;
let hits = []; // {index, score}, best first
let texts = [];
let vectors = [];
let cut = new Set(); // the places of texts that are longer than the model reads
let map = null; // {mean, axes, points, query}
let busy = false;

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const key = element("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const request = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const answer = await fetch(path, request).catch(() => { throw new Error(UNREACHABLE); });
  const content = await answer.json().catch(() => null);
  if (answer.status === 401) element("key-row").hidden = false;
  if (!answer.ok) throw new Error(content?.error?.message ?? `the server answered ${answer.status}`);
  const places = answer.headers.get("x-gte-truncated-input") ?? "";
  return { content, cut: new Set(places.split(",").filter((place) => /^\d+$/.test(place)).map(Number)) };
}

// Vectors come as base64 of little-endian float32: a third of the size of decimal numbers.
async function embed(input, kind) {
  const body = { model: modelName, input, encoding_format: "base64", input_type: kind };
  const { content, cut } = await ask("v1/embeddings", body);
  const vectors = content.data.map(({ embedding }) => {
    const bytes = Uint8Array.from(atob(embedding), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
  });
  return { vectors, cut };
}

function dot(a, b) {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += a[index] * b[index];
  return sum;
}

// Principal components by power iteration on the centred vectors; the second is kept orthogonal to the first.
function principalAxes(rows) {
  const dim = rows[0].length;
  const mean = new Float64Array(dim);
  for (const row of rows) for (let d = 0; d < dim; d++) mean[d] += row[d] / rows.length;
  const centred = rows.map((row) => Float64Array.from(row, (value, d) => value - mean[d]));
  const axes = [];
  for (let axis = 0; axis < 2; axis++) {
    let direction = Float64Array.from({ length: dim }, (_, d) => Math.sin((d + 1) * (axis + 1))); // any fixed start
    for (let step = 0; step < 60; step++) {
      const next = new Float64Array(dim);
      for (const row of centred) {
        const along = dot(row, direction);
        for (let d = 0; d < dim; d++) next[d] += along * row[d];
      }
      for (const other of axes) {
        const along = dot(next, other);
        for (let d = 0; d < dim; d++) next[d] -= along * other[d];
      }
      const length = Math.sqrt(dot(next, next));
      if (length < 1e-12) break; // fewer than two directions: one text, or equal ones
      direction = next.map((value) => value / length);
    }
    axes.push(direction);
  }
  return { mean, axes };
}

function project(vector, { mean, axes }) {
  const centred = Float64Array.from(vector, (value, d) => value - mean[d]);
  return axes.map((axis) => dot(centred, axis));
}

function makeMap() {
  const { mean, axes } = principalAxes(vectors);
  map = { mean, axes, points: vectors.map((vector) => project(vector, { mean, axes })), query: null };
  drawMap();
}

// Drawn for the width that there is, so that letters are as large on a telephone as on a desk.
function drawMap() {
  if (map === null) return;
  const figure = element("map");
  const width = Math.max(240, figure.clientWidth), height = Math.max(360, Math.round(width * RATIO));
  figure.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const ranges = [0, 1].map((axis) => {
    const values = map.points.map((point) => point[axis]);
    const least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
    return { middle: (least + most) / 2, span: Math.max(most - least, 1e-6) };
  });
  const place = ([x, y]) => [
    Math.min(width, Math.max(0, width / 2 + ((x - ranges[0].middle) / ranges[0].span) * (width - 2 * MARGIN))),
    Math.min(height, Math.max(0, height / 2 - ((y - ranges[1].middle) / ranges[1].span) * (height - 2 * MARGIN))),
  ];
  const best = new Set(hits.slice(0, 3).map(({ index }) => index));
  const places = map.points.map(place);
  const groups = places.map(([cx, cy], index) =>
    svg("g", { "data-index": index, class: best.has(index) ? "hit" : "" }, svg("title", {}, texts[index]), svg("circle", { cx, cy, r: 5 })));
  figure.replaceChildren(...groups);
  const taken = places.map(([x, y]) => ({ left: x - 6, right: x + 6, top: y - 6, bottom: y + 6 }));
  if (map.query) {
    const [cx, cy] = place(map.query);
    figure.append(svg("circle", { class: "query", cx, cy, r: 9 }));
    taken.push({ left: cx - 11, right: cx + 11, top: cy - 11, bottom: cy + 11 });
  }
  if (texts.length <= LABELLED) addLabels(groups, places, taken, best, width, height);
}

// Each label goes to the first place around its point where it covers nothing, in short if it must. Without one it is
// left out; the point still says its text when it is pointed at. The best hits choose first.
function addLabels(groups, places, taken, best, width, height) {
  const isFree = (box) => box.left >= 0 && box.right <= width && box.top >= 0 && box.bottom <= height &&
    !taken.some((other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom);
  const order = groups.map((_, index) => index).sort((a, b) => best.has(b) - best.has(a) || a - b);
  for (const index of order) {
    const text = texts[index], label = svg("text", {});
    groups[index].append(label);
    let free;
    for (const most of LABEL_CHARACTERS) {
      label.textContent = text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text;
      free ??= boxesAround(places[index], label.getComputedTextLength()).find(isFree);
      if (free) break;
    }
    if (free) {
      label.setAttribute("x", free.left);
      label.setAttribute("y", free.base);
      taken.push(free);
    } else {
      label.remove();
    }
  }
}

function boxesAround([x, y], length) {
  const above = y - LABEL_GAP, below = y + LABEL_GAP + 9;
  const corners = [
    [x + LABEL_GAP, y + 4], [x - LABEL_GAP - length, y + 4], [x - length / 2, above], [x - length / 2, below],
    [x + 4, above], [x - 4 - length, above], [x + 4, below], [x - 4 - length, below],
  ];
  return corners.map(([left, base]) => ({ left, right: left + length, top: base - 11, bottom: base - 11 + LABEL_HEIGHT, base }));
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function say(message, failed = false) {
  element("state").textContent = message;
  element("state").classList.toggle("failed", failed);
}

// A button that is disabled loses the focus, so a second press is ignored instead.
async function whileBusy(button, work) {
  if (busy) return;
  busy = true;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
    button.removeAttribute("aria-disabled");
  }
}

function embedTexts(event) {
  event?.preventDefault();
  const given = element("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (given.length === 0) return say("enter at least one text", true);
  if (given.length > MAX_TEXTS) return say(`${given.length} texts; the page shows at most ${MAX_TEXTS}`, true);
  return whileBusy(element("embed"), async () => {
    say(`embedding ${given.length} texts …`);
    if (!modelName) await describeModel();
    const started = performance.now();
    const embedded = await embed(given, "document");
    ({ vectors, cut } = embedded);
    texts = given;
    hits = [];
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    makeMap();
    showHits();
    element("query").disabled = element("search").disabled = false;
    say(`${texts.length} texts, ${vectors[0].length} dimensions, ${seconds} s${saidOfCut()}`);
  });
}

function saidOfCut() {
  if (cut.size === 0) return "";
  const which = [...cut].slice(0, 5).map((index) => index + 1).join(", ") + (cut.size > 5 ? ", …" : "");
  return `; longer than the ${maxTokens} tokens that the model reads, so their ends were cut off: ${which}`;
}

function searchTexts(event) {
  event.preventDefault();
  const query = element("query").value.trim();
  if (!query || vectors.length === 0) return undefined;
  return whileBusy(element("search"), async () => {
    const embedded = await embed([query], "query");
    const [queryVector] = embedded.vectors;
    hits = vectors.map((vector, index) => ({ index, score: dot(vector, queryVector) }));
    hits.sort((a, b) => b.score - a.score || a.index - b.index);
    hits = hits.slice(0, SHOWN_HITS);
    map.query = project(queryVector, map);
    showHits();
    drawMap();
    say(embedded.cut.size ? `the question is longer than the ${maxTokens} tokens that the model reads; its end was cut off` : "");
  });
}

function showHits() {
  element("hits").replaceChildren(...hits.map(({ index, score }) => {
    const item = document.createElement("li");
    const number = document.createElement("b");
    number.textContent = score.toFixed(3);
    item.append(number, texts[index]);
    if (cut.has(index)) {
      const note = document.createElement("i");
      note.textContent = "its end was cut off";
      item.insertBefore(note, item.lastChild);
    }
    return item;
  }));
}

async function describeModel() {
  const { content } = await ask("v1/models");
  const [model] = content.data;
  modelName = model.id;
  maxTokens = model.max_tokens;
  element("model").classList.remove("failed");
  element("model").textContent = `${model.id}: ${model.dimensions} dimensions, up to ${model.max_tokens} tokens per text`;
}

element("texts").value = EXAMPLES.join("\n");
element("query").value = EXAMPLE_QUERY;
new ResizeObserver(drawMap).observe(element("map"));
element("texts-form").addEventListener("submit", embedTexts);
element("search-form").addEventListener("submit", searchTexts);
describeModel().catch((error) => {
  element("model").textContent = error.message;
  element("model").classList.add("failed");
});
