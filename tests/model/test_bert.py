"""BERT against transformers' torch model: same hidden states and gradients confined to a
segment."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxclf.config import Data, Encoder, Experiment, Spec
from jaxclf.errors import ConfigError, DataError
from jaxclf.model import pretrained
from jaxclf.model.classifier import build
from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import Dropout
from jaxclf.model.handover import pretrained_params, read_hf_config
from jaxclf.text.packing import fill, plan
from jaxclf.text.tokens import load_tokenizer, tokenize
from jaxclf.types import Batch, Shape, Tokens

CLASSES = 3
LINEAR = Spec("linear")
POOLS = [Spec("cls"), Spec("mean"), Spec("mean_max"), Spec("attention", width=8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random torch BERT, saved as transformers saves it. Biases and norms are random
    too."""
    path = tmp_path_factory.mktemp("tiny_bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
    )
    model = transformers.BertModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path, safe_serialization=True)
    return path


def experiment(pool=POOLS[0], head=LINEAR, length=24, **encoder):
    return Experiment(
        Data("", "", "", max_length=length), encoder=Encoder(**encoder), pool=pool, head=head
    )


def network(folder, pool=POOLS[0], head=LINEAR, length=24):
    """(apply, params) with the folder's weights."""
    init, apply = build(experiment(pool, head, length), read_hf_config(folder), CLASSES)
    tokens = ragged([3], 0)
    batch = packed(tokens, Shape(1, length, 1))
    params = jax.jit(init)(jax.random.key(0), batch)
    loaded = pretrained_params(folder, params)
    return apply, {**params, **loaded, "head": {**params["head"], **loaded.get("head", {})}}


def ragged(lengths, seed, owners=None):
    rng = np.random.default_rng(seed)
    return Tokens(
        rng.integers(1, 60, sum(lengths)).astype(np.int32),
        np.cumsum([0, *lengths]).astype(np.int32),
        np.array(range(len(lengths)) if owners is None else owners, np.int32),
    )


def packed(tokens, shape, order=None):
    """All examples in one batch."""
    count = int(tokens.owners[-1]) + 1
    blank = np.zeros((count, CLASSES), np.float32)
    (placement,) = plan(tokens, range(count) if order is None else order, shape)
    return jax.tree.map(jnp.asarray, fill(tokens, blank, blank, placement, shape))


def rows_of(folder, batch):
    """Hidden states of the batch after embeddings, first block and last block."""
    config = bert.from_hf(read_hf_config(folder))
    module = bert.Bert(config, jnp.dtype("float32"), 0.0, 0.0)
    params = pretrained_params(
        folder, {"encoder": module.init(jax.random.key(0), *batch[:3], True)["params"]}
    )["encoder"]
    last, seen = module.apply(
        {"params": params}, *batch[:3], True, capture_intermediates=True, mutable="intermediates"
    )
    seen = seen["intermediates"]
    return seen["embeddings"]["__call__"][0], seen["layer_0"]["__call__"][0], last


def torch_states(folder, ids, mask):
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        states = model(
            torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask),
            output_hidden_states=True,
        ).hidden_states
    return states[0].numpy(), states[1].numpy(), states[-1].numpy()


def compare_with_torch(folder, tokens, length):
    """One text per row, padded, in both; the largest difference over real tokens."""
    lengths = np.diff(tokens.starts)
    ids = np.zeros((len(lengths), length), np.int32)
    mask = np.arange(length)[None] < lengths[:, None]
    ids[mask] = tokens.ids
    batch = Batch(
        jnp.asarray(ids),
        jnp.asarray(np.arange(length)[None] * mask, jnp.int32),
        jnp.asarray(mask, jnp.int32),
        *[jnp.zeros(0)] * 4,
    )
    ours = rows_of(folder, batch)
    theirs = torch_states(folder, ids, mask.astype(np.int64))
    return [
        np.abs(np.asarray(a).reshape(b.shape) - b)[mask].max()
        for a, b in zip(ours, theirs, strict=True)
    ]


