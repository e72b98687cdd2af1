"""One random model for the tests of files, Ray and soft labels."""

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from tiny_models import LABELS

import jaxclf
from jaxclf.decisions.calibration import Calibration, calibration_to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.inference.members import param_shapes
from jaxclf.model.storage.saved_model import SavedModel, open_encoder, save_model
from jaxclf.model.storage.weights import flatten_params


@pytest.fixture(scope="session")
def run_folder(tiny_encoder, tiny_experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inference") / "run"
    hf_config, tokenizer = open_encoder(tiny_encoder)
    rng = np.random.default_rng(0)
    shapes = flatten_params(param_shapes(tiny_experiment, hf_config, len(LABELS)))
    params = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in shapes.items()}
    # Thresholds in the middle of the model's probabilities, so that each label is predicted for
    # some texts.
    values = zip(LABELS, (0.0165, 0.185, 0.285), strict=True)
    thresholds = {name: {"value": value, "split": "val", "rule": "fixed"} for name, value in values}
    curves = calibration_to_json(Calibration("temperature", ({"temperature": 4.0},) * 3))
    rules = {"average": "best", "calibration": "none", "threshold": "fixed"}
    model = SavedModel(
        tiny_experiment,
        hf_config,
        LABELS,
        thresholds,
        curves,
        make_provenance({}, rules),
        unflatten_dict(params),
    )
    save_model(folder / "model", model, tokenizer, "a card")
    return folder


@pytest.fixture(scope="session")
def classifier(run_folder):
    return jaxclf.load(run_folder)
