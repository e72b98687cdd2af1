"""A model given to transformers: the same logits there, the same model back here."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import unflatten_dict
from torch_models import hf_config, randomize

import jaxclf
from jaxclf.decisions.calibration import Calibration, to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.exporters.hf import to_hf
from jaxclf.inference.members import param_shapes
from jaxclf.model.inference import gather, prediction_shape, score
from jaxclf.model.storage.saved_model import SavedModel, open_encoder, pretrained_params, save_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize

LABELS = ("joy", "fear", "anger")
LENGTH = 40
# One of each family, with what its classifier has of its own.
FAMILIES = [
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "electra",
    "deberta-short",
    "deberta-v2-xlarge",
    "modernbert-bias",
]


@pytest.fixture(scope="module")
def texts(demo_rows):
    return [*[row["text"] for row in demo_rows["val"]][:97], "a", "ok ok", "x" * 300]


def make_run(folder, variant, tokenizer_folder, pool="cls", head="native"):
    """A run's folder with a random model of that family."""
    torch.manual_seed(0)
    # The tokenizer's padding is 0; RoBERTa counts positions from the padding's id.
    config = hf_config(variant, vocab_size=400, max_position_embeddings=LENGTH + 2, pad_token_id=0)
    encoder = folder / "encoder"
    randomize(transformers.AutoModel.from_config(config)).save_pretrained(encoder)
    tokenizer = load_tokenizer(tokenizer_folder)
    tokenizer.save(str(encoder / "tokenizer.json"))
    hf, tokenizer = open_encoder(encoder)
    experiment = Experiment(
        Data("", "", "", max_length=LENGTH, max_windows=1, window_overlap=2),
        encoder=Encoder(name="tiny"),
        pool=Spec(pool),
        head=Spec(head),
    )
    shapes = param_shapes(experiment, hf, len(LABELS))
    rng = np.random.default_rng(1)
    params = {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in flatten_params(shapes).items()
    } | flatten_params(pretrained_params(encoder, shapes))
    record = {name: {"value": 0.25, "split": "val", "rule": "fixed"} for name in LABELS}
    curves = to_json(Calibration("temperature", ({"temperature": 2.0},) * 3))
    rules = {"average": "best", "calibration": "temperature", "threshold": "fixed"}
    provenance = make_provenance({}, rules)
    handover = SavedModel(
        experiment, hf, LABELS, record, curves, provenance, unflatten_dict(params)
    )
    save_model(folder / "run" / "model", handover, tokenizer, "a card")
    return folder / "run"


def logits_of(classifier, texts):
    data = classifier.experiment.data
    tokens = tokenize(classifier.tokenizer, texts, data.windows._replace(max_windows=1))
    shape = prediction_shape(data.windows._replace(max_windows=1))
    step = jax.jit(classifier.apply)
    scored = score(step, classifier.params, tokens, shape, len(LABELS))
    return gather(scored, len(texts), len(LABELS))


@pytest.mark.parametrize("variant", FAMILIES)
def test_the_same_logits_in_transformers(variant, tiny_encoder, texts, tmp_path):
    run = make_run(tmp_path, variant, tiny_encoder)
    to_hf(run, tmp_path / "out")
    ours = logits_of(jaxclf.load(run), texts)
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(loading.values()), loading
    assert model.config.problem_type == "multi_label_classification"
    assert [model.config.id2label[index] for index in range(3)] == list(LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model.eval()(**batch).logits.numpy()
    assert np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", FAMILIES)
def test_what_went_out_comes_back_to_the_bit(variant, tiny_encoder, tmp_path):
    run = make_run(tmp_path, variant, tiny_encoder)
    to_hf(run, tmp_path / "out")
    before, after = jaxclf.load(run), jaxclf.load(tmp_path / "out")
    assert not (tmp_path / "out" / "head.safetensors").exists()
    assert (before.experiment, before.labels) == (after.experiment, after.labels)
    one, other = flatten_params(before.params), flatten_params(after.params)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])
    np.testing.assert_array_equal(before.thresholds, after.thresholds)
    assert before.calibrations == after.calibrations


@pytest.mark.parametrize(("pool", "head"), [("attention", "linear"), ("mean", "native")])
def test_with_another_head_the_encoder_opens_alone(pool, head, tiny_encoder, texts, tmp_path):
    run = make_run(tmp_path, "roberta", tiny_encoder, pool, head)
    assert "AutoModel (" in to_hf(run, tmp_path / "out")
    model, loading = transformers.AutoModel.from_pretrained(
        tmp_path / "out", output_loading_info=True, add_pooling_layer=False
    )
    assert not any(loading.values()), loading
    word = jaxclf.load(run).params["encoder"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(model.get_input_embeddings().weight.detach().numpy(), word)
    again = jaxclf.load(tmp_path / "out")
    np.testing.assert_array_equal(
        again.predict_proba(texts[:8]), jaxclf.load(run).predict_proba(texts[:8])
    )


def test_a_folder_that_is_there_is_left_alone(tiny_encoder, tmp_path):
    run = make_run(tmp_path, "bert", tiny_encoder)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="give a new folder"):
        to_hf(run, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_exported_folder_serves_as_an_encoder_again(tiny_encoder, tmp_path):
    """Fine-tuning goes on from it: the encoder is taken, the classifier of other labels is not."""
    run = make_run(tmp_path, "distilbert", tiny_encoder)
    to_hf(run, tmp_path / "out")
    hf, _ = open_encoder(tmp_path / "out")
    experiment = jaxclf.load(run).experiment
    shapes = param_shapes(experiment, hf, 7)
    params = pretrained_params(tmp_path / "out", shapes)
    assert set(params["head"]) == {"pooler"}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    assert jax.tree.all(
        jax.tree.map(
            lambda one, other: bool((jnp.asarray(one) == other).all()),
            params["encoder"],
            jaxclf.load(run).params["encoder"],
        )
    )
