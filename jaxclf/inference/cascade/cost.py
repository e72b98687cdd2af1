"""The cost of a cascade relative to its final stage alone: in tokens, and in time."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from jaxclf.inference.cascade.stages import Cascade
from jaxclf.inference.classifier import Classifier, ModelGroup
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import lengths, tokenize

NUM_PARTS = 5  # in which the cascade and its final stage are timed in turn
NUM_WARMUP = 8  # texts on which each is compiled before


def measure_cost(
    cascade: Cascade,
    final: Classifier,
    stage: Int[np.ndarray, " examples"],
    texts: Sequence[str] | None,
) -> dict[str, Any]:
    """The cost of a cascade as a share of its final stage's.

    stage: at which each text exits. texts: without them nothing is timed, and every text counts the
        same number of tokens.
    Returns `tokens`: the share of multiplications, each network weighted by its size and the tokens
    it reads; `time`: the share of the time on these texts; and the texts per second of both.
    """
    if texts is None:
        num_tokens, time_cost = (
            np.ones(len(stage), np.int64),
            {"time": None, "texts_per_second": None},
        )
    else:
        windows = cascade.experiment.data.windows
        num_tokens = lengths(tokenize(cascade.tokenizer, list(texts), windows))
        seconds = _time(cascade, final, texts)
        time_cost = {
            "time": seconds["cascade"] / seconds["final_stage"],
            "texts_per_second": {name: len(texts) / value for name, value in seconds.items()},
        }
    sizes = np.array([sum(map(_size, groups)) for groups in cascade.new_groups], np.float64)
    return {
        "tokens": count_cost(stage, num_tokens, sizes, sum(map(_size, final.groups))),
        **time_cost,
    }


def count_cost(
    stage: Int[np.ndarray, " examples"],
    num_tokens: Int[np.ndarray, " examples"],
    sizes: Float64[np.ndarray, " stages"],
    final_size: float,
) -> float:
    """The multiplications of a cascade as a share of its final stage's.

    sizes: multiplications for a token of the networks that are new at each stage. final_size: of
        all networks of the final stage.
    """
    total = sum(size * num_tokens[stage >= index].sum() for index, size in enumerate(sizes))
    return float(total / (final_size * num_tokens.sum()))


def _size(group: ModelGroup) -> float:
    """Multiplications for a token: all parameters except the embeddings, which are looked up."""
    leaves = flatten_params(group.params).items()
    return float(sum(leaf.size for path, leaf in leaves if "embeddings" not in path))


def _time(cascade: Cascade, final: Classifier, texts: Sequence[str]) -> dict[str, float]:
    """Seconds that each takes for the texts, in turn on parts of them."""
    classifiers = {"cascade": cascade, "final_stage": final}
    seconds = dict.fromkeys(classifiers, 0.0)
    for classifier in classifiers.values():
        Classifier.predict_proba(classifier, texts[:NUM_WARMUP])  # compiles every network
        classifier.predict_proba(texts[:NUM_WARMUP])
    for part in range(NUM_PARTS):
        for name, classifier in classifiers.items():
            start = time.perf_counter()
            classifier.predict_proba(texts[part::NUM_PARTS])
            seconds[name] += time.perf_counter() - start
    return seconds
