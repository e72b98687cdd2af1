// The part of the page for files: choose, label, preview and download a CSV file.

import { Refused, blank } from "./ask.js";
import { Malformed } from "./csv.js";
import { WORDS, labelRows, labeled, read, textOf } from "./sheet.js";

const SHOWN = 20; // rows of the preview
const CUT = 300; // characters of a text in the preview

const at = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");

let sheet = null;
let saved = true; // false while finished rows were not downloaded
let running = null; // AbortController of the reading or labeling

// gone: called with a Refused that ended the labeling.
export function openUpload(gone) {
  at("file").addEventListener("change", () => choose(at("file").files[0]));
  at("column").addEventListener("change", preview);
  at("begin").addEventListener("click", () => begin(gone));
  at("cancel").addEventListener("click", () => running.abort());
  at("download").addEventListener("click", download);
  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
}

async function choose(file) {
  running?.abort();
  sheet = null;
  saved = true;
  at("chosen").hidden = at("progress").hidden = true;
  if (!file) return say("");
  const mine = (running = new AbortController());
  say("Reading the file …");
  try {
    sheet = await read(file, mine.signal);
    running = null;
    open();
  } catch (error) {
    if (error.name === "AbortError") return;
    running = null;
    if (!(error instanceof Malformed)) throw error;
    at("file").value = ""; // so that the corrected file can be chosen again
    say(error.message, "error");
  }
}

function open() {
  const { name, header, rows, delimiter } = sheet;
  const options = header.map((title, index) => new Option(title || `column ${index + 1}`));
  at("column").replaceChildren(...options);
  at("column").selectedIndex = header.indexOf("text");
  buttons();
  preview();
  at("chosen").hidden = false;
  const form = header.length > 1 ? `, ${header.length} columns separated by ${WORDS[delimiter]}` : "";
  const wanted = header.includes("text") ? "" : " No column is named text; choose the column to label.";
  say(`${name}: rows ${count(rows.length)}${form}.${wanted}`);
}

async function begin(gone) {
  const column = at("column").selectedIndex;
  if (column < 0) {
    say("Choose the column with the texts.", "error");
    return at("column").focus();
  }
  const all = sheet.rows.length;
  const empty = sheet.rows.filter((row) => blank(textOf(row, column))).length;
  if (empty === all) return say("No row of this column has a text.", "error");
  running = new AbortController();
  buttons();
  progress();
  const waiting = (sentence) => say(sentence || "Labeling the rows …");
  waiting("");
  try {
    await labelRows(sheet, column, running.signal, waiting, moved);
    const { refused } = sheet;
    const notes = [
      `All ${count(all)} rows are done.`,
      empty && `Rows without a text, left empty: ${count(empty)}.`,
      refused[0] && `Rows refused, left empty: ${count(refused.length)}; ${refused[0]}`,
    ];
    say(notes.filter(Boolean).join(" "));
  } catch (error) {
    const far = sheet.done ? ` ${count(sheet.done)} of ${count(all)} rows are done and kept.` : "";
    if (error.name === "AbortError") say(`Stopped.${far}`);
    else if (error instanceof Refused) {
      say(`${error.message}${far}`, "error");
      gone(error);
    } else {
      say(`This page has failed.${far}`, "error");
      throw error;
    }
  } finally {
    running = null;
    buttons();
  }
}

function moved(before) {
  saved = false;
  progress();
  if (before < SHOWN) preview();
}

function download() {
  const { name, rows, done } = sheet;
  const [, stem, ending = ".csv"] = /^(.*?)(\.[^.]*)?$/s.exec(name);
  const link = document.createElement("a");
  link.download = `${stem}.${done < rows.length ? "part" : "labeled"}${ending}`;
  link.href = URL.createObjectURL(labeled(sheet, at("escape").checked));
  link.click();
  saved = true;
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Show the buttons that apply. The focus moves from a button that disappears to the next.
function buttons() {
  const { done, rows, labels } = sheet;
  const [begin, cancel, save] = [at("begin"), at("cancel"), at("download")];
  const hadFocus = [begin, cancel].includes(document.activeElement);
  at("file").disabled = Boolean(running);
  // Another column would discard finished rows: for that, choose the file again.
  at("column").disabled = Boolean(running) || done > 0;
  cancel.hidden = !running;
  begin.hidden = Boolean(running) || done === rows.length;
  begin.textContent = done ? "Label the rest" : "Label the file";
  save.hidden = at("escaping").hidden = Boolean(running) || !labels;
  save.textContent =
    done < rows.length ? `Download the first ${count(done)} rows` : "Download the labeled file";
  if (hadFocus) [cancel, save, begin].find((button) => !button.hidden)?.focus();
}

function progress() {
  const { done, rows, refused } = sheet;
  const not = refused.length ? `, refused ${count(refused.length)}` : "";
  at("progress").hidden = false;
  at("bar").max = rows.length;
  at("bar").value = done;
  at("share").textContent = `${count(done)} of ${count(rows.length)} rows${not}`;
}

function preview() {
  const { header, rows } = sheet;
  const column = at("column").selectedIndex;
  at("preview-text").textContent = header[column] ?? "text";
  at("rows").replaceChildren(
    ...rows.slice(0, SHOWN).map((row, index) => {
      const line = document.createElement("tr");
      const text = column < 0 ? row.raw : textOf(row, column);
      const short = text.length > CUT ? `${text.slice(0, CUT).toWellFormed()} …` : text;
      for (const value of [String(index + 1), short, row.predicted]) {
        const cell = document.createElement("div");
        cell.className = "cell";
        cell.textContent = value;
        line.insertCell().append(cell);
      }
      return line;
    }),
  );
  at("more").hidden = rows.length <= SHOWN;
  at("more").textContent = `and ${count(rows.length - SHOWN)} more rows`;
}

function say(sentence, kind = "") {
  at("sheet-message").dataset.kind = kind;
  at("sheet-message").textContent = sentence;
}
