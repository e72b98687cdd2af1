"""Where the encoder lies in folders that sentence-transformers and PEFT write."""

import logging
import shlex
from pathlib import Path
from typing import Any

from jaxclf.errors import DataError
from jaxclf.files.untrusted import has_entry, parse_json, printable, read_json, safe_path
from jaxclf.model.storage.tensor_files import INDEX, MSGPACK, SINGLE

log = logging.getLogger(__name__)

ADAPTER, MODULES = "adapter_config.json", "modules.json"
MODULES_LIMIT = 2**16  # bytes
MAX_LISTED_STEPS = 8
# PEFT's task_type -> the end of the name of its class.
TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "FEATURE_EXTRACTION": "ForFeatureExtraction",
}
# sentence-transformers' pooling modes -> the same pool here.
POOLS = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}


def find_encoder(folder: Path, name: str) -> Path:
    """The folder that holds the encoder: this one, or the one that `modules.json` names.

    The log tells what sentence-transformers does after the encoder. name: as the user gave it.
    Raises DataError for a PEFT adapter, which holds no encoder.
    """
    if has_entry(folder, ADAPTER) and not any(
        has_entry(folder, weights) for weights in (SINGLE, INDEX, MSGPACK)
    ):
        raise DataError(f"{folder / ADAPTER}: {_merge_advice(read_json(folder, ADAPTER), name)}")
    return _find_transformer(folder) if has_entry(folder, MODULES) else folder


def _merge_advice(config: dict[str, Any], name: str) -> str:
    base = printable(str(config.get("base_model_name_or_path")))
    target = name.rstrip("/") + "-merged"
    model = "AutoPeftModel" + TASKS.get(str(config.get("task_type")), "")
    code = (
        f"from peft import {model}; from transformers import AutoTokenizer; "
        f"{model}.from_pretrained({name!r}, ignore_mismatched_sizes=True).merge_and_unload()"
        f".save_pretrained({target!r}); "
        f"AutoTokenizer.from_pretrained({base!r}).save_pretrained({target!r})"
    )
    return (
        f"an adapter of the encoder {base}, which is not in the folder; merge them once and give "
        f"encoder.name={target}:\n"
        "  pip install torch transformers peft\n"
        f"  python -c {shlex.quote(code)}"
    )


def _find_transformer(folder: Path) -> Path:
    path = safe_path(folder, MODULES, MODULES_LIMIT)
    modules = parse_json(b'{"modules":%b}' % path.read_bytes(), str(path))["modules"]
    if not isinstance(modules, list) or not all(isinstance(part, dict) for part in modules):
        raise DataError(f"{path}: not a list of modules")
    folders = {}
    for module in modules:
        part = str(module.get("path", ""))
        is_name = Path(part).name == part != ".." and part.isprintable() and len(part) < 64
        if not is_name or (folder / part).is_symlink():
            raise DataError(f"{path}: '{printable(part)}' is not a folder in it")
        folders[str(module.get("type")).rpartition(".")[2]] = folder / part
    steps = [printable(name).lower() for name in folders if name != "Transformer"]
    if "Pooling" in folders and has_entry(folders["Pooling"], "config.json"):
        config = read_json(folders["Pooling"], "config.json")
        modes = [key for key, value in config.items() if value is True and "pooling_mode_" in key]
        modes = [key.removeprefix("pooling_mode_") for key in modes] or [config.get("pooling_mode")]
        pool = POOLS.get(str(modes[0])) if len(modes) == 1 else None
        advice = f"pool={pool} is the same" if pool else "no pool is the same"
        listed = " and ".join(printable(str(mode)) for mode in modes)
        steps[steps.index("pooling")] = f"pooling ({listed}; {advice})"
    log.info(
        "%s: a sentence-transformers model; only its encoder is used, not %s",
        folder,
        ", ".join(steps[:MAX_LISTED_STEPS]) or "more",
    )
    return folders.get("Transformer", folder)
