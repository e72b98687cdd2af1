"""DeBERTa (He et al. 2021, arXiv 2006.03654), and its versions 2 and 3 (He et al. 2023,
arXiv 2111.09543).

Differences from v1: separate projections; distances normed, in logarithmic buckets; optionally
content projections shared with distances, and a convolution beside the first layer.
"""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import POST_NORM_NAMES, Config, Family, Native, Relative
from jaxclf.model.encoders.config_schema import (
    ACTIVATION,
    EITHER,
    EPSILON,
    NEVER,
    POSITIONS,
    SIZE,
    ConfigField,
    check_heads,
    raise_config_error,
    read_fields,
)
from jaxclf.model.encoders.disentangled import Deberta

FIELDS = bert.FIELDS | {
    "type_vocab_size": SIZE._replace(low=0),
    "layer_norm_eps": EPSILON._replace(default=1e-7),
}
RELATIVE_FIELDS = {
    "relative_attention": ConfigField(choices=(True,)),
    "max_relative_positions": POSITIONS._replace(low=-1, default=-1),
    "position_biased_input": EITHER._replace(default=True),
    "talking_head": NEVER,
}
FIELDS_V2 = {
    "position_buckets": POSITIONS._replace(low=-1, default=-1),
    "share_att_key": EITHER,
    "norm_rel_ebd": ConfigField(choices=("none", "layer_norm"), default="none"),
    "conv_kernel_size": ConfigField(0, 63, default=0),
    "conv_groups": ConfigField(choices=(1,), default=1),
    "conv_act": ACTIVATION._replace(default="tanh"),
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json. Raises DataError for an unsupported value."""
    values = read_fields(config, FIELDS | RELATIVE_FIELDS)
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    check_heads(hidden, heads)
    for name, size in (("embedding_size", hidden), ("attention_head_size", hidden // heads)):
        read_fields(config, {name: ConfigField(choices=(size,), default=size)})
    max_distance = values["max_relative_positions"]
    relative = Relative(
        span=max_distance if max_distance > 0 else values["max_position_embeddings"],
        terms=_terms(config.get("pos_att_type")),
    )
    pooler = read_fields(config, {"pooler_hidden_act": ACTIVATION._replace(default="gelu")})
    return Config(
        **{name: values[name] for name in FIELDS},
        embedding_size=hidden,
        head=Native(pooler["pooler_hidden_act"]),
        has_positions=values["position_biased_input"],
        relative=relative,
    )


def _terms(value: Any) -> tuple[str, ...]:
    """`pos_att_type`: a list, or a string such as "p2c|c2p"."""
    terms = [part.strip() for part in value.lower().split("|")] if isinstance(value, str) else value
    if (
        not isinstance(terms, list)
        or not terms
        or any(term not in ("c2p", "p2c") for term in terms)
        or len(set(terms)) < len(terms)
    ):
        raise_config_error(f"pos_att_type={str(value)[:40]!r} is not a list of 'c2p' and 'p2c'")
    return tuple(terms)  # type: ignore[arg-type]


def _v2_from_hf(config: Mapping[str, Any]) -> Config:
    values = read_fields(config, FIELDS_V2)
    base, buckets = from_hf(config), max(values["position_buckets"], 0)
    assert base.relative is not None
    span, size = base.relative.span, values["conv_kernel_size"]
    if buckets and not 0 < buckets // 2 < span - 1:
        raise_config_error(f"position_buckets={buckets} does not divide distances up to {span}")
    if size and size % 2 == 0:
        raise_config_error(f"conv_kernel_size={size} has no middle")
    relative = base.relative._replace(
        is_fused=False,
        buckets=buckets,
        is_shared=values["share_att_key"],
        is_normed=values["norm_rel_ebd"] == "layer_norm",
        kernel_size=size,
        activation=values["conv_act"],
    )
    return base._replace(relative=relative)


# The names that all versions share.
SHARED_NAMES = POST_NORM_NAMES | {
    "encoder/relative": "encoder.rel_embeddings",
    "head/pooler": "pooler.dense",
    "head/classifier": "classifier",
}
DEBERTA = Family(
    from_hf,
    Deberta,
    names={
        "encoder/layer_{i}/attention/query_key_value": "encoder.layer.{i}.attention.self.in_proj",
        "encoder/layer_{i}/attention/query/bias": "encoder.layer.{i}.attention.self.q_bias",
        "encoder/layer_{i}/attention/value/bias": "encoder.layer.{i}.attention.self.v_bias",
        "encoder/layer_{i}/attention/position_key": "encoder.layer.{i}.attention.self.pos_proj",
        "encoder/layer_{i}/attention/position_query": "encoder.layer.{i}.attention.self.pos_q_proj",
        **SHARED_NAMES,
    },
    prefix="deberta.",
    task="DebertaForSequenceClassification",
    # Files of networks without absolute positions may have a table of them.
    ignored_keys=("embeddings.position_embeddings", "embeddings.position_ids"),
)
DEBERTA_V2 = DEBERTA._replace(
    from_hf=_v2_from_hf,
    names={
        "encoder/relative_norm": "encoder.LayerNorm",
        "encoder/layer_0/conv": "encoder.conv.conv",
        "encoder/layer_0/conv_norm": "encoder.conv.LayerNorm",
        "encoder/layer_{i}/attention/query": "encoder.layer.{i}.attention.self.query_proj",
        "encoder/layer_{i}/attention/key": "encoder.layer.{i}.attention.self.key_proj",
        "encoder/layer_{i}/attention/value": "encoder.layer.{i}.attention.self.value_proj",
        "encoder/layer_{i}/attention/position_key": "encoder.layer.{i}.attention.self.pos_key_proj",
        "encoder/layer_{i}/attention/position_query": (
            "encoder.layer.{i}.attention.self.pos_query_proj"
        ),
        **SHARED_NAMES,
    },
    task="DebertaV2ForSequenceClassification",
)
