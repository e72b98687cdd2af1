"""Every encoder against transformers' torch model, and its batches against single texts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import unflatten_dict
from torch_models import hf_config, randomize

from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.model import pretrained
from jaxclf.model.classifier import FAMILIES, build, family_of
from jaxclf.model.encoders import common, deberta_v2, long_attention
from jaxclf.model.storage.saved_model import pretrained_params, read_hf_config
from jaxclf.model.storage.weights import file_name, flatten_params, open_tensors, to_tensors
from jaxclf.text.packing import fill, plan
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Shape, Tokens, Windows

CLASSES, LENGTH = 3, 24
SHAPE = Shape(3, LENGTH, 8)  # one shape for all: one compilation
LINEAR = Spec("linear")
POOLS = [Spec("cls"), Spec("mean"), Spec("mean_max"), Spec("attention", hidden_dim=8)]


def experiment(pool=POOLS[0], head=LINEAR, length=LENGTH, **encoder):
    return Experiment(
        Data("", "", "", max_length=length), encoder=Encoder(**encoder), pool=pool, head=head
    )


def network(folder, pool=POOLS[0], head=LINEAR):
    """(apply, params) with the folder's weights, the rest random."""
    init, apply = build(experiment(pool, head), read_hf_config(folder), CLASSES)
    shapes = jax.eval_shape(init, jax.random.key(0), packed(ragged([3], 0), SHAPE))
    rng = np.random.default_rng(0)
    leaves = {
        path: 0.3 * rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in flatten_params(shapes).items()
    } | flatten_params(pretrained_params(folder, shapes))
    return jax.jit(apply), jax.tree.map(jnp.asarray, unflatten_dict(leaves))


@pytest.fixture(scope="session")
def compiled(variant_folder):
    """(apply, params) under attention pooling, for batches of SHAPE."""
    return network(variant_folder, POOLS[3])


def ragged(lengths, seed, owners=None):
    rng = np.random.default_rng(seed)
    return Tokens(
        rng.integers(5, 60, sum(lengths)).astype(np.int32),
        np.cumsum([0, *lengths]).astype(np.int32),
        np.array(range(len(lengths)) if owners is None else owners, np.int32),
    )


def packed(tokens, shape=SHAPE):
    """All examples in one batch."""
    count = int(tokens.example_index[-1]) + 1
    blank = np.zeros((count, CLASSES), np.float32)
    (placement,) = plan(tokens, range(count), shape)
    return jax.tree.map(jnp.asarray, fill(tokens, blank, blank, placement, shape))


def one_of(tokens, example):
    """The tokens of one example alone."""
    windows = np.flatnonzero(tokens.example_index == example)
    lengths = np.diff(tokens.starts)[windows]
    ids = np.concatenate([tokens.ids[tokens.starts[w] : tokens.starts[w + 1]] for w in windows])
    return Tokens(ids, np.cumsum([0, *lengths]).astype(np.int32), np.zeros(len(windows), np.int32))


def padded(tokens, length, pad):
    """One text per row: ids and mask."""
    lengths = np.diff(tokens.starts)
    mask = np.arange(length)[None] < lengths[:, None]
    ids = np.full(mask.shape, pad, np.int32)
    ids[mask] = tokens.ids
    return ids, mask


def our_states(folder, ids, mask):
    """Hidden states after the embeddings, the first block and the last."""
    config = read_hf_config(folder)
    family = family_of(config)
    module = family.module(family.from_hf(config), jnp.dtype("float32"), 0.0, 0.0)
    places = np.arange(ids.shape[1], dtype=np.int32)[None] * mask
    batch = (ids, places.astype(np.int32), mask.astype(np.int32))
    batch = jax.tree.map(jnp.asarray, batch)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *batch, True))["params"]
    params = pretrained_params(folder, {"encoder": shapes})["encoder"]
    last, seen = module.apply(
        {"params": params}, *batch, True, capture_intermediates=True, mutable="intermediates"
    )
    seen = seen["intermediates"]
    return seen["embeddings"]["__call__"][0], seen["layer_0"]["__call__"][0], last


