"""Provenance: what a run was fitted on, and which split fitted what.

`provenance.json` of a run is written when the run starts:

splits           name -> {"file", "rows", "sha256": {column: digest}}, of the rows in their order
fitted           [{"what", "split"}]; scores on a split that was fitted on are biased
files            key of the experiment -> {file: SHA-256}, of what else the weights depend on
allowed_changes  what was changed before a later start, where that was allowed
row_hashes       {"file", "sha256"} of the hashes of the splits' texts, row_hashes.npz
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.decisions.row_hashes import ROW_HASHES, Hashes, load_row_hashes, save_row_hashes
from jaxclf.errors import DataError
from jaxclf.files.atomic import sha256
from jaxclf.files.digest import DIGEST, is_sealed, seal
from jaxclf.files.json_file import read_json, write_json

PROVENANCE = "provenance.json"
INHERITED = ("the weights", "the choice of the epoch")  # what later training cannot undo


class Provenance(NamedTuple):
    """record: the content of provenance.json, plain JSON values. row_hashes: by split; lacks those
    that are not known."""

    record: dict[str, Any]
    row_hashes: dict[str, Hashes]


def make_provenance(
    splits: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, str],
    files: Mapping[str, Mapping[str, str]] | None = None,
    row_hashes: Mapping[str, Hashes] | None = None,
) -> Provenance:
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
    record = {
        "splits": {name: dict(split) for name, split in splits.items()},
        "fitted": fitted,
        "files": {key: dict(digests) for key, digests in (files or {}).items()},
    }
    return Provenance(record, dict(row_hashes or {}))


def write_provenance(run: Path, provenance: Provenance) -> None:
    """Write provenance.json and row_hashes.npz into the folder of a run."""
    digest = save_row_hashes(run / ROW_HASHES, provenance.row_hashes)
    pointer = {"row_hashes": {"file": ROW_HASHES, "sha256": digest}}
    write_json(run / PROVENANCE, seal({**provenance.record, **pointer}))


def read_provenance(run: Path) -> Provenance:
    """Read both files. Raises DataError if one is missing or damaged."""
    record = read_json(run / PROVENANCE)
    if not is_sealed(record):
        raise DataError(f"{run / PROVENANCE}: damaged (its digest differs)")
    del record[DIGEST]
    pointer = record.pop("row_hashes", None)
    if pointer is None:
        return Provenance(record, {})
    path = run / ROW_HASHES
    if not path.is_file() or sha256(path) != pointer["sha256"]:
        raise DataError(f"{path}: missing or damaged (its SHA-256 is not that in {PROVENANCE})")
    return Provenance(record, load_row_hashes(path))


def with_fitted(provenance: Provenance, what: str, splits: Sequence[str]) -> Provenance:
    """Add something that was fitted on some splits."""
    record = provenance.record
    added = [{"what": what, "split": split} for split in splits]
    return provenance._replace(record={**record, "fitted": [*record["fitted"], *added]})


def join_provenances(provenances: Sequence[Provenance]) -> Provenance:
    """The provenance of several runs, without their thresholds, which an ensemble replaces.

    If two runs use one name for different rows, the later name gets a number.
    """
    splits: dict[str, Any] = {}
    fitted: list[dict[str, str]] = []
    row_hashes: dict[str, Hashes] = {}
    for record, hashes in provenances:
        names = {}
        for name, split in record["splits"].items():
            numbered = (f"{name}-{number}" for number in itertools.count(1))
            names[name] = next(
                free
                for free in itertools.chain([name], numbered)
                if splits.get(free, split)["sha256"] == split["sha256"]
            )
            splits[names[name]] = split
        row_hashes |= {names.get(name, name): values for name, values in hashes.items()}
        for part in record["fitted"]:
            renamed = {"what": part["what"], "split": names.get(part["split"], part["split"])}
            if not part["what"].startswith("the thresholds") and renamed not in fitted:
                fitted.append(renamed)
    return Provenance({"splits": splits, "fitted": fitted, "files": {}}, row_hashes)


def with_earlier(provenance: Provenance, earlier: Provenance) -> Provenance:
    """Add what fitted the weights that the run started from, or had before a change."""
    fitted = [part for part in earlier.record["fitted"] if part["what"] in INHERITED]
    names = {part["split"] for part in fitted}
    splits = {name: split for name, split in earlier.record["splits"].items() if name in names}
    hashes = {name: values for name, values in earlier.row_hashes.items() if name in names}
    inherited = Provenance({"splits": splits, "fitted": fitted}, hashes)
    joined = join_provenances([provenance, inherited])
    added = [part for part in joined.record["fitted"] if part not in provenance.record["fitted"]]
    record = provenance.record | {"splits": joined.record["splits"]}
    return Provenance(
        record | {"fitted": [*provenance.record["fitted"], *added]}, joined.row_hashes
    )


def fitted_by(provenance: Provenance, split: str) -> list[str]:
    """What was fitted on a split; empty for a held-out split."""
    return [part["what"] for part in provenance.record["fitted"] if part["split"] == split]


def used_rows(provenance: Provenance, hashes: Hashes) -> list[dict[str, Any]]:
    """How many rows were used for what: [{"for", "rows", "of"}], from the hashes of their texts.

    "rows" is None where the hashes of a split that was fitted on are not known.
    """
    splits_of: dict[str, list[str]] = {}
    for part in provenance.record["fitted"]:
        splits_of.setdefault(part["what"], []).append(part["split"])
    uses: dict[tuple[str, ...], list[str]] = {}
    for what, splits in splits_of.items():
        uses.setdefault(tuple(splits), []).append(what)
    known = provenance.row_hashes
    return [
        {
            "for": ["training" if what == "the weights" else what for what in uses[splits]],
            "rows": int(np.isin(hashes, np.concatenate([known[name] for name in splits])).sum())
            if known.keys() >= set(splits)
            else None,
            "of": len(hashes),
        }
        for splits in uses
    ]


def describe_split(provenance: Provenance, split: str) -> dict[str, Any]:
    """The provenance's part of a split in report.json."""
    part: dict[str, Any] = {"fitted": fitted_by(provenance, split)}
    if split in provenance.row_hashes:
        part["used_rows"] = used_rows(provenance, provenance.row_hashes[split])
    return part


