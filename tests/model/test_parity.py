"""Every encoder against transformers on torch, live. Needs the extra [parity]."""

import numpy as np
import pytest
from encoder_networks import CLASSES, hidden_states, make_experiment
from tiny_encoders import (
    GOLDEN,
    MINILM_TEXTS,
    VARIANTS,
    hf_config,
    padded,
    random_torch_model,
    torch_states,
)

from jaxclf.model import pretrained
from jaxclf.model.classifier import build
from jaxclf.model.encoders.disentangled import bucket
from jaxclf.model.storage.encoder_config import read_hf_config
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Windows

pytestmark = pytest.mark.parity


def largest_differences(folder, ids, mask):
    """Of each hidden state, over real tokens."""
    import transformers

    model = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager", dtype="float32"
    ).eval()
    pairs = zip(hidden_states(folder, ids, mask), torch_states(model, ids, mask), strict=True)
    return [np.abs(ours - theirs)[mask > 0].max() for ours, theirs in pairs]


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_equal_torch(variant):
    pad = hf_config(variant).get("pad_token_id") or 0
    ids, mask = padded([24, 1, 7, 13], 24, seed=2, pad=pad)
    assert max(largest_differences(GOLDEN / variant, ids, mask)) <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_outputs_are_those_of_the_installed_transformers(variant):
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        GOLDEN / variant, attn_implementation="eager", dtype="float32"
    ).eval()
    with np.load(GOLDEN / variant / "expected.npz") as expected:
        ids, mask = expected["ids"], expected["mask"]
        states = torch_states(model, ids, mask)
        for name, values in zip(("embedded", "first", "last"), states, strict=True):
            np.testing.assert_allclose(values[mask > 0], expected[name][mask > 0], atol=1e-5)


def test_the_built_in_encoder_equals_torch():
    folder = pretrained.resolve("minilm").folder
    tokens = tokenize(load_tokenizer(folder), MINILM_TEXTS, Windows(128, 1, 0))
    lengths = np.diff(tokens.starts)
    ids, mask = padded(lengths, 128, seed=0, pad=0)
    ids[mask > 0] = tokens.ids
    assert max(largest_differences(folder, ids, mask)) <= 1e-5


@pytest.mark.parametrize(("buckets", "span"), [(256, 512), (8, 24), (32, 100), (0, 24)])
def test_log_buckets_equal_the_reference(buckets, span):
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = np.arange(-span + 1, span)
    expected = distance
    if buckets:
        expected = make_log_bucket_position(torch.tensor(distance), buckets, span).long().numpy()
    np.testing.assert_array_equal(bucket(distance, buckets, span), expected)


def test_modernbert_reads_8192_tokens(tmp_path):
    """A long text, with the real reach of 64 and rows far longer than the parts of attention."""
    config = hf_config(
        "modernbert",
        max_position_embeddings=8192,
        local_attention=128,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=8,
    )
    random_torch_model(config).save_pretrained(tmp_path)
    ids, mask = padded([2500, 1200], 2500, seed=8, pad=0)
    # Angles reach 2,500 radians, where float32 resolves 2e-4: torch and jax round them differently.
    assert max(largest_differences(tmp_path, ids, mask)) <= 1e-4
    build(make_experiment(length=8192), read_hf_config(tmp_path), CLASSES)
