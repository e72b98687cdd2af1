"""Configs of encoders: an unsupported value is refused and named."""

import jax.numpy as jnp
import numpy as np
import pytest
from encoder_networks import CLASSES, LENGTH, make_experiment
from tiny_encoders import hf_config

from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Spec
from jaxclf.model.classifier import build, family_of
from jaxclf.model.encoders.common import ACTIVATIONS


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
def test_a_config_that_asks_for_more_is_refused(variant, change, named):
    config = hf_config(variant, **change)
    with pytest.raises(DataError, match=named):
        build(make_experiment(), config, CLASSES)


def test_every_error_of_a_config_is_named_at_once():
    config = hf_config("bert", hidden_size=10**9, num_hidden_layers="3", hidden_act=None)
    with pytest.raises(DataError) as caught:
        build(make_experiment(), config, CLASSES)
    for named in ("hidden_size=1000000000", "num_hidden_layers='3'", "hidden_act is missing"):
        assert named in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "default"), [("bert", 1e-12), ("roberta", 1e-12), ("deberta", 1e-7)]
)
def test_a_missing_epsilon_is_the_familys(variant, default):
    config = hf_config(variant)
    del config["layer_norm_eps"]
    assert family_of(config).from_hf(config).layer_norm_eps == default


@pytest.mark.parity
def test_activations_are_those_of_transformers():
    import torch
    from transformers.activations import ACT2FN

    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    for name, function in ACTIVATIONS.items():
        expected = ACT2FN[name](torch.tensor(x)).numpy()
        np.testing.assert_allclose(
            function(jnp.asarray(x)), expected, atol=2e-6, rtol=0, err_msg=name
        )


def test_an_activation_of_another_name_is_read():
    names = ("gelu_python", "swish", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
    for name in names:
        config = hf_config("bert", hidden_act=name)
        assert family_of(config).from_hf(config).hidden_act == name


def test_the_native_head_needs_a_pool_of_the_encoders_width():
    config = hf_config("bert")
    with pytest.raises(ConfigError, match="mean_max"):
        build(make_experiment(Spec("mean_max"), Spec("native")), config, CLASSES)


@pytest.mark.parametrize("variant", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
def test_windows_as_long_as_the_encoder_reads_and_no_longer(variant):
    """RoBERTa's table has 26 rows, but a text can use 24."""
    config = hf_config(variant)
    build(make_experiment(length=LENGTH), config, CLASSES)
    with pytest.raises(ConfigError, match="at most 24 tokens"):
        build(make_experiment(length=LENGTH + 1), config, CLASSES)
