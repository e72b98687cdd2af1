"""Export a trained model to a folder that transformers opens."""

from pathlib import Path

from jaxclf.exporters.verify import check_new_folder
from jaxclf.inference.members import model_folder
from jaxclf.model.storage.hf_folder import write_hf_folder


def to_hf(run: Path, out: Path) -> str:
    """Write a Hugging Face folder of a finished run, as `write_hf_folder` does; returns a summary.

    Raises ConfigError if `out` exists and is not empty, DataError if the run is damaged.
    """
    check_new_folder(out)
    return write_hf_folder(model_folder(run), out)
