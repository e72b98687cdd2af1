"""Export a trained model to a folder that transformers opens."""

from pathlib import Path

from jaxclf.exporters.verify import check_new_folder
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import safe_path
from jaxclf.inference.members import model_folder
from jaxclf.model.classifier import family_of
from jaxclf.model.storage.saved_model import (
    is_transformers_classifier,
    load_model,
    open_encoder,
    save_model,
)

PAD_TOKENS = ("[PAD]", "<pad>")  # of the supported families


def to_hf(run: Path, out: Path) -> str:
    """Write a Hugging Face folder of a finished run; returns a summary.

    With cls pooling and the family's native head the whole model opens in
    `AutoModelForSequenceClassification` and has the same logits. Otherwise the encoder opens in
    `AutoModel`, and head.safetensors has pool and head. jaxclf.json has labels, thresholds and the
    experiment, and `jaxclf.load` opens both kinds. Row hashes are left out: whoever has them and a
    text can tell whether the model was trained on it.

    Raises ConfigError if `out` exists and is not empty, DataError if the run is damaged.
    """
    check_new_folder(out)
    folder = model_folder(run)
    model = load_model(folder)
    _, tokenizer = open_encoder(folder)
    card = safe_path(folder, "README.md").read_text(encoding="utf-8")
    data, labels = model.experiment.data, model.labels
    is_classifier = is_transformers_classifier(model.experiment)
    task = family_of(model.hf_config).task
    encoder = task.replace("ForSequenceClassification", "Model")
    config = model.hf_config | {
        "architectures": [task if is_classifier else encoder],
        "problem_type": "multi_label_classification",
        "id2label": {str(index): name for index, name in enumerate(labels)},
        "label2id": {name: index for index, name in enumerate(labels)},
        "dtype": "float32",
    }
    if "classifier_pooling" in config:
        config["classifier_pooling"] = "cls"
    provenance = model.provenance._replace(row_hashes={})
    model = model._replace(hf_config=config, provenance=provenance)
    save_model(out, model, tokenizer, card, is_classifier)
    # This class reads tokenizer.json; a family's own class would build a tokenizer from its words.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": data.max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": next(name for name in PAD_TOKENS if tokenizer.token_to_id(name) is not None),
    }
    write_json(out / "tokenizer_config.json", settings)
    opener = "AutoModelForSequenceClassification" if is_classifier else "AutoModel (encoder only)"
    return (
        f"transformers.{opener} and jaxclf.load open {out}\n"
        f"transformers reads the first {data.max_length} tokens of a text, jaxclf up to "
        f"{data.max_windows} windows of {data.max_length}; thresholds are in jaxclf.json"
    )
