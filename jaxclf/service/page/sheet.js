// A sheet: the rows of a CSV file, and what the service says of each.
//
// {name, bom, delimiter, newline, header, head, rows, done, labels, refused}: `head` and each row's
// `raw` are the original lines; `done` rows are labeled, from the first; `labels` are
// the service's, once known; `refused` has a sentence for each refused row.
// A row is {cells, raw, predicted, added}: the labels in words, and the cells to add.

import { Refused, ask, blank, pause } from "./ask.js";
import { Malformed, cell, delimiterOf, formula, newlineAt, records } from "./csv.js";

export const WORDS = { ",": "commas", ";": "semicolons", "\t": "tabs" };

const CHUNK = 32; // texts in one request
const LARGEST = 200 * 2 ** 20; // bytes of a file
const FRAME = 30; // milliseconds of work before the page may draw

// Throws Malformed for a file that is not CSV, AbortError after `signal`.
export async function read(file, signal) {
  const text = await characters(file);
  const bom = text.startsWith("\ufeff") ? "\ufeff" : "";
  const body = text.slice(bom.length);
  const delimiter = delimiterOf(body);
  const rows = [];
  let rested = performance.now();
  for (const { cells, raw, line } of records(body, delimiter)) {
    if (rows.length && cells.length > rows[0].cells.length) {
      throw new Malformed(
        `Line ${line}: ${cells.length} cells where the first line has ${rows[0].cells.length}. ` +
          `A text with ${WORDS[delimiter]} in it must be quoted.`,
      );
    }
    rows.push({ cells, raw, predicted: "", added: "" });
    if (performance.now() - rested > FRAME) {
      await pause(0, signal);
      rested = performance.now();
    }
  }
  signal.throwIfAborted();
  if (rows.length < 2) throw new Malformed("The file has no rows below its header.");
  const [{ cells: header, raw: head }] = rows.splice(0, 1);
  const newline = newlineAt(body, head.length);
  const nothing = { done: 0, labels: null, refused: [] };
  return { name: file.name, bom, delimiter, newline, header, head, rows, ...nothing };
}

async function characters(file) {
  if (file.size > LARGEST) throw new Malformed("The file is larger than 200 MB; split it.");
  try {
    const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return strict.decode(await file.arrayBuffer());
  } catch (error) {
    if (error instanceof TypeError) {
      throw new Malformed("The file is not UTF-8. Save it as “CSV UTF-8” and choose it again.");
    }
    throw new Malformed("The file cannot be read; choose it again.");
  }
}

// Missing cells of a short row are empty.
export const textOf = (row, column) => row.cells[column] ?? "";

// Label the rows from `done` on. waiting: as in `ask`; moved: called after each request with the
// number of rows done before it. Throws Refused or AbortError; finished rows stay.
export async function labelRows(sheet, column, signal, waiting, moved) {
  const { rows } = sheet;
  let size = CHUNK;
  while (sheet.done < rows.length) {
    const chunk = [];
    let end = sheet.done;
    for (; end < rows.length && chunk.length < size; end += 1) {
      if (!blank(textOf(rows[end], column))) chunk.push(rows[end]);
    }
    if (chunk.length) {
      const texts = chunk.map((row) => textOf(row, column));
      try {
        keep(sheet, chunk, await ask("predict", { texts }, signal, waiting));
      } catch (error) {
        // Too many tokens, or a text that is refused: halve until that text is alone.
        if (![413, 422].includes(error.status)) throw error;
        if (chunk.length > 1) {
          size = Math.floor(chunk.length / 2);
          continue;
        }
        chunk[0].predicted = "refused";
        sheet.refused.push(`row ${rows.indexOf(chunk[0]) + 1}: ${error.message}`);
        size = 0;
      }
      size = Math.min(CHUNK, 2 * size || 1);
    }
    const before = sheet.done;
    sheet.done = end;
    moved(before);
  }
}

function keep(sheet, chunk, { labels, results }) {
  if (!sheet.labels) {
    const taken = columns(labels).find((name) => sheet.header.includes(name));
    if (taken) {
      throw new Refused(200, `The file has a column ${taken} already. Rename it and choose the file again.`);
    }
    sheet.labels = labels;
  }
  if (sheet.labels.join() !== labels.join() || results.length !== chunk.length) {
    throw new Refused(200, "The service’s response does not match the earlier ones; has its model changed?");
  }
  chunk.forEach((row, index) => {
    const { labels: predicted, probabilities } = results[index];
    row.predicted = predicted.map((name) => `${name} ${probabilities[name].toFixed(3)}`).join(", ") || "none";
    const numbers = labels.map((name) => probabilities[name].toFixed(6));
    row.added = [cell(predicted.join("|"), sheet.delimiter), ...numbers].join(sheet.delimiter);
  });
}

// The file's bytes with the columns added, for all finished rows. escape: formulas in the file's own
// cells get an apostrophe; rows without one stay as they are.
export function labeled({ bom, delimiter, newline, header, head, rows, done, labels }, escape) {
  const own = (cells, raw) =>
    escape && cells.some(formula) ? cells.map((value) => cell(value, delimiter, true)).join(delimiter) : raw;
  const names = columns(labels).map((name) => cell(name, delimiter));
  const nothing = delimiter.repeat(labels.length);
  const lines = rows.slice(0, done).map(({ cells, raw, added }) => {
    const lacking = delimiter.repeat(header.length - cells.length);
    return own(cells, raw) + lacking + delimiter + (added || nothing) + newline;
  });
  return new Blob([bom, own(header, head), delimiter, names.join(delimiter), newline, ...lines], {
    type: "text/csv;charset=utf-8",
  });
}

const columns = (labels) => ["labels", ...labels.map((name) => `probability_${name}`)];
