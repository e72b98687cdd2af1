"""The sealed JSON file of a model folder: the SHA-256 of all files, and a digest of its own fields,
so that damage is noticed. The digest names the model.

Everything is covered but README.md, which people edit.
"""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxclf.errors import DataError
from jaxclf.files.atomic import sha256, write_text
from jaxclf.files.digest import DIGEST, is_sealed, seal
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import read_json, safe_path
from jaxclf.model.storage.metadata import check_format
from jaxclf.model.storage.origin import with_origin
from jaxclf.model.storage.tensor_files import open_safetensors

CARD = "README.md"
FILES = "files"
ADVICE = (
    "copy or make the folder again; jaxclf.load(folder, verify=False) opens a folder that was "
    "edited on purpose"
)


def write_sealed(folder: Path, name: str, values: Mapping[str, Any], card: str) -> None:
    """Write the JSON file after all other files of the folder, and the card with the digest."""
    others = [path for path in folder.iterdir() if path.is_file() and path.name != CARD]
    files = {path.name: sha256(path) for path in sorted(others)}
    version = importlib.metadata.version("jaxclf")
    sealed = seal({**values, "jaxclf": version, FILES: files})
    write_json(folder / name, sealed)
    write_text(folder / CARD, with_origin(card, sealed))


def read_sealed(folder: Path, name: str, format: int, verify: bool = True) -> dict[str, Any]:
    """Read the JSON file. Raises DataError if it or a file that it names is missing or damaged.

    verify: whether to check the sums; otherwise the result has the sums of the files as they are,
        and the digest that belongs to them.
    """
    path = folder / name
    meta = read_json(folder, name)
    check_format(meta, path, format)
    if verify and not is_sealed(meta):
        raise DataError(
            f"{path}: damaged: its SHA-256 is not the one in its field {DIGEST}; {ADVICE}"
        )
    files = meta.get(FILES)
    if not isinstance(files, dict):
        raise DataError(f"{path}: {FILES} is not an object of names and SHA-256")
    for file in files:
        if file.endswith(".safetensors"):  # a file of a wrong size is not read for its sum
            open_safetensors(folder, file)
    sums = {file: sha256(safe_path(folder, file)) for file in files}
    if not verify:
        try:
            return seal({**meta, FILES: sums})
        except RecursionError:
            raise DataError(f"{path}: nested too deeply") from None
    if damaged := [file for file in files if sums[file] != files[file]]:
        raise DataError(
            f"{folder / damaged[0]}: damaged: its SHA-256 is not the one in {name}; {ADVICE}"
        )
    return meta
