"""The options of a cascade."""

from dataclasses import dataclass
from typing import Annotated

from jaxclf.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class CascadeConfig:
    """What early exits may cost, fitted on validation."""

    metric: Annotated[str, "the metric that may be lost: macro_f1 or macro_recall"] = "macro_f1"
    max_metric_loss: Annotated[float, "the most to lose against the final stage alone"] = 0.002
    confidence: Annotated[float, "that no more is lost, on as many texts as validation has"] = 0.8
    final_stage_labels: Annotated[
        tuple[str, ...], "labels that only the final stage may predict"
    ] = ()
    max_miss_rate: Annotated[float, "of texts with such a label, that may exit without it"] = 0.02


def check_config(config: CascadeConfig, names: tuple[str, ...]) -> None:
    """Raise ConfigError for a value out of range or an unknown label."""
    for key, is_valid, interval in (
        ("max_metric_loss", 0 <= config.max_metric_loss <= 1, "[0, 1]"),
        ("confidence", 0.5 <= config.confidence < 1, "[0.5, 1)"),
        ("max_miss_rate", 0 < config.max_miss_rate < 1, "(0, 1)"),
    ):
        if not is_valid:
            raise ConfigError(f"{key}={getattr(config, key)!r} is out of range {interval}")
    for name in config.final_stage_labels:
        if name not in names:
            raise ConfigError(
                f"final_stage_labels: unknown label {name!r}" + did_you_mean(name, names)
            )
