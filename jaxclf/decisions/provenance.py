"""Provenance: what a run was fitted on, and which split fitted what.

`provenance.json` of a run is written when the run starts:

splits           name -> {"file", "rows", "sha256": {column: digest}}, of the rows in their order
fitted           [{"what", "split"}]; scores on a split that was fitted on are biased
files            key of the experiment -> {file: SHA-256}, of what else the weights depend on
allowed_changes  what was changed before a later start, where that was allowed
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.decisions.predictions import HELD_OUT
from jaxclf.errors import DataError
from jaxclf.files.digest import DIGEST, is_sealed, seal
from jaxclf.files.json_file import read_json, write_json

PROVENANCE = "provenance.json"
# What can differ between two starts of a run.
KEYS = ("data.train", "data.val", "data.test", "data.soft_labels", "encoder", PROVENANCE)
INHERITED = ("the weights", "the choice of the epoch")  # what later training cannot undo

Provenance = Mapping[str, Any]


class Change(NamedTuple):
    """Something that a run depends on and that differs from what the run started with."""

    key: str  # of the experiment
    file: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.file}: was {self.before}; is {self.after}"


def make_provenance(
    splits: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, str],
    files: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The provenance of a run that starts.

    rules: the names of the rules "threshold", "calibration" and "average".
    """
    fitted = [{"what": "the weights", "split": "train"}]
    if rules["average"] == "best":
        fitted.append({"what": "the choice of the epoch", "split": "val"})
    if rules["calibration"] != "none":
        fitted.append({"what": f"the calibration ({rules['calibration']})", "split": "val"})
    if rules["threshold"] != "fixed":
        fitted.append({"what": f"the thresholds ({rules['threshold']})", "split": "val"})
    return {
        "splits": {name: dict(split) for name, split in splits.items()},
        "fitted": fitted,
        "files": {key: dict(digests) for key, digests in files.items()},
    }


def write_provenance(run: Path, provenance: Provenance) -> None:
    write_json(run / PROVENANCE, seal(provenance))


def read_provenance(run: Path) -> dict[str, Any]:
    """The provenance in the folder of a run. Raises DataError if it is missing or damaged."""
    values = read_json(run / PROVENANCE)
    if not is_sealed(values):
        raise DataError(f"{run / PROVENANCE}: damaged (its digest differs)")
    return {name: value for name, value in values.items() if name != DIGEST}


def find_changes(before: Provenance, after: Provenance) -> list[Change]:
    """What differs between two starts of a run."""
    changes = []
    for name, split in after["splits"].items():
        old = before["splits"].get(name, {"rows": 0, "sha256": {}})
        columns = [key for key, of in split["sha256"].items() if old["sha256"].get(key) != of]
        if columns:
            key = f"data.{'train' if name == HELD_OUT else name}"
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


def with_fitted(provenance: Provenance, what: str, split: str) -> dict[str, Any]:
    """Add something that was fitted on a split."""
    return {**provenance, "fitted": [*provenance["fitted"], {"what": what, "split": split}]}


def join_provenances(provenances: Sequence[Provenance]) -> dict[str, Any]:
    """The provenance of several runs, without their thresholds, which an ensemble replaces."""
    joined = _join(provenances)
    kept = [part for part in joined["fitted"] if not part["what"].startswith("the thresholds")]
    return {**joined, "fitted": kept}


def with_earlier(provenance: Provenance, earlier: Provenance) -> dict[str, Any]:
    """Add what fitted the weights that the run started from, or had before a change."""
    fitted = [part for part in earlier["fitted"] if part["what"] in INHERITED]
    splits = {part["split"] for part in fitted} & earlier["splits"].keys()
    inherited = {"splits": {name: earlier["splits"][name] for name in splits}, "fitted": fitted}
    return {**provenance, **_join([provenance, inherited])}


def _join(provenances: Sequence[Provenance]) -> dict[str, Any]:
    """If two provenances use one name for different rows, the later name gets a number."""
    splits: dict[str, Any] = {}
    fitted: list[dict[str, str]] = []
    for provenance in provenances:
        names = {}
        for name, split in provenance["splits"].items():
            numbered = itertools.chain(
                [name], (f"{name}-{number}" for number in itertools.count(1))
            )
            names[name] = next(
                free for free in numbered if splits.get(free, split)["sha256"] == split["sha256"]
            )
            splits[names[name]] = split
        for part in provenance["fitted"]:
            renamed = {"what": part["what"], "split": names.get(part["split"], part["split"])}
            if renamed not in fitted:
                fitted.append(renamed)
    return {"splits": splits, "fitted": fitted}


def fitted_by(provenance: Provenance, split: str) -> list[str]:
    """What was fitted on a split; empty for a held-out split."""
    return [entry["what"] for entry in provenance["fitted"] if entry["split"] == split]


def split_of(provenance: Provenance, sha256: Mapping[str, str]) -> str | None:
    """The split whose rows have this SHA-256, under any file name."""
    splits = provenance["splits"].items()
    return next((name for name, split in splits if split["sha256"] == sha256), None)


def warning(provenance: Provenance, split: str) -> str | None:
    """A warning for the report and the terminal; None if nothing was fitted on the split."""
    what = fitted_by(provenance, split)
    if not what:
        return None
    listed = ", ".join(what[:-1]) + " and " + what[-1] if len(what) > 1 else what[0]
    return f"{split} fitted {listed}; scores on it are optimistically biased."
