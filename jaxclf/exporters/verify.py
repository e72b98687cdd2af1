"""Check an export against the original model's outputs before its folder is created."""

import contextlib
import importlib.metadata
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float32
from tokenizers import Tokenizer

from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.atomic import write_folder
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import has_entry, read_json, safe_path
from jaxclf.inference.members import model_folder
from jaxclf.model.storage.ensemble_folder import ENSEMBLE
from jaxclf.model.storage.origin import read_origin
from jaxclf.model.storage.saved_model import META
from jaxclf.text.tokenizer.tokenize import TOKENIZER
from jaxclf.types import Windows

RECORD = "verification.json"
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)

# Largest allowed difference of two probabilities, by the dtype that the run computes in. Two
# float32 libraries add in different orders; bfloat16 has three digits, and every layer rounds.
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
    """Texts of many lengths: from a single word to more tokens than all windows hold."""
    words = " ".join(SENTENCES).split()
    longest = 2 * windows.max_length * windows.max_windows
    words = words * -(-longest // len(words))
    counts = {round(1.6**power) for power in range(64) if 1.6**power < longest} | {longest}
    return [*SENTENCES, *(" ".join(words[:count]) for count in sorted(counts))]


def check_new_folder(out: Path) -> None:
    """Raise ConfigError if `out` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists; give a new folder")


@contextlib.contextmanager
def new_folder(
    run: Path, out: Path, tokenizer: Tokenizer, template: str, values: Mapping[str, Any]
) -> Iterator[Path]:
    """Write `out` atomically: yield a folder that becomes `out` if the block ends without an error.

    The folder has the tokenizer, the run's metadata, and its model card followed by a template.
    Raises ConfigError if `out` exists and is not empty.
    """
    check_new_folder(out)
    with write_folder(out) as part:
        folder = model_folder(run)
        meta = ENSEMBLE if has_entry(folder, ENSEMBLE) else META
        shutil.copyfile(safe_path(folder, meta), part / meta)
        tokenizer.save(str(part / TOKENIZER))
        card = safe_path(folder, "README.md").read_text(encoding="utf-8")
        usage = TEMPLATES.get_template(template).render(values)
        (part / "README.md").write_text(f"{card}\n{usage}", encoding="utf-8")
        yield part


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write verification.json: how the export compares with the model, which model that is and
    what it was trained on."""
    meta = read_json(folder, ENSEMBLE if has_entry(folder, ENSEMBLE) else META)
    version = importlib.metadata.version("jaxclf")
    write_json(folder / RECORD, {**record, "jaxclf": version, "model": read_origin(meta)})


def compare(probs: Probs, exported: Probs, thresholds: np.ndarray) -> dict[str, Any]:
    """Differences of the run's and the export's probabilities, and the share of equal decisions."""
    differences = np.abs(probs - exported)
    is_equal = decide(probs, thresholds) == decide(exported, thresholds)
    return {
        "texts": len(probs),
        "largest_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
        "equal_decisions": float(is_equal.mean()),
    }


def check_tolerance(record: Mapping[str, Any], dtypes: Sequence[str]) -> float:
    """The tolerance for encoders that compute in these dtypes.

    Raises DataError if the difference that `compare` measured is larger.
    """
    allowed = max(TOLERANCE[dtype] for dtype in dtypes)
    if not record["largest_difference"] <= allowed:
        raise DataError(
            f"probabilities differ from the run's by up to {record['largest_difference']:.2g}, "
            f"more than {allowed:g}; nothing is written"
        )
    return allowed


def f1_loss(
    labels: np.ndarray, probs: Probs, exported: Probs, thresholds: np.ndarray
) -> dict[str, dict[str, float]]:
    """Macro and micro F1 of the run and of the export, and their difference."""
    before, after = (
        compute_metrics(labels, values, decide(values, thresholds)) for values in (probs, exported)
    )
    return {
        name: {"run": before[name], "exported": after[name], "loss": before[name] - after[name]}
        for name in ("macro_f1", "micro_f1")
    }
