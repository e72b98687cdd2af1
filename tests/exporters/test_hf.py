"""A model exported to transformers: the same files and probabilities there, or a refusal; the same
model back here."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tiny_encoders import GOLDEN, hf_config
from tiny_models import LABELS, make_model
from tokenizers import AddedToken, Tokenizer, models, processors

import jaxclf
from jaxclf.decisions.calibration import Calibration
from jaxclf.exporters.hf import to_hf
from jaxclf.model.classifier import CODE_FILE, param_shapes
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.model.storage.hf_folder import special_tokens
from jaxclf.model.storage.saved_model import open_encoder, pretrained_params

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
CURVE = Calibration("platt", tuple({"slope": s, "intercept": s - 1} for s in (0.5, 0.9, 2.0)))
BETA = Calibration("beta", ({"a": 0.9, "b": 1.1, "c": 0.1},) * len(LABELS))
NATIVE = ("cls", "native")
PARTS = [(pool, head) for pool in POOLS for head in HEADS if (pool, head) != ("mean_max", "native")]


@pytest.fixture(scope="module")
def texts(demo_rows):
    return [*[row["text"] for row in demo_rows["val"]][:97], "a", "ok ok", "x" * 300]


@pytest.fixture
def make_run(tiny_encoder, tmp_path):
    """A model's folder, with the native head on the first token unless asked otherwise."""

    def make(variant, pool="cls", head="native", calibration=CURVE):
        sizes = {"vocab_size": 400, "max_position_embeddings": 34, "pad_token_id": 0}
        config = hf_config(variant, **sizes, num_labels=7)  # of the encoder's own head
        return make_model(
            tmp_path / "model",
            tiny_encoder,
            variant,
            pool,
            head,
            calibration=calibration,
            config=config,
        )

    return make


def open_pipeline(folder, trust):
    import transformers

    return transformers.pipeline(
        "text-classification", str(folder), trust_remote_code=trust, top_k=None
    )


def pipeline_probs(pipeline, texts, **options):
    rows = [{row["label"]: row["score"] for row in rows} for rows in pipeline(texts, **options)]
    return np.array([[row[label] for label in LABELS] for row in rows])


@pytest.mark.parity
@pytest.mark.parametrize(
    ("variant", "pool", "head"),
    [
        *(("bert", *parts) for parts in PARTS),
        *((name, *parts) for name in FAMILIES[1:] for parts in (NATIVE, ("attention", "linear"))),
        *((name, "mean", "native") for name in ("roberta", "modernbert-bias", "electra")),
    ],
)
def test_a_pipeline_has_the_same_probabilities_or_refuses(
    variant, pool, head, make_run, texts, tmp_path
):
    """With the architecture's own head it needs no code; with another, the code must be trusted."""
    run, out = make_run(variant, pool, head), tmp_path / "out"
    to_hf(run, out)
    short = [text[:14] for text in texts[:16]]  # of one window
    expected = jaxclf.load(run).predict_proba(short)
    is_native = (pool, head) == NATIVE
    if not is_native:
        with pytest.raises(ValueError, match="Could not load model"):
            open_pipeline(out, trust=False)
    pipeline = open_pipeline(out, trust=not is_native)
    probs = pipeline_probs(pipeline, short, batch_size=4)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(probs, expected, atol=1e-5, rtol=0)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("pool", "head", "calibration"),
    [(*NATIVE, BETA), ("mean", "linear", BETA)],
    ids=["native", "linear"],
)
def test_a_curve_that_the_last_layer_cannot_hold_is_refused(
    pool, head, calibration, make_run, tmp_path
):
    out = tmp_path / "out"
    summary = to_hf(make_run("bert", pool, head, calibration), out)
    assert summary.startswith("transformers.AutoModel (encoder only)")
    with pytest.raises(ValueError, match="Could not load model"):
        open_pipeline(out, trust=True)


@pytest.mark.parity
def test_a_text_of_several_windows_is_refused_or_cut_by_the_users_word(make_run, tmp_path):
    to_hf(make_run("bert", "mean", "linear"), tmp_path / "out")
    pipeline = open_pipeline(tmp_path / "out", trust=True)
    with pytest.raises(ValueError, match="this model reads 20 at once: pass truncation=True"):
        pipeline("ok " * 30)
    cut, start = (
        pipeline_probs(pipeline, [text], truncation=True) for text in ("a " * 30, "a " * 18)
    )
    np.testing.assert_array_equal(cut, start)


