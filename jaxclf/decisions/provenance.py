"""Which split fitted what: a figure on a split that fitted something flatters, and is called so."""

from collections.abc import Mapping, Sequence
from typing import Any

Provenance = Mapping[str, Any]


def make_provenance(
    splits: Mapping[str, Mapping[str, Any]], rules: Mapping[str, str]
) -> dict[str, Any]:
    """What goes to provenance.json.

    splits: name -> {"file", "rows", "sha256"}. rules: "threshold", "calibration" and "average" ->
        the rule.
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
    """A provenance with one more thing that a split fitted."""
    return {**provenance, "fitted": [*provenance["fitted"], {"what": what, "split": split}]}


def join_provenances(provenances: Sequence[Provenance]) -> dict[str, Any]:
    """What the splits of several runs fitted, each thing once, but for the runs' thresholds, which
    an ensemble has of its own. Where two runs call other rows by one name (folds), the later one's
    name gets a number."""
    splits: dict[str, Any] = {}
    fitted: list[dict[str, str]] = []
    for number, provenance in enumerate(provenances):
        names = {}
        for name, split in provenance["splits"].items():
            same = splits.get(name, split)["sha256"] == split["sha256"]
            names[name] = name if same else f"{name}-{number}"
            splits[names[name]] = split
        renamed = [
            {"what": one["what"], "split": names.get(one["split"], one["split"])}
            for one in provenance["fitted"]
            if not one["what"].startswith("the thresholds")
        ]
        fitted += [one for one in renamed if one not in fitted]
    return {"splits": splits, "fitted": fitted}


def fitted_by(provenance: Provenance, split: str) -> list[str]:
    """What a split fitted, in words; nothing for one that is honest."""
    return [entry["what"] for entry in provenance["fitted"] if entry["split"] == split]


def split_of(provenance: Provenance, sha256: str) -> str | None:
    """The split with this fingerprint, whatever its file is called."""
    for name, split in provenance["splits"].items():
        if split["sha256"] == sha256:
            return name
    return None


def warning(provenance: Provenance, split: str) -> str | None:
    """A sentence for the report and the terminal, None where the split fitted nothing."""
    what = fitted_by(provenance, split)
    if not what:
        return None
    listed = ", ".join(what[:-1]) + " and " + what[-1] if len(what) > 1 else what[0]
    return f"{split} fitted {listed}: figures on it flatter."
