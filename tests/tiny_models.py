"""Folders of small random models and of an ensemble of them."""

import numpy as np
from flax.traverse_util import unflatten_dict
from tokenizers import processors

from jaxclf.decisions.calibration import Calibration, calibration_to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.inference.members import param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, save_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import load_tokenizer

LABELS = ("joy", "fear", "anger")
THRESHOLDS = {name: {"value": 0.5, "split": "val", "rule": "fixed"} for name in LABELS}
LEDGER = make_provenance({}, {"average": "best", "calibration": "none", "threshold": "fixed"})
NONE = Calibration("none", ({}, {}, {}))


def make_tokenizer(tiny_encoder):
    """The tiny encoder's, with special tokens around each window."""
    tokenizer = load_tokenizer(tiny_encoder)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    return tokenizer


def make_model(folder, tiny_encoder, hf, pool, seed=0, calibration=NONE):
    """Windows of 16 tokens, at most 3 of them, that share 4."""
    experiment = Experiment(
        Data("", "", "", max_length=16, max_windows=3, window_overlap=4),
        encoder=Encoder(name="tiny"),
        pool=pool,
        head=Spec("linear"),
    )
    rng = np.random.default_rng(seed)
    params = {
        path: (0.3 * rng.normal(size=leaf.shape) + (path[-1] == "scale")).astype(np.float32)
        for path, leaf in flatten_params(param_shapes(experiment, hf, len(LABELS))).items()
    }
    curves, params = calibration_to_json(calibration), unflatten_dict(params)
    handover = SavedModel(experiment, hf, LABELS, THRESHOLDS, curves, LEDGER, params)
    save_model(folder, handover, make_tokenizer(tiny_encoder), "a card")
    return folder


def make_ensemble(folder, models, weights):
    names = tuple(model.name for model in models)
    save_ensemble(folder, Blend(names, LABELS, weights, THRESHOLDS, LEDGER), models, "a card")
    return folder
