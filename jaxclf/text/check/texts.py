"""What the texts themselves show: damaged characters, markup, texts that an export cut."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from jaxclf.text.check.findings import Finding, Rows, count

# UTF-8 that was read as Latin-1 or cp1252, replacement characters, controls.
BROKEN = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\ufffd|[\x00-\x08\x0b\x0c\x0e-\x1f]"
)
MARKUP = re.compile(
    r"</?(p|br|div|span|a|b|i|em|strong|li|ul|td|tr)\b[^<>]*>|&(amp|lt|gt|quot|nbsp|#\d+);"
)
LETTER = re.compile(r"[^\W\d_]")
SHORT = 3  # characters
MIN_EXACT, MIN_LIMIT = 10, 100  # texts of the greatest length, and that length, if an export cut

PATTERNS: dict[str, tuple[Callable[[str], object], str]] = {
    "broken characters": (
        BROKEN.search,
        "with damaged characters; read the source again in its own encoding",
    ),
    "markup": (MARKUP.search, "with HTML markup or entities; convert the source to plain text"),
    "no words": (lambda text: not LETTER.search(text), "without a letter"),
    "very short": (
        lambda text: len(text.strip()) < SHORT and LETTER.search(text),
        f"with fewer than {SHORT} characters",
    ),
}


def find_text_faults(rows: Rows) -> Iterator[Finding]:
    """The findings about texts, each with the lines of its rows."""
    for kind, (matches, what) in PATTERNS.items():
        chosen = [row for row, text in enumerate(rows.texts) if matches(text)]
        if chosen:
            yield _of_rows(rows, kind, chosen, f"{count(len(chosen), 'text')} {what}")
    lengths = Counter(map(len, rows.texts))
    longest = max(lengths, default=0)
    # Unhurried writers do not stop at the same character.
    if (
        longest >= MIN_LIMIT
        and lengths[longest] >= MIN_EXACT
        and lengths[longest]
        > 0.5 * sum(number for length, number in lengths.items() if length > 0.8 * longest)
    ):
        chosen = [row for row, text in enumerate(rows.texts) if len(text) == longest]
        sentence = (
            f"{count(len(chosen), 'text')} of exactly {longest:,} characters, and none is longer; "
            "an export probably cut them"
        )
        yield _of_rows(rows, "exact length", chosen, sentence)


def _of_rows(rows: Rows, kind: str, chosen: list[int], sentence: str) -> Finding:
    return Finding(kind, sentence, tuple((rows.places[row],) for row in chosen))
