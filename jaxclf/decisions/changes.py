"""What differs between two starts of a run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxclf.decisions.predictions import HELD_OUT
from jaxclf.decisions.provenance import PROVENANCE

# Every key that a change may be allowed under.
SPLITS = ("train", "val", "test", HELD_OUT)  # others fitted the model of `train.init_from`
KEYS = (
    "data.train",
    "data.val",
    "data.test",
    "data.soft_labels",
    "encoder",
    "train.init_from",
    PROVENANCE,
)


class Change(NamedTuple):
    """Something that a run depends on and that differs from what the run started with."""

    key: str  # of the experiment
    file: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.file}: was {self.before}; is {self.after}"


def find_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Compare the records of two provenances."""
    changes = []
    for name, split in after["splits"].items():
        old = before["splits"].get(name, {"rows": 0, "sha256": {}})
        columns = [key for key, of in split["sha256"].items() if old["sha256"].get(key) != of]
        if columns:
            key = f"data.{'train' if name == HELD_OUT else name}"
            key = key if name in SPLITS else "train.init_from"
            file = f"{split['file']} ({', '.join(columns)})"
            sizes = [
                f"{part['rows']:,} rows, SHA-256 {_shorten(part['sha256'].get(columns[0]))}"
                for part in (old, split)
            ]
            changes.append(Change(key, file, *sizes))
    for key in {**before["files"], **after["files"]}:
        old, new = before["files"].get(key, {}), after["files"].get(key, {})
        changes += [
            Change(key, file, *(_shorten(part.get(file)) for part in (old, new)))
            for file in sorted(old.keys() | new.keys())
            if old.get(file) != new.get(file)
        ]
    return changes


def _shorten(digest: str | None) -> str:
    return f"{digest[:12]}" if digest else "missing"
