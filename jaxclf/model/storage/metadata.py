"""What a model's metadata say of labels, calibration and splits, held to be what it should be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.decisions.calibration import calibrated, from_json
from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable


def read_labels(meta: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """The labels in order, each with a threshold."""
    labels, thresholds = meta.get("labels"), meta.get("thresholds")
    if (
        not isinstance(labels, list)
        or not labels
        or not all(isinstance(name, str) for name in labels)
        or len(set(labels)) < len(labels)
    ):
        raise DataError(f"{file}: labels are not the names of distinct labels")
    for name in labels:
        one = thresholds.get(name) if isinstance(thresholds, dict) else None
        value = one.get("value") if isinstance(one, dict) else None
        if not isinstance(value, int | float) or not 0 <= value <= 2:
            raise DataError(f"{file}: thresholds has no number for {printable(name)!r}")
    return tuple(labels)


def read_calibration(meta: Mapping[str, Any], file: Path, classes: int) -> dict[str, Any]:
    """A curve for each label, finite and rising."""
    given = meta.get("calibration")
    if isinstance(given, dict):
        try:
            calibration = from_json(given)
        except DataError as error:
            raise DataError(f"{file}: calibration: {printable(str(error))}") from None
        if len(calibration.curves) == classes:
            ladder = np.linspace(0, 1, 33, dtype=np.float32)
            curve = calibrated(calibration, np.repeat(ladder[:, None], classes, axis=1))
            if (np.diff(curve, axis=0) >= 0).all():  # false for NaN too
                return given
    raise DataError(f"{file}: calibration has no rising curve for each label")


def read_ledger(meta: Mapping[str, Any], file: Path) -> dict[str, Any]:
    given = meta.get("provenance")
    if (
        not isinstance(given, dict)
        or not isinstance(given.get("splits"), dict)
        or not isinstance(given.get("fitted"), list)
        or not all(
            isinstance(one, dict) and {"what", "split"} <= one.keys() for one in given["fitted"]
        )
        or not all(isinstance(one, dict) and "sha256" in one for one in given["splits"].values())
    ):
        raise DataError(f"{file}: provenance does not say which split fitted what")
    return given
