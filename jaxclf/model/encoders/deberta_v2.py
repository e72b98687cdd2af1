"""DeBERTa v2 and v3 (He et al. 2023, arXiv 2111.09543).

Differences from v1: separate projections; distances normed, in logarithmic buckets; optionally
content projections shared with distances, and a convolution beside the first layer.
"""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import deberta
from jaxclf.model.encoders.common import Config
from jaxclf.model.encoders.config_schema import (
    ACTIVATION,
    EITHER,
    POSITIONS,
    ConfigField,
    raise_config_error,
    read_fields,
)

FIELDS = {
    "position_buckets": POSITIONS._replace(low=-1, default=-1),
    "share_att_key": EITHER,
    "norm_rel_ebd": ConfigField(choices=("none", "layer_norm"), default="none"),
    "conv_kernel_size": ConfigField(0, 63, default=0),
    "conv_groups": ConfigField(choices=(1,), default=1),
    "conv_act": ACTIVATION._replace(default="tanh"),
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """DeBERTa's config and the values that v2 adds. Raises DataError for an unsupported value."""
    values = read_fields(config, FIELDS)
    base, buckets = deberta.from_hf(config), max(values["position_buckets"], 0)
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


FAMILY = deberta.FAMILY._replace(
    from_hf=from_hf,
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
        **deberta.SHARED_NAMES,
    },
    task="DebertaV2ForSequenceClassification",
)
