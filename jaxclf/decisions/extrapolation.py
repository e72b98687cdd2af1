"""A score as a function of the number of training rows, and its value for more rows.

The curve is the inverse power law `a - b n^-c` (Cortes et al. 1993, "Learning curves: asymptotic
values and rate of convergence"; Figueroa et al. 2012, "Predicting sample size required for
classification performance"). It is written as `score + slope * (1 - x^-c) / c`, where x is n
divided by the largest number of rows, so it passes through the score of all rows. At c = 0 it is
the logarithmic curve `score + slope * log x`, which two sizes of data determine. At c = 1 the rest
shrinks like 1 / n, the fastest rate of a model with a fixed number of parameters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import boxcox

from jaxclf.decisions.intervals import percentile

# Below 0 a curve bends upwards. A little of it keeps the fit of a logarithmic curve nearly
# unbiased; more of it would extrapolate chance to a score of 1.
EXPONENTS = np.linspace(-0.1, 1, 221)
TIMES = (2, 4)  # multiples of all rows at which the curve is extrapolated


class PowerLaw(NamedTuple):
    """Curves through the scores of all rows; an entry for each curve."""

    slope: Float[np.ndarray, " curves"]  # of the score by log n, at all rows
    exponent: Float[np.ndarray, " curves"]

    def gain(self, times: int | Float[np.ndarray, " curves"]) -> Float[np.ndarray, " curves"]:
        """The score of `times` as many rows minus that of all rows."""
        return self.slope * boxcox(times, -self.exponent)


class Forecast(NamedTuple):
    """The score expected of `times` as many rows; the gain is its difference to that of all."""

    times: int
    score: float
    interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]


class LearningCurve(NamedTuple):
    """The score of each number of rows with its 95 % interval, and what the fit expects of more."""

    scores: list[float]
    intervals: list[tuple[float, float]]
    slope: float
    exponent: float
    forecasts: list[Forecast]


def fit_power_law(rows: Sequence[int], scores: Float[np.ndarray, "sizes curves"]) -> PowerLaw:
    """The curves of least squares, with one of EXPONENTS.

    rows: ascending, two at least; with two the exponent is 0.
    """
    fractions = np.asarray(rows[:-1], np.float64) / rows[-1]
    exponents = EXPONENTS if len(rows) > 2 else np.zeros(1)
    shapes = boxcox(fractions[None], -exponents[:, None])  # [exponents, sizes - 1]
    norms = np.sum(shapes**2, axis=1)
    products = shapes @ (scores[:-1] - scores[-1])
    # The squared error is that of a flat curve minus product^2 / norm.
    best = np.argmax(products**2 / norms[:, None], axis=0)
    columns = np.arange(scores.shape[1])
    return PowerLaw(products[best, columns] / norms[best], exponents[best])


def extrapolate(
    rows: Sequence[int],
    scores: Float[np.ndarray, " sizes"],
    replicates: Float[np.ndarray, "sizes resamples"],
    highest: float = np.inf,
) -> LearningCurve:
    """Fit a learning curve and extrapolate it to the multiples in TIMES.

    rows: training rows of each run, ascending.
    replicates: the scores on resampled examples, the same examples for all runs in a column. A
        curve is fitted to each column, which gives the intervals. They are centered on the scores,
        because the mean of resampled macro F1 is biased where labels are rare.
    highest: the highest possible score; the lowest is 0.
    """
    known = replicates[:, ~np.isnan(replicates).any(axis=0)]
    centered = known + (scores - known.mean(axis=1))[:, None]
    columns = np.column_stack([scores, centered])
    fits = fit_power_law(rows, columns)
    forecasts = []
    for times in TIMES:
        expected = np.clip(columns[-1] + fits.gain(times), 0, highest)
        gains = expected - columns[-1]
        (score, *draws), (gain, *gain_draws) = expected.tolist(), gains.tolist()
        interval, gain_interval = (percentile(np.array(part)) for part in (draws, gain_draws))
        forecasts.append(Forecast(times, score, interval, gain, gain_interval))
    intervals = [percentile(np.clip(row, 0, highest)) for row in centered]
    slope, exponent = float(fits.slope[0]), float(fits.exponent[0])
    return LearningCurve(scores.tolist(), intervals, slope, exponent, forecasts)
