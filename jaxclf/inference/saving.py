"""Copies of a model: a folder, and a repository of the Hugging Face Hub."""

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from jaxclf.errors import ConfigError
from jaxclf.files.atomic import write_folder
from jaxclf.inference.members import is_model
from jaxclf.inference.report import report_path
from jaxclf.model.storage.hf_folder import write_hf_folder
from jaxclf.model.storage.saved_model import META


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


def push_copy(source: Path, name: str, private: bool, token: str | None) -> str:
    """Upload a model as a folder that transformers opens, with its card. Returns the address.

    Raises ConfigError for an ensemble or a cascade, and for a name that the Hub refuses.
    """
    if not (source / META).is_file():
        raise ConfigError(f"{source}: several networks, and the Hub's folder holds one")
    api = HfApi(token=token, library_name="jaxclf")
    with tempfile.TemporaryDirectory() as folder:
        write_hf_folder(source, Path(folder) / "model")
        try:
            repository = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository.repo_id, folder_path=Path(folder) / "model")
        except (HfHubHTTPError, LocalTokenNotFoundError, HFValidationError) as error:
            raise ConfigError(f"{name}: {error}") from None
    return str(repository)
