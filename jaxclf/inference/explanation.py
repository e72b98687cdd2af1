"""Explanations: integrated gradients and attention, summed over the tokens of each word."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32
from scipy.special import log_expit
from tokenizers import Tokenizer

from jaxclf.decisions.calibration import Calibration
from jaxclf.decisions.calibration_curves import CURVES, NUMPY
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data
from jaxclf.model.attribution import PathGradients, SlopesStep, path_gradients
from jaxclf.text.tokenizer.word_spans import TokenSpans, tokenize_with_spans, words_of
from jaxclf.types import Shape

MASKS = ("[MASK]", "<mask>")
MIN_STEPS, MAX_STEPS = 16, 256  # of the path from the baseline to the text
TOLERANCE = 0.01  # of the convergence delta, relative to a label's change
CHUNK_SIZE = 16  # texts at a time, so that memory stays bounded
EPSILON = 1e-4  # of a logit, for the numerical slope of a calibration curve
MIN_WEIGHT = 1e-300  # of a member, so that its logarithm is finite


Weights = Float[np.ndarray, "members classes"]
PerLabel = Float[np.ndarray, " classes"]
PerMember = Float[np.ndarray, "points members classes"]


class Explanation(NamedTuple):
    """How much each word of a text adds to the log odds of each label.

    words, spans: the words that were read, with their character offsets. Text beyond the last
        window is not included.
    attributions: natural log odds. Their sum over the words is
        log_odds - baseline - convergence_delta.
    attention: the pooling weight of each word, averaged over members. Special tokens have the rest
        of the total of 1. None if a pool is not attention.
    log_odds: of the probabilities that `predict_proba` returns. baseline: of the same text with all
        tokens masked.
    convergence_delta: the error of the sum, at most 0.01 or 1 % of the change, whichever is more,
        unless 256 steps do not suffice.
    steps: into which the path is divided.
    """

    words: tuple[str, ...]
    spans: Int[np.ndarray, "words 2"]
    attributions: Float[np.ndarray, "words classes"]
    attention: Float[np.ndarray, " words"] | None
    log_odds: PerLabel
    baseline: PerLabel
    convergence_delta: PerLabel
    steps: int


class Source(NamedTuple):
    """Networks of one architecture and tokenizer: the arguments of `path_gradients`."""

    tokenizer: Tokenizer
    data: Data
    shape: Shape
    params: dict[str, Any]
    step: SlopesStep


class _PathSum(NamedTuple):
    """The integral of one text so far. Tokens of all sources are concatenated."""

    tokens: Float[np.ndarray, "tokens classes"]
    attention: Float[np.ndarray, " tokens"] | None
    log_odds: PerLabel
    baseline: PerLabel
    steps: int

    def convergence_delta(self) -> PerLabel:
        return self.log_odds - self.baseline - self.tokens.sum(axis=0)

    def has_converged(self) -> bool:
        change = np.abs(self.log_odds - self.baseline)
        delta = np.abs(self.convergence_delta())
        return bool((delta <= TOLERANCE * np.maximum(change, 1)).all())


def explain(
    texts: list[str],
    sources: Sequence[Source],
    calibrations: Sequence[Calibration],
    weights: Weights,
) -> list[Explanation]:
    """Integrated gradients of every label's log odds with respect to the token embeddings
    (Sundararajan et al. 2017, arXiv 1703.01365), along the straight path from the masked text.

    Masks are the baseline because in pretraining they stand for unknown words (Enguehard 2023,
    arXiv 2305.15853). The integral is a trapezoid sum whose step is halved until it converges: the
    gradient is nearly flat at both ends of the path, which suits this rule, and it evaluates no
    point twice.

    calibrations, weights: of the sources' members, in order.
    Raises DataError if a tokenizer has no mask token.
    """
    explanations = []
    for start in range(0, len(texts), CHUNK_SIZE):
        chunk = texts[start : start + CHUNK_SIZE]
        spans = [tokenize_with_spans(part.tokenizer, chunk, part.data.windows) for part in sources]
        inputs = [
            (source, part.tokens, _mask_tokens(source.tokenizer, part))
            for source, part in zip(sources, spans, strict=True)
        ]
        sums: dict[int, _PathSum] = {}
        open_texts, steps = list(range(len(chunk))), MIN_STEPS
        points = np.linspace(0, 1, MIN_STEPS + 1)
        while open_texts:
            by_source = [
                path_gradients(
                    source.step, source.params, tokens, baseline, open_texts, points, source.shape
                )
                for source, tokens, baseline in inputs
            ]
            for text, *gradients in zip(open_texts, *by_source, strict=True):
                sums[text] = _add_points(sums.get(text), gradients, calibrations, weights, steps)
            steps *= 2
            points = np.arange(1, steps, 2) / steps
            open_texts = [
                text for text in open_texts if steps <= MAX_STEPS and not sums[text].has_converged()
            ]
        explanations += [_sum_by_word(chunk[text], text, spans, sums[text]) for text in sums]
    return explanations


def _mask_tokens(tokenizer: Tokenizer, spans: TokenSpans) -> Int32[np.ndarray, " tokens"]:
    """The ids of the baseline: masks for the tokens of the text, special tokens unchanged."""
    for name in MASKS:
        if (mask := tokenizer.token_to_id(name)) is not None:
            return np.where(spans.is_text, np.int32(mask), spans.tokens.ids)
    raise DataError(f"the tokenizer has no {' or '.join(MASKS)}, which explanations start from")


def _add_points(
    path_sum: _PathSum | None,
    gradients: Sequence[PathGradients],
    calibrations: Sequence[Calibration],
    weights: Weights,
    steps: int,
) -> _PathSum:
    """Add the points halfway between those of `path_sum`, whose weights are halved."""
    logits = np.concatenate([gradient.logits for gradient in gradients], axis=1)
    odds, derivatives = log_odds(logits, calibrations, weights)
    point_weights = np.full(len(odds), 1 / steps)
    if path_sum is None:
        point_weights[[0, -1]] /= 2
    edges = np.cumsum([gradient.logits.shape[1] for gradient in gradients])[:-1]
    pairs = zip(gradients, np.split(derivatives, edges, axis=1), strict=True)
    tokens = np.concatenate(
        [np.einsum("p,ptmc,pmc->tc", point_weights, part.slopes, slope) for part, slope in pairs]
    )
    if path_sum is not None:
        return path_sum._replace(tokens=path_sum.tokens / 2 + tokens, steps=steps)
    attention = _attention(gradients, np.split(weights, edges))
    return _PathSum(tokens, attention, odds[-1], odds[0], steps)


def _attention(
    gradients: Sequence[PathGradients], weights: Sequence[Float[np.ndarray, "_ classes"]]
) -> Float[np.ndarray, " tokens"] | None:
    """Each member's softmax over the text, weighted by the member."""
    parts = []
    for gradient, member_weights in zip(gradients, weights, strict=True):
        if gradient.scores is None:
            return None
        scores = gradient.scores[-1].astype(np.float64)
        exponentials = np.exp(scores - scores.max(axis=0, initial=-np.inf))
        parts.append(exponentials / exponentials.sum(axis=0) @ member_weights.mean(axis=1))
    return np.concatenate(parts)