def test_hidden_states_equal_torch(folder):
    tokens = ragged([24, 1, 7, 13], 1)
    assert max(compare_with_torch(folder, tokens, 24)) <= 1e-5


def test_the_real_minilm_equals_torch():
    folder = pretrained.resolve("minilm").folder
    texts = [
        "I have not slept for a week and everything is due tomorrow",
        "ok",
        "The bus was late again, so we walked; it rained, we sang, nobody minded. " * 4,
    ]
    tokens = tokenize(load_tokenizer(folder), texts, 128, 1, 0)
    assert max(compare_with_torch(folder, tokens, 128)) <= 1e-5


@pytest.mark.parametrize(
    ("pool", "head"),
    [*[(pool, "linear") for pool in POOLS], (POOLS[0], "native"), (POOLS[2], "residual")],
    ids=lambda value: getattr(value, "name", value),
)
def test_packed_equals_one_text_per_row(folder, pool, head):
    apply, params = network(folder, pool, Spec(head))
    tokens = ragged([5, 11, 3, 24, 2, 9, 14, 1], 2)
    together = apply(params, packed(tokens, Shape(3, 24, 8)))
    single = [
        apply(params, packed(ragged_one(tokens, index), Shape(1, 24, 1)))[0] for index in range(8)
    ]
    np.testing.assert_allclose(together, np.stack(single), atol=1e-5, rtol=0)


def ragged_one(tokens, example):
    """The tokens of one example alone."""
    windows = np.flatnonzero(tokens.owners == example)
    lengths = np.diff(tokens.starts)[windows]
    ids = np.concatenate([tokens.ids[tokens.starts[w] : tokens.starts[w + 1]] for w in windows])
    return Tokens(ids, np.cumsum([0, *lengths]).astype(np.int32), np.zeros(len(windows), np.int32))


@pytest.mark.parametrize("pool", POOLS, ids=lambda spec: spec.name)
def test_windows_of_a_long_text_are_pooled_together_wherever_they_lie(folder, pool):
    apply, params = network(folder, pool)
    tokens = ragged([4, 20, 20, 9, 6], 3, owners=[0, 1, 1, 1, 2])
    together = apply(params, packed(tokens, Shape(3, 24, 3)))
    single = [
        apply(params, packed(ragged_one(tokens, index), Shape(3, 24, 1)))[0] for index in range(3)
    ]
    np.testing.assert_allclose(together, np.stack(single), atol=1e-5, rtol=0)
    # Windows count: the long text without its second window is another text.
    shorter = ragged_one(tokens, 1)
    cut = Tokens(shorter.ids[:20], shorter.starts[:2], shorter.owners[:1])
    other = apply(params, packed(cut, Shape(3, 24, 1)))[0]
    assert np.abs(np.asarray(other - together[1])).max() > 1e-4


@pytest.mark.parametrize("pool", POOLS, ids=lambda spec: spec.name)
def test_padding_and_neighbours_carry_no_gradient(folder, pool):
    """The derivative of one text's logits by every token's embedding: zero outside the text."""
    _, params = network(folder, pool)
    tokens = ragged([5, 11, 3, 2, 9], 4)
    batch = packed(tokens, Shape(2, 24, 5))
    target = 1
    # A vocabulary of one word per place in the batch, so that the table's gradient is the place's.
    config = {**read_hf_config(folder), "vocab_size": batch.ids.size}
    _, apply = build(experiment(pool), config, CLASSES)
    unique = batch._replace(ids=jnp.arange(batch.ids.size, dtype=jnp.int32).reshape(2, 24))

    def logits(table):
        encoder = params["encoder"]
        embeddings = {**encoder["embeddings"], "word": {"embedding": table}}
        changed = {**params, "encoder": {**encoder, "embeddings": embeddings}}
        return (apply(changed, unique)[target] * jnp.array([1.0, -2.0, 0.5])).sum()

    word = params["encoder"]["embeddings"]["word"]["embedding"]
    gradient = np.asarray(jax.grad(logits)(word[batch.ids.reshape(-1)]))
    own = np.asarray(batch.examples).reshape(-1) == target
    assert not gradient[~own].any()
    assert np.abs(gradient[own]).sum(axis=1).min() > 0


