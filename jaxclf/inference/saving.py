"""Copies of a model's folder."""

import shutil
from pathlib import Path

from jaxclf.errors import ConfigError
from jaxclf.files.atomic import write_folder
from jaxclf.inference.members import is_model
from jaxclf.inference.report import report_path


def save_copy(source: Path, target: Path) -> None:
    """Copy a model's folder with its report. Raises ConfigError if `target` is in use."""
    is_free = not target.exists() or (
        target.is_dir() and (is_model(target) or not any(target.iterdir()))
    )
    if not is_free:
        raise ConfigError(f"{target}: exists and is not a model; give another folder")
    if target.exists() and target.samefile(source):
        return
    with write_folder(target, sum(file.stat().st_size for file in source.rglob("*"))) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)
        if (report := report_path(source)) is not None:
            shutil.copy(report, part)
