"""A model given to another runtime: its folder is held to the run's own answers before it gets its
name."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from tokenizers import Tokenizer

from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.untrusted import has_entry, safe_path
from jaxclf.inference.members import model_folder
from jaxclf.model.storage.ensemble_folder import ENSEMBLE
from jaxclf.model.storage.saved_model import META
from jaxclf.text.tokenizer.tokenize import TOKENIZER
from jaxclf.types import Windows

RECORD = "verification.json"

# Most that two probabilities may differ. Two libraries of float32 add in other orders: 6e-7 was
# seen, and calibration may stretch it. bfloat16 has three digits, lost in each layer anew.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2}

SENTENCES = (
    "The train to the coast leaves at nine.",
    "Rain is expected in the north, with some sun later in the day!",
    "He planted two rows of beans behind the house.",
    "Why is the library closed on Mondays?",
    "The recipe needs flour, butter, three eggs and a pinch of salt.",
    "Water boils at 100 °C; higher up, a little earlier.",
    "A café opened beside the old bridge 🌉.",
    "She counted the boxes twice, and then she wrote the number down.",
    "ok",
)

Probs = Float32[np.ndarray, "texts classes"]


def probe_texts(windows: Windows) -> list[str]:
    """Texts from one word to more than all windows hold."""
    words = " ".join(SENTENCES).split()
    longest = 2 * windows.max_length * windows.max_windows
    words = words * -(-longest // len(words))
    counts = {round(1.6**power) for power in range(64) if 1.6**power < longest} | {longest}
    return [*SENTENCES, *(" ".join(words[:count]) for count in sorted(counts))]


@contextlib.contextmanager
def new_folder(run: Path, out: Path, tokenizer: Tokenizer, told: str) -> Iterator[Path]:
    """The folder to write to, which becomes `out` where all goes well and else is gone. It has the
    tokenizer, what the run's folder says of labels and thresholds, and its card with `told` below.

    Raises ConfigError where `out` exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists; give a new folder")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        folder = model_folder(run)
        told_by = ENSEMBLE if has_entry(folder, ENSEMBLE) else META
        shutil.copyfile(safe_path(folder, told_by), part / told_by)
        tokenizer.save(str(part / TOKENIZER))
        card = safe_path(folder, "README.md").read_text(encoding="utf-8")
        (part / "README.md").write_text(f"{card}\n{told}", encoding="utf-8")
        yield part
        if out.exists():
            out.rmdir()
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def compare(own: Probs, theirs: Probs, thresholds: np.ndarray) -> dict[str, Any]:
    """How far another's probabilities are from the run's own, and how many decisions are equal."""
    apart = np.abs(own - theirs)
    return {
        "texts": len(own),
        "largest_difference": float(apart.max()),
        "mean_difference": float(apart.mean()),
        "equal_decisions": float((decide(own, thresholds) == decide(theirs, thresholds)).mean()),
    }


def check_tolerance(found: Mapping[str, Any], dtypes: Sequence[str]) -> float:
    """The tolerance for encoders that compute in these. Raises DataError where what `compare` found
    is beyond it."""
    tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
    if not found["largest_difference"] <= tolerance:
        raise DataError(
            f"its probabilities differ from the run's by up to {found['largest_difference']:.2g}, "
            f"more than {tolerance:g}; nothing is written"
        )
    return tolerance


def loss_of_f1(
    labels: np.ndarray, own: Probs, theirs: Probs, thresholds: np.ndarray
) -> dict[str, dict[str, float]]:
    """Macro and micro F1 of the run and of the other, and what is lost."""
    scores = [compute_metrics(labels, probs, decide(probs, thresholds)) for probs in (own, theirs)]
    return {
        name: {
            "run": scores[0][name],
            "exported": scores[1][name],
            "loss": scores[0][name] - scores[1][name],
        }
        for name in ("macro_f1", "micro_f1")
    }


def write_record(folder: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
