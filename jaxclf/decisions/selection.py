"""The metrics that may choose the epoch and rank the trials of a search, and how they are shown."""

from collections.abc import Mapping, Sequence

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.decisions.calibration import calibrate_out_of_fold, platt
from jaxclf.decisions.metrics import METRICS, Metric, log_loss


def calibrated_log_loss(labels: Labels, probs: Probs) -> float:
    """Log loss in nats after Platt scaling that other folds fitted; lower is better.

    A network grows overconfident while its ranking still improves. Its raw log loss then rises too
    early to choose the epoch.
    """
    return log_loss(labels, calibrate_out_of_fold(labels, probs, platt))


CALIBRATED_LOG_LOSS = Metric(
    "Calibrated log loss",
    "Log loss after Platt scaling that was fitted on other folds; lower is better.",
    lambda labels, probs, decided: calibrated_log_loss(labels, probs),
    higher_is_better=False,
)

# What `train.metric` may name. Probabilities are those of the network for calibrated_log_loss, and
# calibrated as the experiment says for all others.
SELECTION_METRICS: Mapping[str, Metric] = {
    "calibrated_log_loss": CALIBRATED_LOG_LOSS,
    "log_loss": METRICS["log_loss"],
    "macro_f1": METRICS["macro_f1"],
    "micro_f1": METRICS["micro_f1"],
    "weighted_f1": METRICS["weighted_f1"],
    "samples_f1": METRICS["samples_f1"],
    "subset_accuracy": METRICS["subset_accuracy"],
    "label_accuracy": METRICS["label_accuracy"],
    "macro_auc": METRICS["macro_auc"],
    "map": METRICS["map"],
}


def as_score(metric: str, value: float) -> float:
    """A number that is higher for a better value: the value, or minus the value of a loss."""
    return value if SELECTION_METRICS[metric].higher_is_better else -value


EQUAL_LOSS = 0.02  # a loss within 2 % of the lowest one is as good


def rank_epochs(scores: Sequence[float]) -> list[int]:
    """The epochs, from 0, that with the best score first; of equal ones the earliest.

    Of epochs whose loss is as good as the lowest the last one is the best: the learning rate has
    fallen further, and macro F1 often still rises. scores: as `as_score`, so a loss is below 0.
    """
    by_score = sorted(range(len(scores)), key=lambda epoch: -scores[epoch])
    if not by_score:
        return []
    lowest = max(scores) + EQUAL_LOSS * min(max(scores), 0.0)
    best = (
        max(epoch for epoch in by_score if scores[epoch] >= lowest) if lowest < 0 else by_score[0]
    )
    return [best, *(epoch for epoch in by_score if epoch != best)]


def describe_metric(metric: str) -> str:
    """The name of a metric; of a loss, also that lower is better."""
    return metric if SELECTION_METRICS[metric].higher_is_better else f"{metric}, lower is better"


def format_metric(metric: str, value: float) -> str:
    """`macro_f1 0.5123`, or `log_loss 0.1234 (lower is better)`."""
    suffix = "" if SELECTION_METRICS[metric].higher_is_better else " (lower is better)"
    return f"{metric} {value:.4f}{suffix}"
