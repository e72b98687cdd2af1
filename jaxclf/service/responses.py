"""A classifier's answers as responses, and the classifier as the queue sees it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tokenizers import Tokenizer

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.inference.cascade.stages import Cascade
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import MIN_STEPS
from jaxclf.model.inference import prediction_shape, score
from jaxclf.service.batcher import BatchModel
from jaxclf.text.tokenizer.tokenize import tokenize

WORD = "word"


def make_batch_model(classifier: Classifier) -> BatchModel:
    """Batches have the first network's shape; every other network reads the same texts."""
    first = classifier.groups[0]
    data = first.experiment.data
    tokenizer = Tokenizer.from_str(first.tokenizer.to_str())
    tokenizer.enable_truncation(data.max_length, stride=data.window_overlap)

    def count_tokens(texts: Sequence[str]) -> list[list[int]]:
        """As `tokenize` does. `encode` would hold the interpreter's lock over a long text, and
        delay the responses of other requests."""
        return [
            [len(window.ids) for window in [text, *text.overflowing][: data.max_windows]]
            for text in tokenizer.encode_batch(list(texts))
        ]

    return BatchModel(
        prediction_shape(data.windows),
        data.max_length * data.max_windows,
        count_tokens,
        lambda texts: predict(classifier, texts),
    )


def predict(classifier: Classifier, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A `Prediction` of each text."""
    if isinstance(classifier, Cascade):
        outputs = classifier.run(texts)
        probs, stages = outputs.probs, [classifier.plan.stages[stage] for stage in outputs.stage]
    else:
        probs, stages = classifier.predict_proba(texts), [None] * len(texts)
    predicted = decide(probs, classifier.thresholds)
    return [
        {
            "labels": [label for label, yes in zip(classifier.labels, row, strict=True) if yes],
            "probabilities": dict(zip(classifier.labels, values, strict=True)),
            "stage": stage,
        }
        for row, values, stage in zip(predicted, probs.tolist(), stages, strict=True)
    ]


def explain(classifier: Classifier, text: str) -> dict[str, Any]:
    """An `ExplainResponse` of a text."""
    explanation, labels = classifier.explain([text])[0], classifier.labels
    attention = explanation.attention
    weights = [None] * len(explanation.words) if attention is None else attention.tolist()
    words = zip(explanation.spans.tolist(), explanation.attributions.tolist(), weights, strict=True)
    return {
        "labels": labels,
        "words": [
            {
                "start": start,
                "end": end,
                "attributions": dict(zip(labels, values, strict=True)),
                "attention": weight,
            }
            for (start, end), values, weight in words
        ],
        "convergence_delta": dict(zip(labels, explanation.convergence_delta.tolist(), strict=True)),
    }


def explain_cost(classifier: Classifier) -> int:
    """The cost of an explanation in predictions: a forward pass and a backward pass for every label
    at every step of a path, and a backward pass takes about twice as long."""
    return (MIN_STEPS + 1) * (1 + 2 * len(classifier.labels))


def warm_up(classifier: Classifier) -> float:
    """Compile every network that a response may need, those of a cascade's later stages included.

    Returns the seconds that a batch takes.
    """
    for group in classifier.groups:
        data = group.experiment.data
        tokens = tokenize(group.tokenizer, [WORD], data.windows)
        shape = prediction_shape(data.windows)
        list(score(group.step, group.params, tokens, shape, group.columns))
    with suppress(DataError):  # a model that cannot be explained still predicts
        explain(classifier, WORD)
    start = time.perf_counter()
    predict(classifier, [WORD])
    return time.perf_counter() - start
