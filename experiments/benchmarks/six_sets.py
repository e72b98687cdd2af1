"""Make six data sets that differ in size, labels and length, for recipes that must suit any of them.

    python data/get_goemotions.py
    python -m experiments.benchmarks.six_sets --out runs/six_sets

Five are made from GoEmotions, one is the demonstration set. Each folder has train, val and test as JSON
lines. The rows are drawn from the split of the same name, by a fixed seed:

    ekman_500        7 labels, 500 training rows
    original_2000    28 labels, 2,000 training rows
    topics_8000      12 groups of the 28 labels, 8,000 training rows
    demonstration    6 labels, 800 training rows, not from GoEmotions
    long_tail_2000   28 labels whose frequencies follow a power law, 2,000 training rows
    threads_1000     7 labels, 1,000 training rows of four to eight comments each, labels united
"""  # noqa: E501

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent.parent / "data"
SEED = 0
EXPONENT = 1.3  # of the power law
COMMENTS = (4, 8)  # of a thread, fewest and most

Row = dict[str, Any]

TOPICS = {
    "affection": "love caring desire",
    "anger": "anger annoyance",
    "appreciation": "admiration approval gratitude",
    "disapproval": "disapproval",
    "disgust": "disgust",
    "fear": "fear nervousness",
    "joy": "joy amusement excitement optimism pride relief",
    "neutral": "neutral",
    "questions": "confusion curiosity",
    "realization": "realization surprise",
    "sadness": "sadness disappointment grief",
    "shame": "embarrassment remorse",
}

# Rows of train, val and test.
SIZES = {
    "ekman_500": (500, 150, 2000),
    "original_2000": (2000, 500, 2000),
    "topics_8000": (8000, 1600, 2000),
    "long_tail_2000": (2000, 500, 2000),
    "threads_1000": (1000, 250, 500),
}


def to_topics(row: Row) -> Row:
    labels = set(row["labels"])
    return row | {"labels": [name for name, parts in TOPICS.items() if labels & set(parts.split())]}


def thin(rows: Sequence[Row], shares: Mapping[str, float], rng: random.Random) -> list[Row]:
    """Keep a row with the smallest share of its labels."""
    return [row for row in rows if rng.random() < min(shares[name] for name in row["labels"])]


def power_law_shares(rows: Sequence[Row]) -> dict[str, float]:
    """The share to keep of each label's rows: the frequency of rank r is then about r^-EXPONENT."""
    ranked = Counter(name for row in rows for name in row["labels"]).most_common()
    wanted = {name: ranked[0][1] / rank**EXPONENT for rank, (name, _) in enumerate(ranked, 1)}
    return {name: min(wanted[name] / count, 1) for name, count in ranked}


def to_threads(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    """Join four to eight rows to one text each, with the labels of all."""
    threads, start = [], 0
    while start + COMMENTS[1] <= len(rows):
        parts = rows[start : start + rng.randint(*COMMENTS)]
        start += len(parts)
        labels = sorted({name for part in parts for name in part["labels"]})
        text = "\n".join(part["text"] for part in parts)
        threads.append({"id": parts[0]["id"], "text": text, "labels": labels})
    return threads


def make_sets(goemotions: Path) -> dict[str, dict[str, list[Row]]]:
    """The rows of each set and split."""
    sets: dict[str, dict[str, list[Row]]] = {name: {} for name in SIZES}
    shares: dict[str, float] = {}
    for number, split in enumerate(("train", "val", "test")):
        original, ekman = (
            [json.loads(line) for line in (goemotions / name / f"{split}.jsonl").open("rb")]
            for name in ("original", "ekman")
        )
        shares = shares or power_law_shares(original)
        rng = random.Random(f"{SEED} {split}")
        rows = {
            "ekman_500": ekman,
            "original_2000": original,
            "topics_8000": [to_topics(row) for row in original],
            "long_tail_2000": thin(original, shares, rng),
        }
        rng.shuffle(ekman)
        rows["threads_1000"] = to_threads(ekman, rng)
        for name, population in rows.items():
            count = min(SIZES[name][number], len(population))
            sets[name][split] = rng.sample(population, count)
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--goemotions", type=Path, default=DATA / "goemotions")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sets = make_sets(args.goemotions)
    sets["demonstration"] = {
        split: json.loads((DATA / f"{split}_data.json").read_text(encoding="utf-8"))
        for split in ("train", "val", "test")
    }
    for name, splits in sets.items():
        for split, rows in splits.items():
            path = args.out / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_text("".join(lines), encoding="utf-8")
        print(name, {split: len(rows) for split, rows in splits.items()})


if __name__ == "__main__":
    main()
