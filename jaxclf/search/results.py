"""The result of a trial, and the best of several."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class TrialResult(NamedTuple):
    """What a finished trial reached."""

    number: int
    state: str  # done, pruned, failed
    score: float | None  # on validation; None unless done
    epochs: list[float]  # the score after each epoch
    changes: dict[str, Any]  # to the experiment, by dotted key
    error: str  # why the trial failed
    seconds: float


def find_best(results: Sequence[TrialResult]) -> TrialResult | None:
    """The first of the results with the best score; None if no trial is done."""
    done = [result for result in results if result.score is not None]
    return max(done, key=lambda result: result.score or 0.0) if done else None


def initial_score(results: Sequence[TrialResult]) -> float | None:
    """The score of the experiment itself, which is trial 0; None if that trial is not done."""
    return next((result.score for result in results if result.number == 0), None)
