"""Write a tiny model folder and a tiny ensemble of this version, and their probabilities.

Run once for a version: `python -m tests.model.make_folder tests/model/folder_0_2`. Later versions
must read the folder and give the same probabilities.
"""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import tokenizers

import jaxclf
from jaxclf.decisions.calibration import Calibration, calibration_to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.inference.members import param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, save_model

LABELS = ("joy", "fear", "anger")
THRESHOLDS = {name: {"value": 0.5, "split": "val", "rule": "fixed"} for name in LABELS}
TEXTS = ["ok", "the bus was late again, so we walked", "word " * 40]
CONFIG = {
    "model_type": "bert",
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def make_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=CONFIG["vocab_size"], show_progress=False)
    return tokenizer._tokenizer


def save_random_model(folder: Path, seed: int) -> None:
    experiment = Experiment(
        Data("", "", "", max_length=16, max_windows=2, window_overlap=2),
        encoder=Encoder(name="tiny"),
        pool=Spec("attention", hidden_dim=8),
        head=Spec("linear"),
    )
    shapes = param_shapes(experiment, CONFIG, len(LABELS))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
    calibration = Calibration("platt", ({"slope": 0.8, "intercept": -0.2},) * len(LABELS))
    rules = {"average": "best", "calibration": "platt", "threshold": "fixed"}
    provenance = make_provenance({}, rules)
    model = SavedModel(
        experiment, CONFIG, LABELS, THRESHOLDS, calibration_to_json(calibration), provenance, params
    )
    save_model(folder, model, make_tokenizer(), "A random model for tests.\n")


def main(folder: Path) -> None:
    for seed in range(2):
        save_random_model(folder / f"model-{seed}", seed)
    weights = np.array([[0.25, 0.5, 1.0], [0.75, 0.5, 0.0]])
    rules = {"average": "best", "calibration": "platt", "threshold": "fixed"}
    blend = Blend(("a", "b"), LABELS, weights, THRESHOLDS, make_provenance({}, rules))
    models = [folder / f"model-{seed}" for seed in range(2)]
    save_ensemble(folder / "ensemble", blend, models, "A random ensemble for tests.\n")
    probs = {
        name: jaxclf.load(folder / name).predict_proba(TEXTS).tolist()
        for name in ("model-0", "ensemble")
    }
    expected = {"version": jaxclf.__version__, "texts": TEXTS, "probabilities": probs}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    shutil.rmtree(models[1])  # the ensemble has a copy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
