"""Read and validate the metadata of a model folder: format, labels, calibration, provenance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.decisions.calibration import apply_calibration, calibration_from_json
from jaxclf.decisions.provenance import Provenance
from jaxclf.decisions.row_hashes import LIMIT, ROW_HASHES, load_row_hashes
from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable, safe_path


def check_format(meta: Mapping[str, Any], file: Path, expected: int) -> None:
    """Raise DataError for a folder that another version of jaxclf wrote."""
    version = meta.get("format")
    if type(version) is not int:
        raise DataError(f"{file}: format {printable(str(version))}; this version reads {expected}")
    if version < expected:
        raise DataError(
            f"{file}: written by jaxclf 0.1 or a preview of 0.2, which this version does not read; "
            "make the folder again with this version, or open it with that one"
        )
    if version > expected:
        raise DataError(f"{file}: written by a newer version of jaxclf; upgrade jaxclf")


def read_labels(meta: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """The labels in order, each with a threshold. Raises DataError."""
    labels, thresholds = meta.get("labels"), meta.get("thresholds")
    if (
        not isinstance(labels, list)
        or not labels
        or not all(isinstance(name, str) for name in labels)
        or len(set(labels)) < len(labels)
    ):
        raise DataError(f"{file}: labels is not a list of distinct names")
    for name in labels:
        threshold = thresholds.get(name) if isinstance(thresholds, dict) else None
        value = threshold.get("value") if isinstance(threshold, dict) else None
        if not isinstance(value, int | float) or not 0 <= value <= 2:
            raise DataError(f"{file}: thresholds has no number for {printable(name)!r}")
    return tuple(labels)


def read_calibration(meta: Mapping[str, Any], file: Path, classes: int) -> dict[str, Any]:
    """A curve for each label, finite and increasing. Raises DataError."""
    values = meta.get("calibration")
    if isinstance(values, dict):
        try:
            calibration = calibration_from_json(values)
        except DataError as error:
            raise DataError(f"{file}: calibration: {printable(str(error))}") from None
        if len(calibration.curves) == classes:
            probs = np.linspace(0, 1, 33, dtype=np.float32)
            curves = apply_calibration(calibration, np.repeat(probs[:, None], classes, axis=1))
            if (np.diff(curves, axis=0) >= 0).all():  # false for NaN too
                return values
    raise DataError(f"{file}: calibration has no increasing curve for each label")


def read_provenance(meta: Mapping[str, Any], folder: Path, file: Path) -> Provenance:
    """Which split fitted each part of the model, and the row hashes. Raises DataError."""
    values = meta.get("provenance")
    if (
        not isinstance(values, dict)
        or not isinstance(values.get("splits"), dict)
        or not isinstance(values.get("fitted"), list)
        or not all(
            isinstance(part, dict) and all(isinstance(part.get(k), str) for k in ("what", "split"))
            for part in values["fitted"]
        )
        or not all(
            isinstance(split, dict) and "sha256" in split for split in values["splits"].values()
        )
    ):
        raise DataError(f"{file}: provenance does not name the split that fitted each part")
    if ROW_HASHES not in meta["files"]:  # of an exported model
        return Provenance(values, {})
    return Provenance(values, load_row_hashes(safe_path(folder, ROW_HASHES, LIMIT)))
