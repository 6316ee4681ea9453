// The page at /: embeds texts with /v1/embeddings, searches them by cosine, and maps their two main directions.
"use strict";

const EXAMPLES = [
  "How do I undo my last commit?", "git reset --soft HEAD~1", "Throw away all changes since yesterday",
  "SELECT name FROM users WHERE age > 30", "Join two tables on their key", "An index makes a query faster",
  "Bread needs flour, water, salt and yeast", "Let the dough rise for an hour", "Soup tastes better on the second day",
  "The central bank raised interest rates", "Inflation fell in March", "Shares closed higher in Tokyo",
  "A kitten sleeps on the sofa", "Dogs need a walk every day", "The parrot repeats whatever it hears",
];
const WIDTH = 640, HEIGHT = 440, MARGIN = 36, SHOWN_HITS = 8, MAX_TEXTS = 2000, LABELLED = 60;

const element = (id) => document.getElementById(id);
let modelName = "";
let texts = [];
let vectors = [];
let map = null; // {mean, axes, place}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const key = element("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const content = await answer.json().catch(() => null);
  if (answer.status === 401) element("key-row").hidden = false;
  if (!answer.ok) throw new Error(content?.error?.message ?? `the server answered ${answer.status}`);
  return content;
}

// Vectors come as base64 of little-endian float32: a third of the size of decimal numbers.
async function embed(input, kind) {
  const body = { model: modelName, input, encoding_format: "base64", input_type: kind };
  const { data } = await ask("v1/embeddings", body);
  return data.map(({ embedding }) => {
    const bytes = Uint8Array.from(atob(embedding), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
  });
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

function drawMap() {
  const { mean, axes } = principalAxes(vectors);
  const points = vectors.map((vector) => project(vector, { mean, axes }));
  const ranges = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    const least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
    return { middle: (least + most) / 2, span: Math.max(most - least, 1e-6) };
  });
  const place = ([x, y]) => [
    Math.min(WIDTH, Math.max(0, WIDTH / 2 + ((x - ranges[0].middle) / ranges[0].span) * (WIDTH - 2 * MARGIN))),
    Math.min(HEIGHT, Math.max(0, HEIGHT / 2 - ((y - ranges[1].middle) / ranges[1].span) * (HEIGHT - 2 * MARGIN))),
  ];
  map = { mean, axes, place };
  element("map").replaceChildren(...points.map((point, index) => marker(place(point), index)));
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function marker([x, y], index) {
  const text = texts[index];
  const group = svg("g", { "data-index": index }, svg("title", {}, text), svg("circle", { cx: x, cy: y, r: 5 }));
  if (texts.length <= LABELLED) {
    const toTheLeft = x > WIDTH * 0.6;
    const label = text.length > 32 ? `${text.slice(0, 31)}…` : text;
    group.append(svg("text", { x: x + (toTheLeft ? -9 : 9), y: y + 4, "text-anchor": toTheLeft ? "end" : "start" }, label));
  }
  return group;
}

function say(message, failed = false) {
  element("state").textContent = message;
  element("state").classList.toggle("failed", failed);
}

async function embedTexts(event) {
  event?.preventDefault();
  const given = element("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (given.length === 0) return say("enter at least one text", true);
  if (given.length > MAX_TEXTS) return say(`${given.length} texts; the page shows at most ${MAX_TEXTS}`, true);
  element("embed").disabled = true;
  say(`embedding ${given.length} texts …`);
  try {
    if (!modelName) await describeModel();
    const started = performance.now();
    vectors = await embed(given, "document");
    texts = given;
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    drawMap();
    element("hits").replaceChildren();
    element("query").disabled = element("search").disabled = false;
    say(`${texts.length} texts, ${vectors[0].length} dimensions, ${seconds} s`);
  } catch (error) {
    say(error.message, true);
  } finally {
    element("embed").disabled = false;
  }
}

async function searchTexts(event) {
  event.preventDefault();
  const query = element("query").value.trim();
  if (!query) return;
  try {
    const [queryVector] = await embed([query], "query");
    const hits = vectors.map((vector, index) => ({ index, score: dot(vector, queryVector) }));
    hits.sort((a, b) => b.score - a.score || a.index - b.index);
    showHits(hits.slice(0, SHOWN_HITS), queryVector);
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function showHits(hits, queryVector) {
  element("hits").replaceChildren(...hits.map(({ index, score }) => {
    const item = document.createElement("li");
    const number = document.createElement("b");
    number.textContent = score.toFixed(3);
    item.append(number, texts[index]);
    return item;
  }));
  const best = new Set(hits.slice(0, 3).map(({ index }) => String(index)));
  for (const group of element("map").querySelectorAll("g")) group.classList.toggle("hit", best.has(group.dataset.index));
  element("map").querySelector(".query")?.remove();
  const [cx, cy] = map.place(project(queryVector, map));
  element("map").append(svg("circle", { class: "query", cx, cy, r: 9 }));
}

async function describeModel() {
  const { data } = await ask("v1/models");
  const [model] = data;
  modelName = model.id;
  element("model").textContent = `${model.id}: ${model.dimensions} dimensions, up to ${model.max_tokens} tokens per text`;
}

element("texts").value = EXAMPLES.join("\n");
element("texts-form").addEventListener("submit", embedTexts);
element("search-form").addEventListener("submit", searchTexts);
describeModel().catch((error) => { element("model").textContent = error.message; });