def reuse_warnings(scores: Mapping[str, Any], name: str) -> Iterator[str]:
    """A sentence for each use of rows that biases their scores, from a part of report.json.

    name: of the rows.
    """
    if "used_rows" not in scores and (parts := _biasing(scores.get("fitted", []), scores)):
        what = _enumerate(parts)
        yield f"{name} was used for {what}; scores on it are optimistically biased."
    for use in scores.get("used_rows", []):
        rows, of, parts = use["rows"], use["of"], _biasing(use["for"], scores)
        if not parts:
            continue
        what = _enumerate(parts)
        if rows is None:
            yield f"{name}: not known how many of {of:,} rows were used for {what}: no row hashes."
        elif rows:
            yield (
                f"{name}: {rows:,} of {of:,} rows were used for {what}; scores on them are "
                "optimistically biased."
            )


def _biasing(parts: Sequence[str], scores: Mapping[str, Any]) -> list[str]:
    """The parts without those that were cross-fitted for these scores."""
    cross_fitted = ("the calibration", "the thresholds") if "crossfit" in scores else ()
    return [part for part in parts if not part.startswith(cross_fitted)]


def _enumerate(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def run_warnings(runs: Sequence[Path], split: str) -> list[str]:
    """The reuse warnings of a split that some runs have scored, each with its runs."""
    runs_of: dict[str, list[str]] = {}
    for run in runs:
        if (run / PROVENANCE).is_file():  # another program's predictions have none
            for sentence in reuse_warnings(describe_split(read_provenance(run), split), split):
                runs_of.setdefault(sentence, []).append(str(run))
    return [f"{', '.join(names)}: {sentence}" for sentence, names in runs_of.items()]
