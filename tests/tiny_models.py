"""Folders of small random models of any encoder, pool, head and calibration, and of ensembles."""

import numpy as np
from flax.traverse_util import unflatten_dict
from tiny_encoders import hf_config
from tokenizers import processors

from jaxclf.decisions.calibration import Calibration, calibration_to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.model.classifier import param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, save_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import load_tokenizer

LABELS = ("joy", "fear", "anger")
NONE = Calibration("none", ({}, {}, {}))
PROVENANCE = make_provenance({}, {"average": "best", "calibration": "none", "threshold": "fixed"})
LENGTH = 20  # tokens of a window; a text has at most three, which share four tokens


def fixed_thresholds(*values):
    rule = {"split": "val", "rule": "fixed"}
    return {name: {"value": value, **rule} for name, value in zip(LABELS, values, strict=True)}


# The second is not a float32, so its rounding decides.
THRESHOLDS = fixed_thresholds(0.5, 0.4 + 1e-12, 0.6)


def make_tokenizer(tiny_encoder):
    """The tiny encoder's, with special tokens around each window."""
    tokenizer = load_tokenizer(tiny_encoder)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    return tokenizer


def make_model(
    folder,
    tiny_encoder,
    variant="bert",
    pool="attention",
    head="linear",
    seed=0,
    calibration=NONE,
    thresholds=THRESHOLDS,
    dtype="float32",
    length=LENGTH,
    config=None,
):
    """The folder of a random model; layer norms scale and shift too. A config needs no variant."""
    config = config or hf_config(
        variant, vocab_size=400, max_position_embeddings=34, pad_token_id=0
    )
    experiment = Experiment(
        Data("", "", "", max_length=length, max_windows=3, window_overlap=4),
        encoder=Encoder(name="tiny", dtype=dtype),
        pool=Spec(pool),
        head=Spec(head),
    )
    rng = np.random.default_rng(seed)
    params = {
        path: (0.2 * rng.normal(size=leaf.shape) + (path[-1] == "scale")).astype(np.float32)
        for path, leaf in flatten_params(param_shapes(experiment, config, len(LABELS))).items()
    }
    curves, params = calibration_to_json(calibration), unflatten_dict(params)
    model = SavedModel(experiment, config, LABELS, thresholds, curves, PROVENANCE, params)
    save_model(folder, model, make_tokenizer(tiny_encoder), "a card\n")
    return folder


def make_ensemble(folder, models, weights=None):
    """Without weights, they are random and differ by label."""
    if weights is None:
        weights = np.random.default_rng(0).dirichlet(np.ones(len(models)), len(LABELS)).T
    names = tuple(model.name for model in models)
    save_ensemble(folder, Blend(names, LABELS, weights, THRESHOLDS, PROVENANCE), models, "a card\n")
    return folder
