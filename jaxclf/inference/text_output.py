"""Predictions and explanations as text for a terminal."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxclf.decisions.thresholds import decide
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import in_words

Probs = Float[np.ndarray, "texts classes"]


def format_predictions(classifier: Classifier, texts: Sequence[str], probs: Probs) -> str:
    """Every label of every text with its probability and threshold; `*` marks predicted labels."""
    width = max(len(name) for name in classifier.labels)
    blocks = []
    for text, row in zip(texts, probs, strict=True):
        predicted = decide(row[None], classifier.thresholds)[0]
        lines = [text, ""]
        for index in np.argsort(-row, kind="stable"):
            name, threshold = classifier.labels[index], classifier.thresholds[index]
            mark = "*" if predicted[index] else " "
            lines.append(f"  {mark} {name:<{width}}  {row[index]:.3f}  (threshold {threshold:.3f})")
        if not predicted.any():
            lines.append("  no label reaches its threshold")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def format_explanations(classifier: Classifier, texts: Sequence[str], probs: Probs) -> str:
    """The predictions, each followed by the words for and against the predicted labels, or the
    most probable label if none is predicted."""
    blocks = []
    for text, row, explanation in zip(texts, probs, classifier.explain(texts), strict=True):
        predicted = np.flatnonzero(decide(row[None], classifier.thresholds)[0])
        labels = [classifier.labels[i] for i in (predicted if len(predicted) else [row.argmax()])]
        words = in_words(explanation, classifier.labels, labels)
        blocks.append(f"{format_predictions(classifier, [text], row[None])}\n\n{words}")
    return "\n\n".join(blocks)
