"""Every encoder against the recorded outputs of transformers, and its batches against single
texts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_networks import (
    ATTENTION,
    CLASSES,
    CLS,
    LENGTH,
    NATIVE,
    abstract_params,
    hidden_states,
    make_experiment,
    make_network,
    packed,
    ragged,
)
from tiny_encoders import GOLDEN, MINILM_TEXTS, VARIANTS, hf_config

from jaxclf.experiment.config import Spec
from jaxclf.model import pretrained
from jaxclf.model.classifier import FAMILIES, build, family_of
from jaxclf.model.storage.encoder_config import read_hf_config
from jaxclf.model.storage.saved_model import pretrained_params
from jaxclf.model.storage.tensor_files import open_tensors
from jaxclf.model.storage.weights import file_name, flatten_params, to_tensors
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Shape, Tokens, Windows

MEAN = Spec("mean")
# Every compilation of a network takes seconds: one variant is compiled by default.
QUICK = "electra"
COMPILED = [
    pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in VARIANTS
]


@pytest.fixture(scope="module", params=COMPILED)
def compiled(request):
    """(variant, apply, params) under attention pooling, for batches of SHAPE."""
    return request.param, *make_network(GOLDEN / request.param, ATTENTION)


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_equal_transformers(variant):
    folder = GOLDEN / variant
    with np.load(folder / "expected.npz") as expected:
        ids, mask = expected["ids"], expected["mask"]
        states = hidden_states(folder, ids, mask)
        for name, values in zip(("embedded", "first", "last"), states, strict=True):
            np.testing.assert_allclose(
                values[mask > 0], expected[name][mask > 0], atol=1e-5, rtol=0, err_msg=name
            )


@pytest.mark.slow
def test_the_built_in_encoder_equals_transformers():
    folder = pretrained.resolve("minilm").folder
    tokens = tokenize(load_tokenizer(folder), MINILM_TEXTS, Windows(128, 1, 0))
    lengths = np.diff(tokens.starts)
    ids = np.zeros((len(lengths), 128), np.int32)
    mask = (np.arange(128)[None] < lengths[:, None]).astype(np.int32)
    ids[mask > 0] = tokens.ids
    last = hidden_states(folder, ids, mask)[2]
    with np.load(GOLDEN / "minilm.npz") as expected:
        for index in range(len(MINILM_TEXTS)):
            states = expected[f"text_{index}"]
            np.testing.assert_allclose(last[index, : len(states)], states, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", COMPILED)
def test_the_native_head_equals_transformers_classifier(variant):
    folder = GOLDEN / variant
    apply, params = make_network(folder, CLS, NATIVE)
    family = family_of(read_hf_config(folder))
    classifier = family.names["head/classifier"]
    stored = open_tensors(folder)
    params["head"]["classifier"] = {
        "kernel": jnp.asarray(stored[f"{classifier}.weight"].read().T, jnp.float32),
        "bias": jnp.asarray(stored[f"{classifier}.bias"].read(), jnp.float32),
    }
    with np.load(folder / "expected.npz") as expected:
        ids, lengths = expected["ids"], expected["mask"].sum(axis=1)
        texts = [row[:length] for row, length in zip(ids, lengths, strict=True)]
        starts = np.cumsum([0, *lengths]).astype(np.int32)
        tokens = Tokens(np.concatenate(texts), starts, np.arange(len(texts), dtype=np.int32))
        logits = apply(params, packed(tokens))[: len(texts)]
        np.testing.assert_allclose(logits, expected["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_there_and_back_are_bitwise(variant):
    """Every tensor of the file is read, and written as it was."""
    config = hf_config(variant)
    family = family_of(config)
    shapes = abstract_params(config)
    params = pretrained_params(GOLDEN / variant, shapes)
    tensors, stored = (
        {name.removeprefix(family.prefix): tensor for name, tensor in table.items()}
        for table in (to_tensors(params, family.names), open_tensors(GOLDEN / variant))
    )
    used = {name for name in stored if name.startswith(("embeddings", "encoder.", "layers."))}
    used -= {name for name in used if name.startswith(family.ignored_keys)}
    assert used <= tensors.keys() <= stored.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, stored[name].read())
    missing = flatten_params(shapes).keys() - flatten_params(params).keys()
    assert missing == {("head", "classifier", "kernel"), ("head", "classifier", "bias")} & set(
        flatten_params(shapes)
    )


def test_every_row_of_a_table_names_something():
    """A row that names no parameter is checked by no other test."""
    used = {name: set() for name in FAMILIES}
    for variant in VARIANTS:
        config = hf_config(variant)
        names = family_of(config).names
        paths = flatten_params(abstract_params(config))
        used[config["model_type"]] |= {
            row for row in names if any(file_name(path, {row: names[row]}) for path in paths)
        }
    assert used == {name: {*family.names} for name, family in FAMILIES.items()}


def example_of(tokens, example):
    """The tokens of one example alone."""
    windows = np.flatnonzero(tokens.example_index == example)
    lengths = np.diff(tokens.starts)[windows]
    ids = np.concatenate([tokens.ids[tokens.starts[w] : tokens.starts[w + 1]] for w in windows])
    return Tokens(ids, np.cumsum([0, *lengths]).astype(np.int32), np.zeros(len(windows), np.int32))


def logits_alone(apply, params, tokens):
    """The logits of each example in a batch of its own."""
    count = int(tokens.example_index[-1]) + 1
    return np.stack([apply(params, packed(example_of(tokens, index)))[0] for index in range(count)])


def packed_logits(apply, params, tokens):
    """The logits of a batch, which are those of each example alone."""
    logits = apply(params, packed(tokens))[: int(tokens.example_index[-1]) + 1]
    np.testing.assert_allclose(logits, logits_alone(apply, params, tokens), atol=1e-5, rtol=0)
    return logits


def test_packed_equals_one_text_per_batch(compiled):
    """Windows of a long text are pooled together wherever they lie."""
    _, apply, params = compiled
    tokens = ragged([5, 20, 20, 9, 2, 6, 1], 3, example_index=[0, 1, 1, 1, 2, 3, 4])
    logits = packed_logits(apply, params, tokens)
    # Every window counts: without its later windows the long text has other logits.
    long = example_of(tokens, 1)
    first_window = Tokens(long.ids[:20], long.starts[:2], long.example_index[:1])
    shorter = apply(params, packed(first_window))[0]
    assert np.abs(np.asarray(shorter - logits[1])).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["cls", "mean", "mean_max"])
def test_every_pool_packs(pool):
    tokens = ragged([4, 20, 20, 9, 6], 3, example_index=[0, 1, 1, 1, 2])
    packed_logits(*make_network(GOLDEN / "bert", Spec(pool)), tokens)


def test_the_tokens_of_a_neighbor_do_not_matter_to_the_bit(compiled):
    _, apply, params = compiled
    tokens = ragged([5, 11, 3], 5)
    before = apply(params, packed(tokens))
    tokens.ids[5:16] = 7
    after = apply(params, packed(tokens))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[2], after[2])
    assert np.abs(np.asarray(before[1] - after[1])).max() > 1e-4


def test_padding_and_neighbors_carry_no_gradient(compiled):
    """The derivative of a text's logits by every token's embedding is zero outside the text."""
    variant, _, params = compiled
    batch = packed(ragged([5, 11, 3, 2, 9], 4), Shape(2, LENGTH, 5))
    target = 1
    # One row of the table for every token of the batch: the gradient is then by token.
    config = hf_config(variant, vocab_size=batch.ids.size)
    _, apply = build(make_experiment(ATTENTION), config, CLASSES)
    unique = batch._replace(ids=jnp.arange(batch.ids.size, dtype=jnp.int32).reshape(2, LENGTH))

    def weighted_logits(table):
        encoder = params["encoder"]
        embeddings = {**encoder["embeddings"], "word": {"embedding": table}}
        changed = {**params, "encoder": {**encoder, "embeddings": embeddings}}
        return (apply(changed, unique)[target] * jnp.array([1.0, -2.0, 0.5])).sum()

    word = params["encoder"]["embeddings"]["word"]["embedding"]
    gradient = np.asarray(jax.jit(jax.grad(weighted_logits))(word[batch.ids.reshape(-1)]))
    is_target = np.asarray(batch.examples).reshape(-1) == target
    assert not gradient[~is_target].any()
    assert np.abs(gradient[is_target]).sum(axis=1).min() > 0


NETWORKS = [
    pytest.param(name, marks=[] if name == "bert" else pytest.mark.slow)
    for name in ("bert", "deberta", "deberta-v2-xlarge", "modernbert")
]


@pytest.mark.parametrize("variant", NETWORKS)
def test_dropout_needs_a_key_and_changes_the_logits(variant):
    apply, params = make_network(GOLDEN / variant, MEAN)
    batch = packed(ragged([6, 9], 6))
    first, second = (jax.random.key(seed, impl="philox4x32") for seed in range(2))
    logits = apply(params, batch, first)
    chex.assert_trees_all_equal(logits, apply(params, batch, jax.random.clone(first)))
    assert not np.array_equal(logits[:2], apply(params, batch, second)[:2])


@pytest.mark.parametrize("variant", NETWORKS)
def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(variant):
    exact, params = make_network(GOLDEN / variant, MEAN)
    _, apply = build(make_experiment(MEAN, dtype="bfloat16"), hf_config(variant), CLASSES)
    batch = packed(ragged([6, 9], 6))
    logits = jax.jit(apply)(params, batch)
    assert logits.dtype == jnp.float32
    text = jax.jit(apply).lower(params, batch).as_text()
    # Every matrix product of the encoder is in bfloat16; the one of the head is not.
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert sum("bf16" not in line for line in products) == 1
    # bfloat16 has 8 bits of mantissa: two layers keep logits of about 1 to a few hundredths.
    np.testing.assert_allclose(logits[:2], exact(params, batch)[:2], atol=0.1)
