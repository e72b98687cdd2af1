"""Simulated decisions with a known truth: few or many labels, as frequent as those of GoEmotions or
falling by a power law.

Each label's score is normal, with a higher mean for positives, as in `goemotions_like.py`.
"""

from typing import NamedTuple

import numpy as np
from goemotions_like import SHARE
from scipy.special import logit
from scipy.stats import norm

SEPARATION = {"good": (1.4, 3.0), "poor": (0.3, 1.5)}  # of the means, in standard deviations


class Problem(NamedTuple):
    """Per label: its frequency, the shares of positives and negatives that are predicted, its F1 in
    the population."""

    share: np.ndarray
    recall: np.ndarray
    false_alarms: np.ndarray
    f1: np.ndarray


def make_problem(classes: int, scorer: str, rule: str, seed: int = 0) -> Problem:
    """7 and 28 labels are as frequent as those of GoEmotions; more have a power law, 1.5 labels a
    text.

    rule: `half` has thresholds of 0.5, `best` those of highest F1, on exact posteriors.
    """
    if classes <= len(SHARE):
        share = np.sort(SHARE)[:: len(SHARE) // classes]
    else:
        share = 1.5 / np.arange(1, classes + 1) / np.sum(1 / np.arange(1, classes + 1))
    distance = np.random.default_rng(seed).uniform(*SEPARATION[scorer], classes)
    grid = [0.5] if rule == "half" else np.geomspace(1e-3, 0.95, 400)
    rates = []
    for threshold in grid:
        score = (logit(threshold) - logit(share) + distance**2 / 2) / distance
        recall, false_alarms = norm.sf(score - distance), norm.sf(score)
        f1 = 2 * share * recall / (share * recall + (1 - share) * false_alarms + share)
        rates.append((recall, false_alarms, f1))
    recall, false_alarms, f1 = np.moveaxis(np.array(rates), 1, 0)
    best = f1.argmax(axis=0), np.arange(classes)
    return Problem(share, recall[best], false_alarms[best], f1[best])


def draw_decisions(problem: Problem, rows: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """(labels, decided), each [rows, classes]."""
    rng = np.random.default_rng(seed)
    positive = rng.random((rows, len(problem.share)), np.float32) < problem.share
    chance = np.where(positive, problem.recall, problem.false_alarms)
    return positive.astype(np.float32), rng.random(positive.shape, np.float32) < chance
