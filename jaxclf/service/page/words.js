// Which words carried a label: the text again, its words marked by how they weighed.

const FAINT = 0.05; // of the strongest word, below which a word is not marked
const NAMED = 5; // words named on each side

// The text in pieces, [piece, value], value 0 between words. Offsets count code points, of which
// JavaScript's strings may have two units each.
export function pieces(text, words, label) {
  const points = Array.from(text);
  const found = [];
  let at = 0;
  for (const { start, end, attributions } of words) {
    found.push([points.slice(at, start).join(""), 0]);
    found.push([points.slice(start, end).join(""), attributions[label]]);
    at = end;
  }
  found.push([points.slice(at).join(""), 0]);
  return found.filter(([piece]) => piece);
}

// Fills the panel of the template `explanation`.
export function show(panel, text, answer, label) {
  const found = pieces(text, answer.words, label);
  const most = Math.max(...found.map(([, value]) => Math.abs(value)));
  const place = panel.querySelector(".text");
  place.setAttribute("aria-label", `The text, with the words that weighed for ${label} marked`);
  place.replaceChildren(...found.map(([piece, value]) => marked(piece, value, most)));
  place.scrollTop = 0;
  panel.querySelector(".strongest").textContent = strongest(found, most);
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

function strongest(found, most) {
  const side = (sign) =>
    found
      .filter(([, value]) => sign * value >= FAINT * most && value)
      .sort(([, a], [, b]) => sign * (b - a))
      .slice(0, NAMED)
      .map(([piece, value]) => `${piece} ${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(3)}`)
      .join(", ");
  const [carried, against] = [side(1), side(-1)];
  if (!carried && !against) return "No word stands out.";
  return [carried && `Evidence for: ${carried}.`, against && `Evidence against: ${against}.`]
    .filter(Boolean)
    .join("\n");
}
