// The page: one text -> its labels, and the evidence for each. Texts are kept in variables alone and
// written to the page as text, never as markup.

import { Refused, ask, blank, pause, ready } from "./ask.js";
import { openUpload } from "./upload.js";
import { show } from "./words.js";

const CHECK_INTERVAL = 2000; // milliseconds between checks of a service that is not ready

const at = (id) => document.getElementById(id);
const form = at("form");
const area = at("text");
const panel = at("explanation").content.firstElementChild.cloneNode(true);

let sent = ""; // the text whose labels are shown
let words = null; // the promise of their explanation
let running = null; // AbortController of the request for labels
let asking = null; // AbortController of the request for the explanation
let watching = false;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  label();
});
area.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
area.addEventListener("input", () => {
  at("stale").hidden = at("result").hidden || area.value === sent;
});
at("stop").addEventListener("click", () => running.abort());

openUpload(gone);
watch();

async function label() {
  const text = area.value;
  if (blank(text)) {
    say("Enter a text first.", "error");
    area.focus();
    return;
  }
  running?.abort();
  const mine = (running = new AbortController());
  at("result").hidden = true;
  at("stop").hidden = false;
  say("Reading the text …");
  try {
    const answer = await ask("predict", { text }, mine.signal, (sentence) =>
      say(sentence || "Reading the text …"),
    );
    asking?.abort();
    sent = text;
    words = null;
    fill(answer);
  } catch (error) {
    if (running === mine) fail(error, say);
  } finally {
    if (running === mine) {
      running = null;
      if (document.activeElement === at("stop")) area.focus();
      at("stop").hidden = true;
    }
  }
}

function fill({ labels, thresholds, results: [result] }) {
  const predicted = new Set(result.labels);
  const order = labels.toSorted(
    (a, b) => predicted.has(b) - predicted.has(a) || result.probabilities[b] - result.probabilities[a],
  );
  at("labels").replaceChildren(
    ...order.map((name) => row(name, result.probabilities[name], thresholds[name], predicted.has(name))),
  );
  at("stage").textContent = `Decided by the stage ${result.stage}.`;
  at("stage").hidden = result.stage === null;
  at("stale").hidden = area.value === sent;
  at("result").hidden = false;
  const names = order.filter((name) => predicted.has(name)).join(", ");
  say(
    names
      ? `${predicted.size} of ${labels.length} labels predicted: ${names}.`
      : "No label reaches its threshold. This is not an all-clear.",
  );
}

function row(name, probability, threshold, predicted) {
  const [value, cut] = [probability.toFixed(3), threshold.toFixed(3)];
  const item = make("li");
  const line = make("div", predicted ? "row predicted" : "row");
  const button = make("button", "name", name);
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", panel.id);
  if (predicted) button.append(" ", make("span", "", "predicted"));
  button.addEventListener("click", () => toggle(name, button, item));

  const meter = make("div", "bar");
  meter.setAttribute("role", "meter");
  meter.setAttribute("aria-label", name);
  meter.setAttribute("aria-valuemin", "0");
  meter.setAttribute("aria-valuemax", "1");
  meter.setAttribute("aria-valuenow", value);
  meter.setAttribute("aria-valuetext", `${value}, threshold ${cut}${predicted ? ", predicted" : ""}`);
  const bar = make("div", "fill");
  bar.style.width = `${100 * probability}%`;
  const tick = make("div", "tick");
  tick.style.left = `${100 * Math.min(Math.max(threshold, 0), 1)}%`;
  meter.append(bar, tick);

  const [number, words] = [make("div", "number", value), make("div", "threshold", `threshold ${cut}`)];
  for (const seen of [number, words]) seen.setAttribute("aria-hidden", "true");
  line.append(button, meter, number, words);
  item.append(line);
  return item;
}

async function toggle(name, button, item) {
  const open = button.getAttribute("aria-expanded") === "true";
  for (const name of document.querySelectorAll(".name")) name.setAttribute("aria-expanded", "false");
  panel.remove();
  if (open) return asking?.abort();
  button.setAttribute("aria-expanded", "true");
  item.append(panel);
  panel.querySelector(".found").hidden = true;
  tell("Computing the evidence …");
  words ??= explain(sent);
  const question = words;
  try {
    const answer = await question;
    if (panel.parentElement === item) show(panel, sent, answer, name);
  } catch (error) {
    if (words === question) words = null;
    fail(error, tell);
  }
}

// One request serves all labels of a text.
async function explain(text) {
  const mine = (asking = new AbortController());
  const waiting = (sentence) =>
    tell(sentence ? `${sentence} To stop, choose the label again.` : "Computing the evidence …");
  try {
    return await ask("explain", { text }, mine.signal, waiting);
  } finally {
    if (asking === mine) asking = null;
  }
}

// Show the reason of an error.
function fail(error, tell) {
  if (error.name === "AbortError") return tell("Stopped.");
  if (!(error instanceof Refused)) {
    tell("This page has failed; reload it.", "error");
    throw error;
  }
  tell(error.message, "error");
  gone(error);
}

// Check the service again after it did not respond or was not ready.
function gone({ status }) {
  if (status === 0 || status === 503) watch();
}

async function watch() {
  if (watching) return;
  watching = true;
  for (;;) {
    try {
      const { model, labels } = await ready();
      at("service").textContent = `The model ${model} is ready, with ${labels.length} labels.`;
      watching = false;
      return;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const why = error.status === 503 ? `Not ready yet: ${error.message}` : error.message;
      at("service").textContent = `${why} This page checks again every two seconds.`;
    }
    await pause(CHECK_INTERVAL);
  }
}

function tell(sentence) {
  panel.querySelector(".strongest").textContent = sentence;
}

function say(sentence, kind = "") {
  at("message").dataset.kind = kind;
  at("message").textContent = sentence;
}

function make(tag, kind = "", words = "") {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.textContent = words;
  return element;
}
