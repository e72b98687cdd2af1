// The evidence for a label: the text, its words marked by their weights.

const FAINT = 0.05; // share of the largest weight below which a word is not marked
const NAMED = 5; // words named on each side

// The text in pieces, [piece, value], value 0 between words. Offsets count code points; a code point
// may be two units of a JavaScript string.
export function pieces(text, words, label) {
  const points = Array.from(text);
  const parts = [];
  let at = 0;
  for (const { start, end, attributions } of words) {
    parts.push([points.slice(at, start).join(""), 0]);
    parts.push([points.slice(start, end).join(""), attributions[label]]);
    at = end;
  }
  parts.push([points.slice(at).join(""), 0]);
  return parts.filter(([piece]) => piece);
}

// Fills the panel of the template `explanation`.
export function show(panel, text, answer, label) {
  const parts = pieces(text, answer.words, label);
  const most = Math.max(...parts.map(([, value]) => Math.abs(value)));
  const target = panel.querySelector(".text");
  target.setAttribute("aria-label", `The text, with the evidence for ${label} marked`);
  target.replaceChildren(...parts.map(([piece, value]) => marked(piece, value, most)));
  target.scrollTop = 0;
  panel.querySelector(".strongest").textContent = strongest(parts, most);
  panel.querySelector(".delta").textContent =
    `The largest weight is ${most.toFixed(3)}; ` +
    `the weights leave ${Math.abs(answer.convergence_delta[label]).toFixed(3)} unexplained.`;
  panel.querySelector(".found").hidden = false;
}

function marked(piece, value, most) {
  const share = Math.abs(value) / most;
  if (!(share >= FAINT)) return piece;
  const mark = document.createElement("mark");
  mark.className = value > 0 ? "for" : "against";
  mark.style.setProperty("--share", share.toFixed(3));
  mark.textContent = piece;
  return mark;
}

function strongest(parts, most) {
  const side = (sign) =>
    parts
      .filter(([, value]) => sign * value >= FAINT * most && value)
      .sort(([, a], [, b]) => sign * (b - a))
      .slice(0, NAMED)
      .map(([piece, value]) => `${piece} ${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(3)}`)
      .join(", ");
  const [support, against] = [side(1), side(-1)];
  if (!support && !against) return "No word stands out.";
  return [support && `Evidence for: ${support}.`, against && `Evidence against: ${against}.`]
    .filter(Boolean)
    .join("\n");
}
