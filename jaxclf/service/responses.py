"""What a classifier says of texts, as the service writes it, and the classifier as its queue sees
it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tokenizers import Tokenizer

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.inference.cascade.stages import Cascade
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import STEPS
from jaxclf.model.inference import prediction_shape, score
from jaxclf.service.batcher import Model
from jaxclf.text.tokenizer.tokenize import tokenize

WORD = "word"


def model_of(classifier: Classifier) -> Model:
    """Batches of the first network's shape; every other network is given the same texts."""
    first = classifier.groups[0]
    data = first.experiment.data
    reader = Tokenizer.from_str(first.tokenizer.to_str())
    reader.enable_truncation(data.max_length, stride=data.window_overlap)

    def cut(texts: Sequence[str]) -> list[list[int]]:
        """As `tokenize` does. `encode` would hold the interpreter's lock over a long text, and
        whoever is to be refused meanwhile would wait."""
        found = reader.encode_batch(list(texts))
        return [
            [len(window.ids) for window in [one, *one.overflowing][: data.max_windows]]
            for one in found
        ]

    return Model(
        prediction_shape(data.windows),
        data.max_length * data.max_windows,
        cut,
        lambda texts: predict(classifier, texts),
    )


def predict(classifier: Classifier, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Of each text the labels given, all probabilities, and which stage of a cascade decided."""
    if isinstance(classifier, Cascade):
        mixed = classifier.run(texts)
        probs, stages = mixed.probs, [classifier.plan.stages[stage] for stage in mixed.stage]
    else:
        probs, stages = classifier.predict_proba(texts), [None] * len(texts)
    given = decide(probs, classifier.thresholds)
    return [
        {
            "labels": [label for label, yes in zip(classifier.labels, row, strict=True) if yes],
            "probabilities": dict(zip(classifier.labels, values, strict=True)),
            "stage": stage,
        }
        for row, values, stage in zip(given, probs.tolist(), stages, strict=True)
    ]


def explain(classifier: Classifier, text: str) -> dict[str, Any]:
    """Each word's part in the log odds of each label, the pool's attention to it, and what the
    parts leave unexplained."""
    found = classifier.explain([text])[0]
    labels = classifier.labels
    many = len(found.words)
    attention = [None] * many if found.attention is None else found.attention.tolist()
    rows = zip(found.spans.tolist(), found.attributions.tolist(), attention, strict=True)
    return {
        "labels": labels,
        "words": [
            {
                "start": start,
                "end": end,
                "attributions": dict(zip(labels, parts, strict=True)),
                "attention": weight,
            }
            for (start, end), parts, weight in rows
        ],
        "gap": dict(zip(labels, found.gap.tolist(), strict=True)),
    }


def explain_cost(classifier: Classifier) -> int:
    """In labellings: the network is run forth, and back for every label, at every point of a way;
    back takes about twice as long."""
    return (STEPS + 1) * (1 + 2 * len(classifier.labels))


def warm(classifier: Classifier) -> float:
    """Compile all that answers need: every network, those of a cascade's later stages too. The
    seconds that a batch takes."""
    for group in classifier.groups:
        data = group.experiment.data
        tokens = tokenize(group.tokenizer, [WORD], data.windows)
        shape = prediction_shape(data.windows)
        list(score(group.step, group.params, tokens, shape, group.columns))
    with suppress(DataError):  # no explanations of this model: labels are given all the same
        explain(classifier, WORD)
    began = time.perf_counter()
    predict(classifier, [WORD])
    return time.perf_counter() - began
