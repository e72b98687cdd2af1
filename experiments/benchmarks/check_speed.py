"""Time `jaxclf check` on made-up rows, with nearly equal texts planted.

    python -m experiments.benchmarks.check_speed --rows 100000

Prints the seconds of each part and how many of the planted pairs were found. The texts are random
words by a power law, about as long as those of GoEmotions; every hundredth has a copy with one word
changed.
"""

import argparse
import time

import numpy as np

from jaxclf.text.check.duplicates import find_duplicates, find_near_duplicates
from jaxclf.text.check.findings import gather
from jaxclf.text.check.labels import find_label_faults
from jaxclf.text.check.texts import find_text_faults
from jaxclf.types import Examples

EVERY = 100


def make_examples(rows: int) -> tuple[Examples, set[tuple[int, int]]]:
    """Rows, and the lines of the planted pairs."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, 20_000)]
    drawn = np.minimum(rng.zipf(1.3, (rows, 40)) - 1, len(words) - 1)
    texts = [
        " ".join(words[word] for word in row[:size])
        for row, size in zip(drawn, rng.integers(12, 40, rows), strict=True)
    ]
    planted = set()
    for row in range(0, rows // 2, EVERY):
        texts[row + rows // 2] = f"{texts[row].rpartition(' ')[0]} changed"
        planted.add((row + 1, row + rows // 2 + 1))
    labels = (rng.random((rows, 28)) < 0.05).astype(np.float32)
    ids = tuple(map(str, range(rows)))
    names = tuple(f"label {label}" for label in range(28))
    lines = tuple(range(1, rows + 1))
    examples = Examples(ids, tuple(texts), labels, np.ones_like(labels), names, "", lines=lines)
    return examples, planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    examples, planted = make_examples(parser.parse_args().rows)
    start, begin = time.process_time(), time.perf_counter()
    rows = gather({"train": examples})
    places = set()
    for find in (find_duplicates, find_label_faults, find_text_faults, find_near_duplicates):
        before = time.perf_counter()
        findings = list(find(rows))
        print(f"{find.__name__:<22}{time.perf_counter() - before:7.1f} s")
        if find is find_near_duplicates:
            places = {pair for finding in findings for pair in finding.places}
    pairs = {tuple(int(location.rpartition(":")[2]) for location in pair) for pair in places}
    print(f"all: {time.perf_counter() - begin:.1f} s, {time.process_time() - start:.1f} s of CPU")
    print(f"planted pairs that were found: {len(planted & pairs):,} of {len(planted):,}")


if __name__ == "__main__":
    main()
