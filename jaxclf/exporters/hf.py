"""Give a trained model to other libraries: a folder that transformers opens."""

import json
from pathlib import Path

from jaxclf.errors import ConfigError
from jaxclf.files.untrusted import safe_path
from jaxclf.inference.members import model_folder, param_shapes
from jaxclf.model.classifier import family_of
from jaxclf.model.storage.saved_model import (
    is_transformers_classifier,
    load_model,
    open_encoder,
    save_model,
)

# What the tokenizers of these families call padding.
PADDING = ("[PAD]", "<pad>")


def to_hf(run: Path, out: Path) -> str:
    """Write a Hugging Face folder of a finished run; what opens it, in words.

    Under cls pooling and the family's native head the whole model opens in
    `AutoModelForSequenceClassification` and gives the same logits. Else the encoder opens in
    `AutoModel`, and pool and head lie beside it in head.safetensors. Labels, thresholds and the
    experiment are in jaxclf.json, and `jaxclf.load` opens either.

    Raises ConfigError where `out` exists and is not empty, DataError where the run is damaged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists; give a new folder")
    folder = model_folder(run)
    handover = load_model(folder, param_shapes)
    _, tokenizer = open_encoder(folder)
    card = safe_path(folder, "README.md").read_text(encoding="utf-8")
    experiment, labels = handover.experiment, handover.labels
    whole = is_transformers_classifier(experiment)
    task = family_of(handover.hf_config).task
    config = handover.hf_config | {
        "architectures": [task if whole else task.replace("ForSequenceClassification", "Model")],
        "problem_type": "multi_label_classification",
        "id2label": {str(index): name for index, name in enumerate(labels)},
        "label2id": {name: index for index, name in enumerate(labels)},
        "dtype": "float32",
    }
    if "classifier_pooling" in config:
        config["classifier_pooling"] = "cls"
    save_model(out, handover._replace(hf_config=config), tokenizer, card, whole)
    # The class that takes tokenizer.json as it is: those of a family make their own from its words.
    pad = next(name for name in PADDING if tokenizer.token_to_id(name) is not None)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": experiment.data.max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": pad,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    opens = "AutoModelForSequenceClassification" if whole else "AutoModel (the encoder alone)"
    return (
        f"transformers.{opens} and jaxclf.load open {out}\n"
        f"transformers reads the first {experiment.data.max_length} tokens of a text, jaxclf up to "
        f"{experiment.data.max_windows} windows of so many; thresholds are in jaxclf.json"
    )
