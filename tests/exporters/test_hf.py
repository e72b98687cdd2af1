"""A model exported to transformers: the same files and logits there, the same model back here."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tiny_encoders import GOLDEN
from tiny_models import LABELS, make_model

import jaxclf
from jaxclf.decisions.calibration import Calibration
from jaxclf.exporters.hf import to_hf
from jaxclf.model.classifier import param_shapes
from jaxclf.model.inference import gather, prediction_shape, score
from jaxclf.model.storage.saved_model import open_encoder, pretrained_params
from jaxclf.text.tokenizer.tokenize import tokenize

# One variant of each family: the one with the most parameters of its own.
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
# (exported, golden): words, positions, relative positions.
SIZES = {(400, 60), (34, 24), (34, 26)}
CURVE = Calibration("temperature", ({"temperature": 2.0},) * len(LABELS))


@pytest.fixture(scope="module")
def texts(demo_rows):
    return [*[row["text"] for row in demo_rows["val"]][:97], "a", "ok ok", "x" * 300]


@pytest.fixture
def make_run(tiny_encoder, tmp_path):
    """A model's folder, with the native head on the first token unless asked otherwise."""

    def make(variant, pool="cls", head="native"):
        folder = tmp_path / "model"
        return make_model(folder, tiny_encoder, variant, pool, head, calibration=CURVE)

    return make


def first_window_logits(classifier, texts):
    """The logits of every text's first window, which is all that transformers reads."""
    windows = classifier.experiment.data.windows._replace(max_windows=1)
    tokens = tokenize(classifier.tokenizer, texts, windows)
    step = jax.jit(classifier.apply)
    scored = score(step, classifier.params, tokens, prediction_shape(windows), len(LABELS))
    return gather(scored, len(texts), len(LABELS))


@pytest.mark.parity
@pytest.mark.parametrize("variant", FAMILIES)
def test_logits_are_the_same_in_transformers(variant, make_run, texts, tmp_path):
    import torch
    import transformers

    run = make_run(variant)
    to_hf(run, tmp_path / "out")
    ours = first_window_logits(jaxclf.load(run), texts)
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


@pytest.mark.parity
@pytest.mark.parametrize(("pool", "head"), [("attention", "linear"), ("mean", "native")])
def test_the_encoder_alone_opens_in_transformers(pool, head, make_run, tmp_path):
    import transformers

    run = make_run("roberta", pool, head)
    to_hf(run, tmp_path / "out")
    model, loading = transformers.AutoModel.from_pretrained(
        tmp_path / "out", output_loading_info=True, add_pooling_layer=False
    )
    assert not any(loading.values()), loading
    word = jaxclf.load(run).params["encoder"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(model.get_input_embeddings().weight.detach().numpy(), word)


@pytest.mark.parametrize("variant", FAMILIES)
def test_tensors_have_the_names_and_axes_that_transformers_gives_them(variant, make_run, tmp_path):
    to_hf(make_run(variant), tmp_path / "out")
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    expected = safetensors.numpy.load_file(GOLDEN / variant / "model.safetensors")
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        sizes = zip(written[name].shape, tensor.shape, strict=True)
        # The vocabulary and the positions of the exported model are larger.
        assert all(ours == theirs or (ours, theirs) in SIZES for ours, theirs in sizes), name


@pytest.mark.parametrize("variant", FAMILIES)
def test_an_exported_model_is_the_same_to_the_bit(variant, make_run, tmp_path):
    run = make_run(variant)
    to_hf(run, tmp_path / "out")
    before, after = jaxclf.load(run), jaxclf.load(tmp_path / "out")
    assert not (tmp_path / "out" / "head.safetensors").exists()
    assert (before.experiment, before.labels) == (after.experiment, after.labels)
    chex.assert_trees_all_equal(before.params, after.params)
    np.testing.assert_array_equal(before.thresholds, after.thresholds)
    assert before.calibrations == after.calibrations


def test_a_pool_and_head_of_ours_lie_beside_the_encoder(make_run, texts, tmp_path):
    run = make_run("roberta", "attention", "linear")
    assert "AutoModel (" in to_hf(run, tmp_path / "out")
    assert (tmp_path / "out" / "head.safetensors").is_file()
    np.testing.assert_array_equal(
        jaxclf.load(tmp_path / "out").predict_proba(texts[:8]),
        jaxclf.load(run).predict_proba(texts[:8]),
    )


def test_an_exported_folder_serves_as_an_encoder_again(make_run, tmp_path):
    """Fine-tuning on other labels takes the encoder and the pooler, not the classifier."""
    run = make_run("distilbert")
    to_hf(run, tmp_path / "out")
    config, _ = open_encoder(tmp_path / "out")
    classifier = jaxclf.load(run)
    params = pretrained_params(
        tmp_path / "out", param_shapes(classifier.experiment, config, classes=7)
    )
    assert set(params["head"]) == {"pooler"}
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    expected = classifier.params["encoder"]
    chex.assert_trees_all_equal(jax.tree.map(jnp.asarray, params["encoder"]), expected)
