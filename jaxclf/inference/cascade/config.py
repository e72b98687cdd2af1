"""The options of a cascade."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxclf.types import FRACTION, Bound


@dataclass(frozen=True)
class CascadeConfig:
    """What early exits may cost, fitted on validation."""

    metric: Annotated[
        Literal["macro_f1", "macro_recall"], "the metric that may be lost: macro_f1 or macro_recall"
    ] = "macro_f1"
    max_metric_loss: Annotated[
        float, FRACTION, "the most to lose against the final stage alone"
    ] = 0.002
    confidence: Annotated[
        float, Bound(0.5, 1), "that no more is lost, on as many texts as validation has"
    ] = 0.8
    final_stage_labels: Annotated[
        tuple[str, ...], "labels that only the final stage may predict"
    ] = ()
    max_miss_rate: Annotated[
        float, Bound(0, 1, open=True), "of texts with such a label, that may exit without it"
    ] = 0.02