def torch_states(folder, ids, mask):
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        states = model(
            torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            output_hidden_states=True,
        )
    first, second = states.hidden_states[:2]
    return first.numpy(), second.numpy(), states.last_hidden_state.numpy()


def differences(folder, tokens, length):
    """The largest over real tokens, of each of the three."""
    ids, mask = padded(tokens, length, read_hf_config(folder).get("pad_token_id") or 0)
    pairs = zip(our_states(folder, ids, mask), torch_states(folder, ids, mask), strict=True)
    return [
        np.abs(np.asarray(one).reshape(other.shape) - other)[mask].max() for one, other in pairs
    ]


def test_hidden_states_equal_torch(variant_folder):
    assert max(differences(variant_folder, ragged([24, 1, 7, 13], 1), LENGTH)) <= 1e-5


def test_the_real_minilm_equals_torch():
    folder = pretrained.resolve("minilm").folder
    texts = [
        "I have not slept for a week and everything is due tomorrow",
        "ok",
        "The bus was late again, so we walked; it rained, we sang, nobody minded. " * 4,
    ]
    tokens = tokenize(load_tokenizer(folder), texts, Windows(128, 1, 0))
    assert max(differences(folder, tokens, 128)) <= 1e-5


def test_weights_there_and_back_are_bitwise(variant_folder):
    """Every tensor of the file is read, and written as it was; every row of the table is used."""
    config = read_hf_config(variant_folder)
    family = family_of(config)
    init, _ = build(experiment(head=Spec("native")), config, CLASSES)
    batch = packed(ragged([3], 0))
    shapes = jax.eval_shape(init, jax.random.key(0), batch)
    params = pretrained_params(variant_folder, shapes)
    back = to_tensors(params, family.names)
    back = {name.removeprefix(family.prefix): tensor for name, tensor in back.items()}
    stored = open_tensors(variant_folder)
    used = {name for name in stored if not name.startswith(family.ignored_keys)}
    assert used <= back.keys() <= stored.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, stored[name].read())
    # All that the network has and the file has not is the head.
    missing = flatten_params(shapes).keys() - flatten_params(params).keys()
    assert {path[0] for path in missing} <= {"head"}
    assert ("head", "classifier", "kernel") in missing


def test_every_row_of_a_table_names_something(variant_folders):
    """A row that names nothing would be a row that nobody checks."""
    used = {name: set() for name in FAMILIES}
    for folder in variant_folders.values():
        config = read_hf_config(folder)
        family = family_of(config)
        init, _ = build(experiment(head=Spec("native")), config, CLASSES)
        shapes = jax.eval_shape(init, jax.random.key(0), packed(ragged([3], 0)))
        for row in (names := {**family.names, **family.classifier}):
            if any(file_name(path, {row: names[row]}) for path in flatten_params(shapes)):
                used[config["model_type"]].add(row)
    for name, family in FAMILIES.items():
        assert used[name] == {*family.names, *family.classifier}, name


def alone(apply, params, tokens):
    """The logits of each example in a batch of its own."""
    count = int(tokens.example_index[-1]) + 1
    return np.stack([apply(params, packed(one_of(tokens, one)))[0] for one in range(count)])


def test_packed_equals_one_text_per_batch(compiled):
    apply, params = compiled
    tokens = ragged([5, 11, 3, 24, 2, 9, 14, 1], 2)
    together = apply(params, packed(tokens))
    np.testing.assert_allclose(together, alone(apply, params, tokens), atol=1e-5, rtol=0)


def test_windows_of_a_long_text_are_pooled_together_wherever_they_lie(compiled):
    apply, params = compiled
    tokens = ragged([4, 20, 20, 9, 6], 3, owners=[0, 1, 1, 1, 2])
    together = apply(params, packed(tokens))[:3]
    np.testing.assert_allclose(together, alone(apply, params, tokens), atol=1e-5, rtol=0)
    # Windows count: the long text without its second window is another text.
    long = one_of(tokens, 1)
    cut = Tokens(long.ids[:20], long.starts[:2], long.example_index[:1])
    other = apply(params, packed(cut))[0]
    assert np.abs(np.asarray(other - together[1])).max() > 1e-4


