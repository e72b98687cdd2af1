"""The folder of a cascade: the networks of all its stages, and which texts leave at which stage.

cascade.json      the labels in order; each stage's name, its networks' weights per label, its curve
                  onto the last stage's scale and between which probabilities a label is in doubt;
                  rules, thresholds, and what each split fitted
network-0, …      model folders, each as a run hands it over; what stages share lies there once
README.md         what it is and what it is not
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.calibration import from_json, to_json
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.untrusted import has_entry, printable, read_json
from jaxclf.inference.cascade.cutoffs import ALWAYS, EarlyExit
from jaxclf.model.storage.ensemble_folder import ENSEMBLE, load_ensemble, save_whole
from jaxclf.model.storage.metadata import read_calibration, read_labels, read_ledger
from jaxclf.model.storage.saved_model import META

CASCADE = "cascade.json"
FORMAT = 1
STAGES, NETWORKS, PHRASES, LETTERS = 8, 64, 256, 100  # most of each; letters of a phrase


class Rule(NamedTuple):
    """A text with one of the phrases has the label; without a label, it goes to the last stage."""

    phrases: tuple[str, ...]
    label: str | None


class Chain(NamedTuple):
    """Stages over one pool of networks.

    weights: float64 [stages, networks, classes], 0 for a network that a stage does without.
    early: of each stage but the last. thresholds: the last stage's; they and the provenance as
        `decisions` makes them, plain JSON values.
    """

    labels: tuple[str, ...]
    stages: tuple[str, ...]
    weights: Float64[np.ndarray, "stages networks classes"]
    early: tuple[EarlyExit, ...]
    rules: tuple[Rule, ...]
    thresholds: dict[str, dict[str, Any]]
    provenance: dict[str, Any]


def save_cascade(folder: Path, chain: Chain, models: Sequence[Path], card: str) -> None:
    """Write the folder whole or not at all, with a copy of each network's; an older one is
    replaced."""
    parts = {f"network-{index}": model for index, model in enumerate(models)}
    save_whole(folder, CASCADE, meta_of(chain), parts, card)


def meta_of(chain: Chain) -> dict[str, Any]:
    """What cascade.json holds: all that answers depend on but the networks."""
    stages: list[dict[str, Any]] = [
        {"name": name, "weights": dict(zip(chain.labels, weights.T.tolist(), strict=True))}
        for name, weights in zip(chain.stages, chain.weights, strict=True)
    ]
    for stage, early in zip(stages, chain.early, strict=False):  # the last one leaves no doubt
        stage["calibration"] = to_json(early.calibration)
        stage["doubt"] = dict(zip(chain.labels, early.doubt.tolist(), strict=True))
    return {
        "format": FORMAT,
        "networks": chain.weights.shape[1],
        "labels": list(chain.labels),
        "stages": stages,
        "rules": [rule._asdict() for rule in chain.rules],
        "thresholds": chain.thresholds,
        "provenance": chain.provenance,
    }


def pool_networks(
    folders: Sequence[Path], classes: int
) -> tuple[list[Path], Float64[np.ndarray, "stages networks classes"]]:
    """Folders of all the networks of models and ensembles, each once, and their weights in each.
    Raises ConfigError where one brings nothing new."""
    pool: dict[str, Path] = {}
    rows: list[dict[str, np.ndarray]] = []
    for folder in folders:
        if has_entry(folder, CASCADE):
            raise ConfigError(f"{folder}: a cascade is no stage; give the runs it was made of")
        if has_entry(folder, ENSEMBLE):
            blended, models = load_ensemble(folder)
            shares = blended.weights
        else:
            models, shares = [folder], np.ones((1, classes))
        row: dict[str, np.ndarray] = {}
        for model, share in zip(models, shares, strict=True):
            if share.any():
                key = _digest(model)
                row[key] = row.get(key, 0) + share
                pool.setdefault(key, model)
        if not row.keys() - {key for before in rows for key in before}:
            raise ConfigError(
                f"{folder}: has no network that the stages before it lack; leave it out"
            )
        rows.append(row)
    nothing = np.zeros(classes)
    weights = np.array([[row.get(key, nothing) for key in pool] for row in rows], np.float64)
    return list(pool.values()), weights


def _digest(model: Path) -> str:
    """Equal for copies of one network, with its calibration and its way to cut texts."""
    sums = hashlib.sha256()
    for file in sorted(model.iterdir()):
        if file.name != "README.md" and file.is_file():
            with file.open("rb") as raw:
                sums.update(file.name.encode() + hashlib.file_digest(raw, "sha256").digest())
    return sums.hexdigest()


def load_cascade(folder: Path) -> tuple[Chain, list[Path]]:
    """The stages, and their networks' folders. Raises DataError for what is no cascade."""
    file = folder / CASCADE
    meta = read_json(folder, CASCADE)
    if meta.get("format") != FORMAT:
        raise DataError(
            f"{file}: format {printable(str(meta.get('format')))}; this version reads {FORMAT}"
        )
    labels = read_labels(meta, file)
    networks, stages = meta.get("networks"), meta.get("stages")
    if type(networks) is not int or not 0 < networks <= NETWORKS:
        raise DataError(f"{file}: networks is not their number, 1 to {NETWORKS}")
    if (
        not isinstance(stages, list)
        or not 2 <= len(stages) <= STAGES
        or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in stages)
    ):
        raise DataError(f"{file}: stages are not 2 to {STAGES}, each with a name")
    weights = np.array([_read_columns(one, "weights", file, labels, networks) for one in stages])
    weights = weights.swapaxes(1, 2)
    if (np.abs(weights.sum(axis=1) - 1) > 1e-6).any() or weights.max() > 1:
        raise DataError(f"{file}: weights are not {networks} shares of 1 for each label")
    if not all(new_networks(weights)):
        raise DataError(f"{file}: a stage has no network that those before it lack")
    early = []
    for one in stages[:-1]:
        doubt = _read_columns(one, "doubt", file, labels, 2)
        if (doubt[:, 0] > doubt[:, 1]).any():
            raise DataError(f"{file}: doubt is not a lower and an upper end for each label")
        early.append(EarlyExit(from_json(read_calibration(one, file, len(labels))), doubt))
    chain = Chain(
        labels,
        tuple(one["name"] for one in stages),
        weights,
        tuple(early),
        read_rules(meta, file, labels),
        meta["thresholds"],
        read_ledger(meta, file),
    )
    models = [folder / f"network-{index}" for index in range(networks)]
    if missing := [model for model in models if not (model / META).is_file()]:
        raise DataError(f"{missing[0] / META}: no such file; the cascade lacks a network")
    return chain, models


