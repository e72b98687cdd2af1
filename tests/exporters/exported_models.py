"""Folders of small random models of any encoder, pool, head and calibration."""

import numpy as np
from flax.traverse_util import unflatten_dict
from tiny_encoders import hf_config

from jaxclf.decisions.calibration import Calibration, calibration_to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.inference.members import param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, save_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import load_tokenizer

LABELS = ("joy", "fear", "anger")
# The second is not a float32, so its rounding decides.
THRESHOLDS = {
    name: {"value": value, "split": "val", "rule": "fixed"}
    for name, value in zip(LABELS, (0.5, 0.4 + 1e-12, 0.6), strict=True)
}
NONE = Calibration("none", ({}, {}, {}))
LENGTH = 20  # tokens of a window; a text has at most three


def make_model(
    folder,
    tiny_encoder,
    variant="bert",
    pool="attention",
    head="linear",
    seed=0,
    calibration=NONE,
    dtype="float32",
    length=LENGTH,
):
    """The folder of a random model; layer norms scale and shift too."""
    config = hf_config(variant, vocab_size=400, max_position_embeddings=34, pad_token_id=0)
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
    rules = {"average": "best", "calibration": calibration.kind, "threshold": "fixed"}
    saved_model = SavedModel(
        experiment,
        config,
        LABELS,
        THRESHOLDS,
        calibration_to_json(calibration),
        make_provenance({}, rules),
        unflatten_dict(params),
    )
    save_model(folder, saved_model, load_tokenizer(tiny_encoder), "a card\n")
    return folder


def make_ensemble(folder, models):
    """Weights differ by label."""
    weights = np.random.default_rng(0).dirichlet(np.ones(len(models)), len(LABELS)).T
    rules = {"average": "best", "calibration": "none", "threshold": "fixed"}
    names = tuple(model.name for model in models)
    blend = Blend(names, LABELS, weights, THRESHOLDS, make_provenance({}, rules))
    save_ensemble(folder, blend, models, "a card\n")
    return folder
