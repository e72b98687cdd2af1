"""Provenance: which split fitted what. Scores on a split that was fitted on are biased."""

from collections.abc import Mapping, Sequence
from typing import Any

Provenance = Mapping[str, Any]


def make_provenance(
    splits: Mapping[str, Mapping[str, Any]], rules: Mapping[str, str]
) -> dict[str, Any]:
    """The content of provenance.json.

    splits: name -> {"file", "rows", "sha256"}. rules: the names of the rules "threshold",
        "calibration" and "average".
    """
    fitted = [{"what": "the weights", "split": "train"}]
    if rules["average"] == "best":
        fitted.append({"what": "the choice of the epoch", "split": "val"})
    if rules["calibration"] != "none":
        fitted.append({"what": f"the calibration ({rules['calibration']})", "split": "val"})
    if rules["threshold"] != "fixed":
        fitted.append({"what": f"the thresholds ({rules['threshold']})", "split": "val"})
    return {"splits": {name: dict(split) for name, split in splits.items()}, "fitted": fitted}


def with_fitted(provenance: Provenance, what: str, split: str) -> dict[str, Any]:
    """Add something that was fitted on a split."""
    return {**provenance, "fitted": [*provenance["fitted"], {"what": what, "split": split}]}


def join_provenances(provenances: Sequence[Provenance]) -> dict[str, Any]:
    """The provenance of several runs, without their thresholds, which an ensemble replaces.

    If two runs use one name for different rows (folds), the later name gets a number.
    """
    splits: dict[str, Any] = {}
    fitted: list[dict[str, str]] = []
    for number, provenance in enumerate(provenances):
        names = {}
        for name, split in provenance["splits"].items():
            is_same = splits.get(name, split)["sha256"] == split["sha256"]
            names[name] = name if is_same else f"{name}-{number}"
            splits[names[name]] = split
        for entry in provenance["fitted"]:
            renamed = {"what": entry["what"], "split": names.get(entry["split"], entry["split"])}
            if not entry["what"].startswith("the thresholds") and renamed not in fitted:
                fitted.append(renamed)
    return {"splits": splits, "fitted": fitted}


def fitted_by(provenance: Provenance, split: str) -> list[str]:
    """What was fitted on a split; empty for a held-out split."""
    return [entry["what"] for entry in provenance["fitted"] if entry["split"] == split]


def split_of(provenance: Provenance, sha256: str) -> str | None:
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