@pytest.mark.parametrize("pool", POOLS[:3], ids=lambda spec: spec.name)
def test_every_pool_packs(variant_folders, pool):
    apply, params = network(variant_folders["bert"], pool)
    tokens = ragged([4, 20, 20, 9, 6], 3, owners=[0, 1, 1, 1, 2])
    together = apply(params, packed(tokens))[:3]
    np.testing.assert_allclose(together, alone(apply, params, tokens), atol=1e-5, rtol=0)


def test_the_tokens_of_a_neighbour_do_not_matter_to_the_bit(compiled):
    apply, params = compiled
    tokens = ragged([5, 11, 3], 5)
    before = apply(params, packed(tokens))
    tokens.ids[5:16] = 7
    after = apply(params, packed(tokens))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[2], after[2])
    assert np.abs(np.asarray(before[1] - after[1])).max() > 1e-4


def test_padding_and_neighbours_carry_no_gradient(compiled, variant_folder):
    """The derivative of one text's logits by every token's embedding: zero outside the text."""
    _, params = compiled
    batch = packed(ragged([5, 11, 3, 2, 9], 4), Shape(2, LENGTH, 5))
    target = 1
    # A vocabulary of one word per place in the batch, so that the table's gradient is the place's.
    config = {**read_hf_config(variant_folder), "vocab_size": batch.ids.size}
    _, apply = build(experiment(POOLS[3]), config, CLASSES)
    unique = batch._replace(ids=jnp.arange(batch.ids.size, dtype=jnp.int32).reshape(2, LENGTH))

    def logits(table):
        encoder = params["encoder"]
        embeddings = {**encoder["embeddings"], "word": {"embedding": table}}
        changed = {**params, "encoder": {**encoder, "embeddings": embeddings}}
        return (apply(changed, unique)[target] * jnp.array([1.0, -2.0, 0.5])).sum()

    word = params["encoder"]["embeddings"]["word"]["embedding"]
    gradient = np.asarray(jax.jit(jax.grad(logits))(word[batch.ids.reshape(-1)]))
    own = np.asarray(batch.examples).reshape(-1) == target
    assert not gradient[~own].any()
    assert np.abs(gradient[own]).sum(axis=1).min() > 0


def test_the_native_head_equals_transformers_classifier(variant, tmp_path):
    config = hf_config(variant)
    config.num_labels = CLASSES
    torch.manual_seed(0)
    model = randomize(transformers.AutoModelForSequenceClassification.from_config(config)).eval()
    model.save_pretrained(tmp_path)
    apply, params = network(tmp_path, Spec("cls"), Spec("native"))
    family = family_of(read_hf_config(tmp_path))
    name = family.classifier["head/classifier"]
    last = dict(model.named_modules())[name]
    params["head"]["classifier"] = {
        "kernel": jnp.asarray(last.weight.detach().numpy().T),
        "bias": jnp.asarray(last.bias.detach().numpy()),
    }
    tokens = ragged([6, 9], 6)
    ours = apply(params, packed(tokens))[:2]
    with torch.no_grad():
        theirs = [
            model(torch.tensor(tokens.ids[None, start:end], dtype=torch.long)).logits[0].numpy()
            for start, end in [(0, 6), (6, 15)]
        ]
    np.testing.assert_allclose(ours, np.stack(theirs), atol=1e-5, rtol=0)


FAMILY = ["bert", "deberta", "deberta-v2-xlarge", "modernbert"]


@pytest.mark.parametrize("name", FAMILY)
def test_dropout_needs_a_key_and_changes_the_logits(variant_folders, name):
    apply, params = network(variant_folders[name], Spec("mean"))
    batch = packed(ragged([6, 9], 6))
    one = apply(params, batch, jax.random.key(0, impl="philox4x32"))
    other = apply(params, batch, jax.random.key(1, impl="philox4x32"))
    again = apply(params, batch, jax.random.key(1, impl="philox4x32"))
    assert not np.array_equal(one[:2], other[:2])
    np.testing.assert_array_equal(other, again)


