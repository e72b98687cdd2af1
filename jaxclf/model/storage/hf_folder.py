"""Write a trained model to a folder that transformers opens."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from jaxclf.decisions.calibration import calibration_from_json, calibration_to_json, none
from jaxclf.decisions.calibration_curves import CURVES, NUMPY
from jaxclf.files.atomic import write_text
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import safe_path
from jaxclf.model.classifier import CODE_FILE, OWN_CODE, family_of
from jaxclf.model.storage.saved_model import (
    SavedModel,
    is_transformers_classifier,
    load_model,
    open_encoder,
    save_model,
)

CODE = Path(__file__).parent / f"{CODE_FILE}.txt"
AFFINE = ("none", "temperature", "platt")  # calibrations that the last layer can hold
# What of transformers opens a folder.
OPENERS = {
    "classifier": "AutoModelForSequenceClassification",
    "code": f"AutoModelForSequenceClassification, which runs {CODE_FILE} (trust_remote_code=True),",
    "encoder": "AutoModel (encoder only)",
}


def write_hf_folder(folder: Path, out: Path) -> str:
    """Write a Hugging Face folder of a model's folder; returns a summary.

    With cls pooling and the family's native head the whole model opens in
    `AutoModelForSequenceClassification`. With another pool or head it does so with
    `trust_remote_code=True`, through the code that is written beside it; without, transformers
    refuses it, and the encoder opens in `AutoModel`. The last layer includes the calibration. Where
    it cannot (isotonic, beta), the encoder alone opens. jaxclf.json has labels, thresholds and the
    experiment, and `jaxclf.load` opens every kind. Row hashes are left out: whoever has them and a
    text can tell whether the model was trained on it.

    Raises DataError if the folder is damaged.
    """
    model = load_model(folder)
    _, tokenizer = open_encoder(folder)
    card = safe_path(folder, "README.md").read_text(encoding="utf-8")
    is_affine = model.calibration["kind"] in AFFINE
    is_classifier = is_affine and is_transformers_classifier(model.experiment)
    opener = "classifier" if is_classifier else "code" if is_affine else "encoder"
    if is_affine:
        model = _with_calibration_in_last_layer(model)
    provenance = model.provenance._replace(row_hashes={})
    model = model._replace(hf_config=_make_config(model, opener), provenance=provenance)
    length, windows = model.experiment.data.max_length, model.experiment.data.max_windows
    save_model(out, model, tokenizer, card + _usage(opener, length), is_classifier)
    if opener == "code":
        task, code = family_of(model.hf_config).task, CODE.read_text(encoding="utf-8")
        config_class = task.replace("ForSequenceClassification", "Config")
        write_text(out / CODE_FILE, code.replace("CONFIG_CLASS", config_class))
    # This class reads tokenizer.json; a family's own class would build a tokenizer from its words.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "model_input_names": ["input_ids", "attention_mask"],
        **special_tokens(tokenizer),
    }
    write_json(out / "tokenizer_config.json", settings)
    return (
        f"transformers.{OPENERS[opener]} and jaxclf.load open {out}\n"
        f"transformers reads {length} tokens of a text (truncation=True cuts longer ones), jaxclf "
        f"up to {windows} windows of {length}; thresholds are in jaxclf.json"
    )


def _usage(opener: str, length: int) -> str:
    """The section of the card on transformers."""
    if opener == "encoder":
        return (
            "\n## In transformers\n\n`AutoModel` opens the encoder. A pipeline refuses this "
            "folder, because its last\nlayer cannot hold the calibration.\n"
        )
    trust = ", trust_remote_code=True" if opener == "code" else ""
    code = f" `{CODE_FILE}` is the\ncode that runs: read it before you trust it."
    return f"""
## In transformers

    from transformers import pipeline
    classify = pipeline("text-classification", "path/to/this/folder", top_k=None{trust})
    classify("a text", truncation=True)

The probabilities are those of jaxclf, calibration included, for texts of at most {length} tokens;
longer ones are cut. The thresholds in `jaxclf.json` are not applied.{code if trust else ""}
"""


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The roles of a tokenizer's special tokens, as tokenizer_config.json names them.

    The first and the last token around a text are `cls_token` and `sep_token`. The others have
    their usual name, such as `[MASK]` or `<mask>`, or are a special token that contains it.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    special = [token.content for token in added if token.special]
    roles = {}
    for role in ("cls", "sep", "pad", "mask", "unk"):
        usual = [f"[{role.upper()}]", f"<{role}>"]
        names = [name for name in usual if tokenizer.token_to_id(name) is not None]
        names += [name for name in special if role in name.lower()]
        if names:
            roles[f"{role}_token"] = names[0]
    around = tokenizer.encode("").tokens
    if len(around) > 1:
        roles |= {"cls_token": around[0], "sep_token": around[-1]}
    if around[:1] == ["<s>"]:
        roles |= {"bos_token": around[0], "eos_token": around[-1]}
    return roles


def _with_calibration_in_last_layer(model: SavedModel) -> SavedModel:
    """The model with slopes and intercepts of its calibration in the classifier's parameters."""
    kind, curves = calibration_from_json(model.calibration)
    at_0_and_1 = np.stack([CURVES[kind](NUMPY, np.array([0.0, 1.0]), **curve) for curve in curves])
    intercept, slope = at_0_and_1[:, 0], at_0_and_1[:, 1] - at_0_and_1[:, 0]
    head = model.params["head"]
    classifier = {
        "kernel": (head["classifier"]["kernel"] * slope[None]).astype(np.float32),
        "bias": (head["classifier"]["bias"] * slope + intercept).astype(np.float32),
    }
    calibration = none(np.zeros((0, len(curves))), np.zeros((0, len(curves))))
    return model._replace(
        calibration=calibration_to_json(calibration),
        params=model.params | {"head": head | {"classifier": classifier}},
    )


def _make_config(model: SavedModel, opener: str) -> dict[str, Any]:
    """The encoder's config.json with what the opener (a key of `OPENERS`) reads there."""
    family = family_of(model.hf_config)
    # transformers prefers num_labels to the number of names.
    config = {key: value for key, value in model.hf_config.items() if key != "num_labels"}
    if opener == "encoder":
        return config
    config |= {
        "problem_type": "multi_label_classification",
        "id2label": {str(index): name for index, name in enumerate(model.labels)},
        "label2id": {name: index for index, name in enumerate(model.labels)},
    }
    if opener == "classifier":
        first_token = {"classifier_pooling": "cls"} if "classifier_pooling" in config else {}
        return config | {"architectures": [family.task], **first_token}
    native = family.from_hf(config).head
    head = {
        "pool": model.experiment.pool.name,
        "head": model.experiment.head.name,
        "activation": native.activation,
        "norm_eps": native.norm_eps,
        "max_length": model.experiment.data.max_length,
    }
    return config | {"auto_map": OWN_CODE, "jaxclf": head}
