// CSV (RFC 4180): text -> records, each with its cells and its original characters.

const DELIMITERS = [",", ";", "\t"];

export class Malformed extends Error {}

// The most frequent of comma, semicolon and tab in the first record, outside quotes.
export function delimiterOf(text) {
  const counts = Object.fromEntries(DELIMITERS.map((delimiter) => [delimiter, 0]));
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    else if (!quoted && (character === "\n" || character === "\r")) break;
    else if (!quoted && character in counts) counts[character] += 1;
  }
  return DELIMITERS.reduce((best, next) => (counts[next] > counts[best] ? next : best));
}

// {cells, raw, line}: raw without the line's end, line the record's first, from 1. Throws Malformed.
export function* records(text, delimiter) {
  const end = delimiter === "\t" ? /[\t\r\n]/g : new RegExp(`[${delimiter}\r\n]`, "g");
  let at = 0;
  let line = 1;
  while (at < text.length) {
    const start = at;
    const cells = [];
    for (;;) {
      const [cell, next] = text[at] === '"' ? quoted(text, at, line) : plain(text, at, end);
      cells.push(cell);
      at = next;
      if (text[at] !== delimiter) break;
      at += 1;
    }
    if (at < text.length && text[at] !== "\n" && text[at] !== "\r") {
      throw new Malformed(`Line ${line}: there are characters between a closing quote and the next cell.`);
    }
    const raw = text.slice(start, at);
    yield { cells, raw, line };
    at += newlineAt(text, at).length;
    line += 1 + (raw.match(/\r\n|\n|\r/g)?.length ?? 0);
  }
}

// The line break at a position, "" at the end of the text.
export function newlineAt(text, at) {
  return text.startsWith("\r\n", at) ? "\r\n" : text.slice(at, at + 1);
}

const FORMULA = /^[=+\-@\t\r]/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

// Whether a spreadsheet would compute a cell of a file; numbers are no formulas.
export const formula = (value) => FORMULA.test(value) && !NUMBER.test(value);

// A cell with a value. An apostrophe keeps a spreadsheet from computing it, unless it is a `number`.
export function cell(value, delimiter, number = false) {
  const safe = FORMULA.test(value) && !(number && NUMBER.test(value)) ? `'${value}` : value;
  const special = safe.includes(delimiter) || /["\r\n]/.test(safe);
  return special ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function quoted(text, open, line) {
  let value = "";
  let from = open + 1;
  for (;;) {
    const quote = text.indexOf('"', from);
    if (quote < 0) throw new Malformed(`Line ${line}: a quote is never closed.`);
    if (text[quote + 1] !== '"') return [value + text.slice(from, quote), quote + 1];
    value += text.slice(from, quote + 1);
    from = quote + 2;
  }
}

function plain(text, at, end) {
  end.lastIndex = at;
  const next = end.exec(text)?.index ?? text.length;
  return [text.slice(at, next), next];
}