@pytest.mark.parametrize("name", FAMILY)
def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(variant_folders, name):
    config = read_hf_config(variant_folders[name])
    exact, params = network(variant_folders[name], Spec("mean"))
    _, apply = build(experiment(Spec("mean"), dtype="bfloat16"), config, CLASSES)
    batch = packed(ragged([6, 9], 6))
    logits = jax.jit(apply)(params, batch)
    assert logits.dtype == jnp.float32
    text = jax.jit(apply).lower(params, batch).as_text()
    # Every matrix product of the encoder is in bfloat16; the head's one is not.
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert sum("bf16" not in line for line in products) == 1
    # bfloat16 has 8 bits of mantissa: two layers keep the logits, of about 1, to a few parts in a
    # hundred.
    np.testing.assert_allclose(logits[:2], exact(params, batch)[:2], atol=0.1)


@pytest.mark.parametrize(
    ("variant", "change", "named"),
    [
        ("bert", {"hidden_act": "quick_gelu"}, "hidden_act"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"model_type": "gpt2"}, "model_type"),
        ("bert", {"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ("bert", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("roberta", {"pad_token_id": 25}, "pad_token_id"),
        ("electra", {"embedding_size": None}, "embedding_size"),
        ("deberta", {"relative_attention": False}, "relative_attention"),
        ("deberta", {"pos_att_type": "p2p"}, "pos_att_type"),
        ("deberta", {"pos_att_type": None}, "pos_att_type"),
        ("deberta", {"talking_head": True}, "talking_head"),
        ("deberta", {"attention_head_size": 4}, "attention_head_size"),
        ("deberta-v2", {"conv_kernel_size": 4}, "conv_kernel_size"),
        ("deberta-v2", {"conv_groups": 2}, "conv_groups"),
        ("deberta-v2", {"norm_rel_ebd": "batch"}, "norm_rel_ebd"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
        ("modernbert", {"num_attention_heads": 32}, "rotated"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "rope_type",
        ),
    ],
    ids=str,
)
def test_a_config_that_asks_for_more_is_refused(variant_folders, variant, change, named):
    config = {**read_hf_config(variant_folders[variant]), **change}
    with pytest.raises(DataError, match=named):
        build(experiment(), config, CLASSES)


def test_all_faults_of_a_config_are_named_at_once(variant_folders):
    config = read_hf_config(variant_folders["bert"])
    config |= {"hidden_size": 10**9, "num_hidden_layers": "3", "hidden_act": None}
    with pytest.raises(DataError) as caught:
        build(experiment(), config, CLASSES)
    for named in ("hidden_size=1000000000", "num_hidden_layers='3'", "hidden_act is missing"):
        assert named in str(caught.value)


def test_the_native_head_wants_a_pool_of_the_encoders_width(variant_folders):
    config = read_hf_config(variant_folders["bert"])
    with pytest.raises(ConfigError, match="mean_max"):
        build(experiment(Spec("mean_max"), Spec("native")), config, CLASSES)


@pytest.mark.parametrize("variant", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
def test_windows_as_long_as_the_encoder_reads_and_no_longer(variant_folders, variant):
    """RoBERTa's table has 26 rows, of which a text may use 24."""
    config = read_hf_config(variant_folders[variant])
    build(experiment(length=LENGTH), config, CLASSES)
    with pytest.raises(ConfigError, match="at most 24 tokens"):
        build(experiment(length=LENGTH + 1), config, CLASSES)


@pytest.mark.parametrize(("buckets", "span"), [(256, 512), (8, 24), (32, 100), (0, 24)])
def test_log_buckets_are_the_references(buckets, span):
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = np.arange(-span + 1, span)
    ours = deberta_v2.bucket(distance, buckets, span)
    if not buckets:
        np.testing.assert_array_equal(ours, distance)
        return
    theirs = make_log_bucket_position(torch.tensor(distance), buckets, span)
    np.testing.assert_array_equal(ours, theirs.to(torch.long).numpy())


def attention_inputs(length, seed=0):
    rng = np.random.default_rng(seed)
    query, key, value = (
        jnp.asarray(rng.normal(size=(2, 2, length, 8)).astype(np.float32)) for _ in range(3)
    )
    cuts = np.sort(rng.integers(0, length, 4))
    segments = np.searchsorted(cuts, np.arange(length), side="right") + 1
    return query, key, value, jnp.asarray(np.stack([segments, segments]).astype(np.int32))


def dense_attention(query, key, value, mask):
    scores = np.asarray(query @ key.swapaxes(-1, -2)) * query.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None]
    return weights / weights.sum(-1, keepdims=True) @ np.asarray(value)


def weigh(scores, mask, part):
    return common.attention_weights(scores, mask, jnp.dtype("float32"))


@pytest.mark.parametrize("length", [1, 5, 16, 17, 47, 64])
@pytest.mark.parametrize("reach", [1, 4, 15, 16, 100])
def test_local_attention_is_attention_under_a_band(length, reach):
    *states, segments = attention_inputs(length)
    place, owner = np.arange(length), np.asarray(segments)
    mask = owner[:, :, None] == owner[:, None]
    mask &= np.abs(place[:, None] - place[None])[None] <= reach
    ours = long_attention.local_attention(*states, segments, reach, weigh)
    np.testing.assert_allclose(ours, dense_attention(*states, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [7, 16, 40])
def test_global_attention_in_parts_is_the_same(length, monkeypatch):
    monkeypatch.setattr(long_attention, "QUERIES", 16)
    *states, segments = attention_inputs(length)
    owner = np.asarray(segments)
    mask = owner[:, :, None] == owner[:, None]
    ours = long_attention.global_attention(*states, segments, weigh)
    np.testing.assert_allclose(ours, dense_attention(*states, mask), atol=1e-5, rtol=0)


def test_parts_of_a_row_drop_each_their_own(monkeypatch):
    """Dropout in attention by parts: other draws in each part, the same for the same key."""
    monkeypatch.setattr(long_attention, "QUERIES", 8)
    query, _, value, _ = attention_inputs(16)
    one = jnp.ones((2, 16), jnp.int32)
    value = jnp.broadcast_to(jnp.eye(16, 8), (2, 2, 16, 8))
    query = jnp.zeros_like(query)

    def drop(key):
        weigh = lambda *rest: long_attention.weigh_and_drop(jnp.dtype("float32"), 0.5, key, *rest)  # noqa: E731
        return np.asarray(long_attention.global_attention(query, query, value, one, weigh))

    first = drop(jax.random.key(0))
    np.testing.assert_array_equal(first, drop(jax.random.key(0)))
    assert not np.array_equal(first[:, :, :8], first[:, :, 8:])
    # Each weight is dropped or doubled: none but 0 and 2/16.
    assert set(np.unique(first)) == {0.0, np.float32(0.125)}


def test_a_local_layer_costs_as_much_as_the_row_is_long():
    """Operations of a local attention double with the row; those of a global one quadruple."""

    def cost(attend, length):
        shapes = [jax.ShapeDtypeStruct((1, 2, length, 8), jnp.float32)] * 3
        segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
        return jax.jit(attend).lower(*shapes, segments).compile().cost_analysis()["flops"]

    def local(query, key, value, segments):
        return long_attention.local_attention(query, key, value, segments, 16, weigh)

    def everywhere(query, key, value, segments):
        return long_attention.global_attention(query, key, value, segments, weigh)

    assert 1.9 < cost(local, 1024) / cost(local, 512) < 2.1
    assert 3.8 < cost(everywhere, 1024) / cost(everywhere, 512) < 4.2


def test_modernbert_reads_8192_tokens(variant_folders, tmp_path):
    """A long text against torch, with the real reach of 64 and rows far longer than the parts."""
    config = read_hf_config(variant_folders["modernbert"])
    config |= {"max_position_embeddings": 8192, "local_attention": 128, "hidden_size": 8}
    config |= {"num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    kind = transformers.ModernBertConfig(**config)
    randomize(transformers.AutoModel.from_config(kind)).save_pretrained(tmp_path)
    tokens = ragged([2500, 1200], 8)
    # Angles reach 2,500 radians, where float32 resolves 2e-4: what torch and we round differently
    # there is more than 1e-5.
    assert max(differences(tmp_path, tokens, 2500)) <= 1e-4
    build(experiment(length=8192), json.loads((tmp_path / "config.json").read_text()), CLASSES)
