"""load(run or model folder) -> Classifier: texts -> labels and probabilities."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32
from tokenizers import Tokenizer

from jaxclf.config import Experiment
from jaxclf.decisions.calibration import calibrated, from_json
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.model.classifier import build
from jaxclf.model.handover import META, load_model, open_encoder
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.text.packing import fill
from jaxclf.text.tokens import tokenize
from jaxclf.trust import holds
from jaxclf.types import Shape, Tokens


class Classifier:
    """A trained model, ready to label texts.

    labels: names in the order of the columns. thresholds: float [classes].
    params, apply, tokenizer: for one's own batched inference, `apply(params, batch) -> logits`.
    """

    def __init__(self, folder: Path):
        handover = load_model(folder, leaves)
        self.experiment: Experiment = handover.experiment
        self.labels = handover.labels
        self.thresholds = np.array([handover.thresholds[name]["value"] for name in self.labels])
        self.calibration = from_json(handover.calibration)
        self.ledger = handover.ledger
        self.params: dict[str, Any] = jax.tree.map(jax.numpy.asarray, handover.params)
        self.apply: Callable[..., Array] = build(
            self.experiment, handover.hf_config, len(self.labels)
        )[1]
        self.tokenizer: Tokenizer = open_encoder(folder)[1]
        self._step = make_predict_step(self.apply)

    def predict_proba(self, texts: Iterable[str]) -> Float32[np.ndarray, "texts classes"]:
        """Calibrated probabilities, one row a text, in input order."""
        texts = list(texts)
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"text {index} is empty or no string")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise DataError(f"text {index} holds half of a surrogate pair")
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        data = self.experiment.data
        tokens = tokenize(self.tokenizer, texts, data.max_length, data.max_windows, data.overlap)
        shape = prediction_shape(data.max_length, data.max_windows)
        scored = score(self._step, self.params, tokens, shape, len(self.labels))
        return calibrated(self.calibration, gather(scored, len(texts), len(self.labels)))

    def predict(self, texts: Iterable[str]) -> list[list[str]]:
        """The labels of each text: those whose probability reaches their threshold; none is an
        answer."""
        decided = decide(self.predict_proba(texts), self.thresholds)
        return [
            [name for name, given in zip(self.labels, row, strict=True) if given] for row in decided
        ]


def load(path: str | Path) -> Classifier:
    """The classifier of a finished run's folder, of its model/, or of an exported folder."""
    return Classifier(model_folder(Path(path)))


def model_folder(path: Path) -> Path:
    """Where the model lies: the folder itself, or a run's model/."""
    return path if holds(path, META) else path / "model"


def leaves(experiment: Experiment, hf_config: dict[str, Any], classes: int) -> Any:
    """Shapes of the network's parameters, without making them."""
    init, _ = build(experiment, hf_config, classes)
    nothing = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32))
    blank = np.zeros((0, classes), np.float32)
    batch = fill(nothing, blank, blank, None, Shape(1, experiment.data.max_length, 1))
    return jax.eval_shape(init, jax.random.key(0), batch)
