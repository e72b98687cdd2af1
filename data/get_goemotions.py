"""Put GoEmotions under data/goemotions/ in the canonical format, from its publisher or a local copy.

    python data/get_goemotions.py                  # downloads three files, 4.5 MB
    python data/get_goemotions.py --from FOLDER    # takes them from FOLDER or FOLDER/original

Writes `original` (27 emotions and neutral) and `ekman` (6 and neutral), each as train, val and test JSONL.
The source files are checked by SHA-256; `ekman` is derived from them by the publisher's own mapping.

Demszky et al. 2020, arXiv 2005.00547. Published by Google Research under CC BY 4.0.
"""

import argparse
import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

PUBLISHER = (
    "https://raw.githubusercontent.com/google-research/google-research/master/goemotions/data/"
)

# split name here -> (file name there, SHA-256, rows)
SPLITS = {
    "train": (
        "train.tsv",
        "1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
        43410,
    ),
    "val": (
        "dev.tsv",
        "575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
        5426,
    ),
    "test": (
        "test.tsv",
        "0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
        5427,
    ),
}

ORIGINAL = [
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
]

EKMAN = {
    "anger": "anger annoyance disapproval",
    "disgust": "disgust",
    "fear": "fear nervousness",
    "joy": "joy amusement approval excitement gratitude love optimism relief pride admiration desire caring",
    "neutral": "neutral",
    "sadness": "sadness disappointment embarrassment grief remorse",
    "surprise": "surprise realization confusion curiosity",
}


def read_source(name: str, folder: Path | None) -> bytes:
    """The bytes of one source file, from a folder or from the publisher."""
    if folder is None:
        with urllib.request.urlopen(PUBLISHER + name, timeout=60) as answer:
            return answer.read()
    paths = [path for path in (folder / name, folder / "original" / name) if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"{folder / name} (or {folder / 'original' / name}) not found")
    return paths[0].read_bytes()


def to_rows(source: bytes) -> list[tuple[str, str, list[str]]]:
    """`text TAB indices TAB id` lines -> (id, text, original label names)."""
    rows = []
    for line in source.decode("utf-8").splitlines():
        text, indices, name = line.split("\t")
        rows.append((name, text, [ORIGINAL[int(index)] for index in indices.split(",")]))
    return rows


def to_ekman(emotions: list[str]) -> list[str]:
    """Names of the 28 -> names of the 7, in label order."""
    return [group for group, members in EKMAN.items() if set(emotions) & set(members.split())]


def write_jsonl(path: Path, rows: list[tuple[str, str, list[str]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": name, "text": text, "labels": labels}, ensure_ascii=False)
        for name, text, labels in rows
    ]
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="folder", type=Path, help="a folder that holds the files")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "goemotions",
        help="default: goemotions/ beside this file",
    )
    args = parser.parse_args()

    # All three are read and checked before anything is written.
    sources = {}
    for split, (name, expected, count) in SPLITS.items():
        try:
            source = read_source(name, args.folder)
        except (OSError, urllib.error.URLError) as error:
            print(f"error: {name}: {error}; pass --from FOLDER with a local copy", file=sys.stderr)
            return 5
        actual = hashlib.sha256(source).hexdigest()
        if actual != expected:
            print(
                f"error: {name}: SHA-256 is {actual}, expected {expected}; the copy differs from the published file",
                file=sys.stderr,
            )
            return 2
        sources[split] = to_rows(source)
        assert len(sources[split]) == count

    for split, rows in sources.items():
        write_jsonl(args.out / "original" / f"{split}.jsonl", rows)
        write_jsonl(
            args.out / "ekman" / f"{split}.jsonl",
            [(name, text, to_ekman(labels)) for name, text, labels in rows],
        )
        print(f"{split}: {len(rows):,} rows -> {args.out}/{{original,ekman}}/{split}.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
