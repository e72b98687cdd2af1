"""Small torch models of every family, random in every parameter."""

import torch
import transformers

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
DISTILLED = {
    "vocab_size": 60,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 24,
}
RELATIVE = {"relative_attention": True, "type_vocab_size": 0, "position_biased_input": False}
V3 = {
    **RELATIVE,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}

# Name of a variant -> (transformers' config class, its values). A row of 24 tokens everywhere.
VARIANTS = {
    "bert": (transformers.BertConfig, SIZES),
    "roberta": (transformers.RobertaConfig, {**SIZES, "max_position_embeddings": 26}),
    "xlm-roberta": (
        transformers.XLMRobertaConfig,
        {**SIZES, "max_position_embeddings": 26, "type_vocab_size": 1, "hidden_act": "gelu_new"},
    ),
    "distilbert": (transformers.DistilBertConfig, DISTILLED),
    "distilbert-relu": (transformers.DistilBertConfig, {**DISTILLED, "activation": "relu"}),
    "electra": (transformers.ElectraConfig, {**SIZES, "embedding_size": 16}),
    "electra-unprojected": (transformers.ElectraConfig, {**SIZES, "embedding_size": 32}),
    "deberta": (transformers.DebertaConfig, {**SIZES, **RELATIVE, "pos_att_type": "c2p|p2c"}),
    # Distances beyond 7 are one; absolute positions and types are there.
    "deberta-short": (
        transformers.DebertaConfig,
        {
            **SIZES,
            "relative_attention": True,
            "max_relative_positions": 7,
            "pos_att_type": ["p2c"],
            "type_vocab_size": 2,
            "pooler_hidden_act": "tanh",
        },
    ),
    "deberta-v2": (transformers.DebertaV2Config, {**SIZES, **V3}),
    "deberta-v2-xlarge": (
        transformers.DebertaV2Config,
        {
            **SIZES,
            **V3,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
    "deberta-v2-apart": (
        transformers.DebertaV2Config,
        {
            **SIZES,
            "relative_attention": True,
            "type_vocab_size": 2,
            "pos_att_type": ["c2p", "p2c"],
            "conv_kernel_size": 5,
        },
    ),
    # Two layers, global and local; a token sees 3 to either side in the local one.
    "modernbert": (
        transformers.ModernBertConfig,
        {**SIZES, "local_attention": 6, "pad_token_id": 0},
    ),
    "modernbert-bias": (
        transformers.ModernBertConfig,
        {
            **SIZES,
            "local_attention": 18,
            "pad_token_id": 0,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "classifier_activation": "silu",
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}


def hf_config(variant, **changes):
    kind, values = VARIANTS[variant]
    ends = ENDS if kind is transformers.ModernBertConfig else {}
    return kind(**{**values, **ends, **changes})


def randomize(model, seed=0):
    """Biases and norms too: what is 0 or 1 everywhere would hide a name mistaken for another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
