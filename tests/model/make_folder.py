"""Write a tiny model folder and a tiny ensemble of this version, and their probabilities.

Run once for a version: `python -m tests.model.make_folder tests/model/folder_0_2`. Later versions
must read the folder and give the same probabilities.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import tokenizers

sys.path.insert(0, str(Path(__file__).parent.parent))

from tiny_models import LABELS, make_ensemble, make_model

import jaxclf
from jaxclf.decisions.calibration import Calibration

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
CALIBRATION = Calibration("platt", ({"slope": 0.8, "intercept": -0.2},) * len(LABELS))


def main(folder: Path) -> None:
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=CONFIG["vocab_size"], show_progress=False)
    models = [folder / f"model-{seed}" for seed in range(2)]
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save(f"{scratch}/tokenizer.json")
        for seed, path in enumerate(models):
            make_model(
                path, Path(scratch), seed=seed, calibration=CALIBRATION, length=16, config=CONFIG
            )
    weights = np.array([[0.25, 0.5, 1.0], [0.75, 0.5, 0.0]])
    make_ensemble(folder / "ensemble", models, weights)
    probs = {
        name: jaxclf.load(folder / name).predict_proba(TEXTS).tolist()
        for name in ("model-0", "ensemble")
    }
    expected = {"version": jaxclf.__version__, "texts": TEXTS, "probabilities": probs}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    shutil.rmtree(models[1])  # the ensemble has a copy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
