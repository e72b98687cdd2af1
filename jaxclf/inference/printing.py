"""Predictions and explanations as text for a terminal."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from scipy.special import expit

from jaxclf.decisions.thresholds import decide
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import Explanation

NUM_WORDS = 5  # most words printed for each label and sign
MIN_RELATIVE = 0.05  # weaker words, relative to the strongest, are not printed


def format_texts(classifier: Classifier, texts: list[str], with_words: bool = False) -> str:
    """Each text with every label's probability and threshold; predicted labels are marked.

    with_words: also the words with the most evidence for and against the predicted labels, or the
        most probable label if none is predicted.
    """
    probs = classifier.predict_proba(texts)
    blocks = [_format_text(classifier, *pair) for pair in zip(texts, probs, strict=True)]
    if with_words:
        for index, explanation in enumerate(classifier.explain(texts)):
            is_predicted = decide(probs[index : index + 1], classifier.thresholds)[0]
            columns = (
                np.flatnonzero(is_predicted) if is_predicted.any() else [probs[index].argmax()]
            )
            shown = [classifier.labels[column] for column in columns]
            blocks[index] += "\n\n" + format_explanation(explanation, classifier.labels, shown)
    return "\n\n".join(blocks)


def _format_text(classifier: Classifier, text: str, probs: Float32[np.ndarray, " classes"]) -> str:
    width = max(len(name) for name in classifier.labels)
    is_predicted = decide(probs[None], classifier.thresholds)[0]
    lines = [text, ""]
    for label in np.argsort(-probs, kind="stable"):
        name, threshold = classifier.labels[label], classifier.thresholds[label]
        mark = "*" if is_predicted[label] else " "
        lines.append(f"  {mark} {name:<{width}}  {probs[label]:.3f}  (threshold {threshold:.3f})")
    if not is_predicted.any():
        lines.append("  no label reaches its threshold")
    return "\n".join(lines)


def format_explanation(
    explanation: Explanation, labels: Sequence[str], shown: Sequence[str]
) -> str:
    """The words with the most evidence for and against each label of `shown`, as text.

    labels: in the order of the columns.
    """
    lines = []
    for label in shown:
        column = labels.index(label)
        ends = (explanation.log_odds[column], explanation.baseline[column])
        lines.append("{}  {:.3f}, all words masked {:.3f}".format(label, *map(expit, ends)))
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