@pytest.mark.parity
@pytest.mark.parametrize("variant", FAMILIES)
def test_the_folder_of_a_run_is_refused_and_holds_an_encoder(variant, make_run):
    """Its head is in a file that transformers does not know."""
    import transformers

    run = make_run(variant)
    with pytest.raises(ValueError, match="Could not load model"):
        open_pipeline(run, trust=True)
    model, loading = transformers.AutoModel.from_pretrained(run, output_loading_info=True)
    (unexpected,) = loading["unexpected_keys"]
    assert unexpected.startswith("classifier.")
    assert all(name.startswith("pooler.") for name in loading["missing_keys"])
    words = model.get_input_embeddings().weight.detach().numpy()
    word = jaxclf.load(run).params["encoder"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(words, word)


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
def test_an_exported_model_is_the_same(variant, make_run, tmp_path):
    """To the bit, but for the calibration, which the last layer includes."""
    run = make_run(variant)
    to_hf(run, tmp_path / "out")
    before, after = jaxclf.load(run), jaxclf.load(tmp_path / "out")
    assert not (tmp_path / "out" / "head.safetensors").exists()
    assert (before.experiment, before.labels) == (after.experiment, after.labels)
    np.testing.assert_array_equal(before.thresholds, after.thresholds)
    head, folded = before.params["head"].pop("classifier"), after.params["head"].pop("classifier")
    chex.assert_trees_all_equal(before.params, after.params)
    slope, intercept = (np.array([c[k] for c in CURVE.curves]) for k in ("slope", "intercept"))
    np.testing.assert_allclose(folded["kernel"], head["kernel"] * slope[None], rtol=1e-6)
    np.testing.assert_allclose(folded["bias"], head["bias"] * slope + intercept, rtol=1e-6)
    assert [calibration.kind for calibration in after.calibrations] == ["none"]


def test_a_pool_and_head_of_ours_lie_beside_the_encoder(make_run, texts, tmp_path):
    run, out = make_run("roberta", "attention", "linear"), tmp_path / "out"
    assert f"which runs {CODE_FILE}" in to_hf(run, out)
    card = (out / "README.md").read_text()
    assert "top_k=None, trust_remote_code=True)" in card
    assert card.count("## In transformers") == card.count("## Origin") == 1
    assert {"head.safetensors", CODE_FILE} <= {path.name for path in out.iterdir()}
    assert {"architectures", "num_labels"}.isdisjoint(json.loads((out / "config.json").read_text()))
    np.testing.assert_allclose(
        jaxclf.load(out).predict_proba(texts[:8]),
        jaxclf.load(run).predict_proba(texts[:8]),
        atol=1e-6,  # the calibration is computed in float32
        rtol=0,
    )
    assert "auto_map" not in open_encoder(out)[0]  # the encoder needs no code


@pytest.mark.parametrize(
    ("words", "special", "roles"),
    [
        (
            "[PAD] [UNK] [CLS] [SEP] [MASK]",
            "[CLS] [SEP]",
            "cls [CLS] sep [SEP] pad [PAD] mask [MASK]",
        ),
        (
            "<s> <pad> </s> <unk> <mask>",
            "<s> </s>",
            "cls <s> sep </s> pad <pad> mask <mask> unk <unk> bos <s> eos </s>",
        ),
        ("[UNK] [CLS] [SEP]", "[CLS] [SEP]", "cls [CLS] sep [SEP]"),
        (
            "[UNK] <|start|> <|end|> <|padding|>",
            "<|start|> <|end|>",
            "cls <|start|> sep <|end|> pad <|padding|>",
        ),
    ],
)
def test_special_tokens_have_their_roles(words, special, roles):
    vocabulary = {word: index for index, word in enumerate(words.split())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words.split()])
    first, last = special.split()
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{first} $A {last}", None, [(name, vocabulary[name]) for name in (first, last)]
    )
    expected = dict(zip(roles.split()[::2], roles.split()[1::2], strict=True))
    expected |= {"unk": "[UNK]"} if "[UNK]" in vocabulary else {}
    assert special_tokens(tokenizer) == {f"{role}_token": name for role, name in expected.items()}


def test_a_tokenizer_without_padding_is_exported(tiny_encoder, tmp_path):
    """Nothing here pads; transformers then reads one text at a time."""
    content = json.loads((tiny_encoder / "tokenizer.json").read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "[PAD]"]
    content["model"]["vocab"]["ordinary"] = content["model"]["vocab"].pop("[PAD]")
    (tmp_path / "encoder").mkdir()
    for name, text in (("tokenizer.json", json.dumps(content)), ("config.json", "{}")):
        (tmp_path / "encoder" / name).write_text(text)
    run = make_model(tmp_path / "model", tmp_path / "encoder", "bert", "mean", "linear")
    to_hf(run, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["cls_token"] == "[CLS]"
    assert "pad_token" not in settings
    probs = [jaxclf.load(path).predict_proba(["a text"]) for path in (run, tmp_path / "out")]
    np.testing.assert_allclose(*probs, atol=1e-6)


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