def test_the_tokens_of_a_neighbour_do_not_matter_to_the_bit(folder):
    apply, params = network(folder, Spec("attention", width=8))
    tokens = ragged([5, 11, 3], 5)
    before = apply(params, packed(tokens, Shape(1, 24, 3)))
    tokens.ids[5:16] = 7
    after = apply(params, packed(tokens, Shape(1, 24, 3)))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[2], after[2])
    assert np.abs(np.asarray(before[1] - after[1])).max() > 1e-4


def test_native_head_equals_transformers_classifier(folder, tmp_path):
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=CLASSES
    ).eval()
    model.save_pretrained(tmp_path, safe_serialization=True)
    apply, params = network(folder, Spec("cls"), Spec("native"))
    weight = model.classifier.weight.detach().numpy()
    params["head"]["classifier"] = {
        "kernel": jnp.asarray(weight.T),
        "bias": jnp.asarray(model.classifier.bias.detach().numpy()),
    }
    tokens = ragged([6, 9], 6)
    ours = apply(params, packed(tokens, Shape(1, 24, 2)))
    with torch.no_grad():
        theirs = [
            model(torch.tensor(tokens.ids[None, start:end], dtype=torch.long)).logits[0].numpy()
            for start, end in [(0, 6), (6, 15)]
        ]
    np.testing.assert_allclose(ours, np.stack(theirs), atol=1e-5, rtol=0)


def test_dropout_needs_a_key_and_changes_the_logits(folder):
    apply, params = network(folder, Spec("mean"))
    batch = packed(ragged([6, 9], 6), Shape(1, 24, 2))
    clean = apply(params, batch)
    one = apply(params, batch, jax.random.key(0, impl="philox4x32"))
    other = apply(params, batch, jax.random.key(1, impl="philox4x32"))
    assert not np.array_equal(clean, one)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_mean(rate):
    x = jnp.ones((400, 500))
    y = np.asarray(Dropout(rate).apply({}, x, False, rngs={"dropout": jax.random.key(0)}))
    share = (y == 0).mean()
    # Five standard errors of a share over 200,000 draws.
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / y.size)
    np.testing.assert_allclose(y[y > 0], 1 / (1 - rate), rtol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(folder):
    init, apply = build(experiment(Spec("mean"), dtype="bfloat16"), read_hf_config(folder), CLASSES)
    batch = packed(ragged([6, 9], 6), Shape(1, 24, 2))
    params = init(jax.random.key(0), batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    logits = apply(params, batch)
    assert logits.dtype == jnp.float32
    text = jax.jit(apply).lower(params, batch).as_text()
    assert "bf16" in text
    _, exact = build(experiment(Spec("mean")), read_hf_config(folder), CLASSES)
    # bfloat16 has 8 bits of mantissa: three layers keep the logits to within a few parts in a
    # hundred.
    np.testing.assert_allclose(logits, exact(params, batch), atol=0.02)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "gpt2"}, "model_type"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(folder, change, named):
    config = {**json.loads(Path(folder, "config.json").read_text()), **change}
    with pytest.raises(DataError, match=named):
        build(experiment(), config, CLASSES)


def test_the_native_head_wants_a_pool_of_the_encoders_width(folder):
    with pytest.raises(ConfigError, match="mean_max"):
        build(experiment(Spec("mean_max"), Spec("native")), read_hf_config(folder), CLASSES)


def test_windows_longer_than_the_encoder_reads_are_refused(folder):
    with pytest.raises(ConfigError, match="at most 24 tokens"):
        build(experiment(length=25), read_hf_config(folder), CLASSES)