def new_networks(weights: Float64[np.ndarray, "stages networks classes"]) -> list[list[int]]:
    """Those that each stage has and none before it."""
    used = np.any(weights, axis=2)
    before = np.cumsum(used, axis=0) - used
    return [np.flatnonzero(row).tolist() for row in used & (before == 0)]


def _read_columns(
    stage: Mapping[str, Any], key: str, file: Path, labels: tuple[str, ...], width: int
) -> Float64[np.ndarray, "classes width"]:
    """So many numbers from 0 to 2 for each label."""
    given = stage.get(key)
    rows = [given.get(name) if isinstance(given, dict) else None for name in labels]
    fine = all(
        isinstance(row, list)
        and len(row) == width
        and all(isinstance(one, int | float) and 0 <= one <= ALWAYS for one in row)
        for row in rows
    )
    if not fine:
        raise DataError(f"{file}: {key} has not {width} numbers for each label")
    return np.array(rows, np.float64)


def read_rules(meta: Mapping[str, Any], file: Path, labels: tuple[str, ...]) -> tuple[Rule, ...]:
    """`"rules": [{"phrases": ["want to die", "suicid*"], "label": "self_harm_high"}, …]`.

    A phrase is words, the last letters of each left open by a `*`: no regular expression, which
    could be made to take for ever. Raises DataError.
    """
    given = meta.get("rules")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise DataError(f'{file}: "rules" is no list of objects')
    rules = []
    for number, one in enumerate(given, 1):
        where = f"{file}: rule {number}"
        if odd := one.keys() - {"phrases", "label"}:
            raise DataError(
                f"{where}: {printable(min(odd))!r}; a rule has phrases and may have a label"
            )
        label, phrases = one.get("label"), one.get("phrases")
        if label is not None and label not in labels:
            raise DataError(f"{where}: {printable(str(label))!r} is no label: {', '.join(labels)}")
        if not isinstance(phrases, list) or not phrases:
            raise DataError(f"{where}: phrases are not a list of texts")
        for place, phrase in enumerate(phrases, 1):
            if not _is_phrase(phrase):
                raise DataError(
                    f"{where}: phrase {place} is not words, each from a letter or digit on and "
                    f"with no * but at its end, of at most {LETTERS} characters together"
                )
        rules.append(Rule(tuple(phrases), label))
    if sum(len(rule.phrases) for rule in rules) > PHRASES:
        raise DataError(f"{file}: more than {PHRASES} phrases")
    return tuple(rules)


def _is_phrase(phrase: Any) -> bool:
    if not isinstance(phrase, str) or not phrase.strip() or len(phrase) > LETTERS:
        return False
    stems = [word.removesuffix("*") for word in phrase.split()]
    return all("*" not in stem and stem[:1].isalnum() for stem in stems)