def log_odds(
    logits: PerMember, calibrations: Sequence[Calibration], weights: Weights
) -> tuple[Float[np.ndarray, "points classes"], PerMember]:
    """Log odds of the members' calibrated and blended probabilities, and their derivative with
    respect to each logit."""

    def calibrate(z: PerMember) -> PerMember:
        members = []
        for index, calibration in enumerate(calibrations):
            curve, columns = CURVES[calibration.kind], z[:, index].T
            pairs = zip(columns, calibration.curves, strict=True)
            members.append(
                np.stack([curve(NUMPY, column, **params) for column, params in pairs], 1)
            )
        return np.stack(members, axis=1)

    raw = logits.astype(np.float64)
    z, slope = calibrate(raw), (calibrate(raw + EPSILON) - calibrate(raw - EPSILON)) / (2 * EPSILON)
    log_weights = np.log(np.maximum(weights, MIN_WEIGHT))
    log_p = np.logaddexp.reduce(log_weights + log_expit(z), axis=1, keepdims=True)
    log_q = np.logaddexp.reduce(log_weights + log_expit(-z), axis=1, keepdims=True)
    shares = np.exp(log_weights + log_expit(z) + log_expit(-z) - log_p - log_q)
    return (log_p - log_q)[:, 0], shares * slope


def _sum_by_word(
    text: str, index: int, spans: Sequence[TokenSpans], path_sum: _PathSum
) -> Explanation:
    is_of_text = [
        np.repeat(part.tokens.example_index == index, np.diff(part.tokens.starts)) for part in spans
    ]
    pairs = list(zip(spans, is_of_text, strict=True))
    is_own = np.concatenate([part.is_text[mask] for part, mask in pairs])
    token_spans = np.concatenate([part.spans[mask] for part, mask in pairs])[is_own]
    word_spans, word_index = words_of(text, token_spans)

    def sum_words(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(word_spans), *values.shape[1:]))
        np.add.at(total, word_index, values[is_own])
        return total

    return Explanation(
        tuple(text[start:end] for start, end in word_spans),
        word_spans,
        sum_words(path_sum.tokens),
        None if path_sum.attention is None else sum_words(path_sum.attention),
        path_sum.log_odds,
        path_sum.baseline,
        path_sum.convergence_delta(),
        path_sum.steps,
    )
