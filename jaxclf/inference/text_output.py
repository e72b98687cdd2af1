"""Predictions and explanations as text for a terminal."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import escape_controls
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import Explanation

NUM_WORDS = 5  # most words printed for each label and sign
MIN_RELATIVE = 0.05  # weaker words, relative to the strongest, are not printed

Probs = Float[np.ndarray, "texts classes"]


def format_predictions(classifier: Classifier, texts: Sequence[str], probs: Probs) -> str:
    """Every label of every text with its probability and threshold; `*` marks predicted labels."""
    names = [escape_controls(name) for name in classifier.labels]
    width = max(map(len, names))
    blocks = []
    for text, row, cut in zip(texts, probs, classifier.is_cut([*texts]), strict=True):
        predicted = decide(row[None], classifier.thresholds)[0]
        lines = [text, ""]
        for index in np.argsort(-row, kind="stable"):
            name, threshold = names[index], classifier.thresholds[index]
            mark = "*" if predicted[index] else " "
            lines.append(f"  {mark} {name:<{width}}  {row[index]:.3f}  (threshold {threshold:.3f})")
        if not predicted.any():
            lines.append("  no label reaches its threshold")
        if cut:
            lines.append("  the text is long: its end was not read")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def format_explanations(classifier: Classifier, texts: Sequence[str], probs: Probs) -> str:
    """The predictions, each followed by the words for and against the predicted labels, or the
    most probable label if none is predicted."""
    blocks = []
    for text, row, explanation in zip(texts, probs, classifier.explain(texts), strict=True):
        predicted = np.flatnonzero(decide(row[None], classifier.thresholds)[0])
        labels = [classifier.labels[i] for i in (predicted if len(predicted) else [row.argmax()])]
        words = format_words(explanation, classifier.labels, labels)
        blocks.append(f"{format_predictions(classifier, [text], row[None])}\n\n{words}")
    return "\n\n".join(blocks)


def format_words(explanation: Explanation, labels: Sequence[str], shown: Sequence[str]) -> str:
    """The words with the most evidence for and against each label of `shown`, as text.

    labels: in the order of the columns.
    """
    lines = []
    for label in shown:
        column = labels.index(label)
        ends = (explanation.log_odds[column], explanation.baseline[column])
        name = escape_controls(label)
        lines.append("{}  {:.3f}, all words masked {:.3f}".format(name, *map(expit, ends)))
        attributions = explanation.attributions[:, column]
        order = np.argsort(-np.abs(attributions), kind="stable")
        for side, sign in (("evidence for", 1), ("evidence against", -1)):
            words = [
                f"{explanation.words[index]} {attributions[index]:+.2f}"
                for index in order
                if sign * attributions[index] > MIN_RELATIVE * np.abs(attributions).max()
            ]
            if words:
                lines.append(f"  {side:<16}  {'  '.join(words[:NUM_WORDS])}")
    return "\n".join(lines)
