"""stages.json: how many texts exit at each stage, what early exits lose, and what they save."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import betaincinv

from jaxclf.decisions.arrays import Thresholds
from jaxclf.decisions.calibration import apply_calibration
from jaxclf.decisions.comparison import paired
from jaxclf.decisions.members import Members
from jaxclf.decisions.metrics import macro_f1
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.cutoffs import (
    EarlyExit,
    Goal,
    OutOfFold,
    RuleMatches,
    StageOutputs,
    expected_loss,
    run_stages,
)
from jaxclf.inference.cascade.stages import Cascade
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.model_groups import ModelGroup
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import lengths, tokenize

STAGES = "stages.json"
NUM_RESAMPLES = 2000
NUM_PARTS = 5  # in which the cascade and its final stage are timed in turn
NUM_WARMUP = 8  # texts on which each is compiled before


def summarize(
    members: Mapping[str, Members],
    outputs: Mapping[str, StageOutputs],
    matches: Mapping[str, RuleMatches],
    exits: Sequence[EarlyExit],
    out_of_fold: OutOfFold,
    thresholds: Thresholds,
    goal: Goal,
) -> dict[str, Any]:
    """The content of stages.json: the share of texts that exit at each stage, the metric lost
    against the final stage alone, and how often labels of the final stage are missed.

    members, outputs, matches: by split, `val` and `test`.
    """
    labels, final_probs = members["val"].reference.labels, members["val"].probs[-1]
    final = decide(final_probs, thresholds)
    decisions = decide(run_stages(exits, members["val"].probs).probs, thresholds)
    metric = goal.config.metric
    expected, deviation = expected_loss(labels, final_probs, final, decisions, metric)
    out_of_fold_loss, _ = expected_loss(
        labels, final_probs, out_of_fold.final, out_of_fold.decisions, metric
    )
    return {
        "stages": [
            {
                "exit_rate": {
                    split: float(np.mean(part.stage == index)) for split, part in outputs.items()
                },
                "macro_f1_alone": _macro_f1_alone(members["test"], index, exits, thresholds),
            }
            for index in range(len(exits) + 1)
        ],
        "rules": {
            split: {
                "escalated": float(np.mean(part.escalate)),
                "forced": float(np.mean(part.forced.any(axis=1))),
            }
            for split, part in matches.items()
        },
        "metric_loss": {
            "expected": expected,
            "standard_deviation": deviation,
            "expected_out_of_fold": out_of_fold_loss,
            **{
                split: _measure_loss(part, outputs[split], thresholds)
                for split, part in members.items()
            },
        },
        "final_stage_labels": {
            name: {
                split: count_missed(
                    part.reference.labels[:, label],
                    decide(outputs[split].probs, thresholds)[:, label],
                    decide(part.probs[-1], thresholds)[:, label],
                )
                for split, part in members.items()
            }
            for label, name in enumerate(members["val"].names)
            if goal.is_final[label]
        },
    }


def _measure_loss(part: Members, outputs: StageOutputs, thresholds: Thresholds) -> dict[str, Any]:
    """Macro F1 of the cascade, of its final stage alone, and their difference with its interval."""
    final = part.probs[-1].astype(np.float32), decide(part.probs[-1], thresholds)
    ours = outputs.probs, decide(outputs.probs, thresholds)
    comparison = paired(part.reference.labels, ours, final, resamples=NUM_RESAMPLES, swaps=1)
    scores = comparison.metrics["macro_f1"]
    return {
        "macro_f1": scores.first,
        "final_stage_macro_f1": scores.second,
        "difference": scores.value,
        "interval": list(scores.bca),
    }


def _macro_f1_alone(
    part: Members, index: int, exits: Sequence[EarlyExit], thresholds: Thresholds
) -> float:
    probs = part.probs[index].astype(np.float32)
    if index < len(exits):
        probs = apply_calibration(exits[index].calibration, probs)
    return macro_f1(part.reference.labels, probs, decide(probs, thresholds))


def count_missed(
    truth: Float[np.ndarray, " examples"],
    decisions: Bool[np.ndarray, " examples"],
    final: Bool[np.ndarray, " examples"],
) -> dict[str, Any]:
    """How many texts with a label of the final stage lack it in the cascade.

    max_miss_rate: the upper end of the one-sided 95 % interval (Clopper and Pearson 1934).
    """
    predicted, missed = int(final.sum()), int((final & ~decisions).sum())
    is_true = truth == 1
    bound = float(betaincinv(missed + 1, predicted - missed, 0.95)) if missed < predicted else 1.0
    return {
        "predicted": predicted,
        "missed": missed,
        "max_miss_rate": bound,
        "recall": float(decisions[is_true].mean()) if is_true.any() else None,
        "final_stage_recall": float(final[is_true].mean()) if is_true.any() else None,
    }


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
        Classifier.score_texts(classifier, list(texts[:NUM_WARMUP]))  # compiles every network
        classifier.predict_proba(texts[:NUM_WARMUP])
    for part in range(NUM_PARTS):
        for name, classifier in classifiers.items():
            start = time.perf_counter()
            classifier.predict_proba(texts[part::NUM_PARTS])
            seconds[name] += time.perf_counter() - start
    return seconds
