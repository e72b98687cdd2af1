"""Which words carried a decision: integrated gradients and attention, word by word."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32
from scipy.special import expit, log_expit
from tokenizers import Tokenizer

from jaxclf.decisions.calibration import CURVES, Calibration
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data
from jaxclf.model.attribution import PathGradients, SlopesStep, path_gradients
from jaxclf.text.tokenizer.word_spans import TokenSpans, tokenize_with_spans, words_of
from jaxclf.types import Shape

MASKS = ("[MASK]", "<mask>")
STEPS, MOST_STEPS = 16, 256  # of the way from the blank text to the text
WITHIN = 0.01  # of a label's change, or log odds: a gap that is small enough
CHUNK = 16  # texts at a time, so that memory stays flat
NUDGE = 1e-4  # of a logit, for the slope of a calibration's curve
LEAST = 1e-300  # a member's weight, so that it has a logarithm
NAMED, FAINT = 5, 0.05  # words named on each side; of the strongest, what is too weak to be named


class Explanation(NamedTuple):
    """What each word of a text adds to the log odds of each label.

    words, spans: runs of letters and digits, or of other signs, in order, and from which character
        of the text to which; those beyond the last window, which are not read, are not among them.
    attributions: natural logarithms of odds. Over the words they sum to log_odds - blank - gap.
    attention: the pool's weight of each word, of several members their weighted mean. What lacks to
        1 lies on the special tokens. None where a pool is not attention.
    log_odds, blank: of the probabilities that `predict_proba` gives, calibrated and blended: those
        of the text, and those of the text with each of its tokens masked.
    gap: the error of the sum; at most 1 % of the change or 0.01, whichever is more, unless 256
        steps were not enough.
    steps: into which the way from the blank text was divided.
    """

    words: tuple[str, ...]
    spans: Int[np.ndarray, "words 2"]
    attributions: Float[np.ndarray, "words classes"]
    attention: Float[np.ndarray, " words"] | None
    log_odds: Float[np.ndarray, " classes"]
    blank: Float[np.ndarray, " classes"]
    gap: Float[np.ndarray, " classes"]
    steps: int


class Source(NamedTuple):
    """Networks of one architecture, which read the same tokens: what `walk` takes."""

    tokenizer: Tokenizer
    data: Data
    shape: Shape
    params: dict[str, Any]
    step: SlopesStep


class Sum(NamedTuple):
    """What the points so far say of one text. Tokens are those of all sources, one source's after
    another's."""

    tokens: Float[np.ndarray, "tokens classes"]
    attention: Float[np.ndarray, " tokens"] | None
    log_odds: Float[np.ndarray, " classes"]
    blank: Float[np.ndarray, " classes"]
    steps: int


def explain(
    texts: list[str],
    sources: Sequence[Source],
    calibrations: Sequence[Calibration],
    weights: Float[np.ndarray, "members classes"],
) -> list[Explanation]:
    """Integrated gradients of every label's log odds by the tokens' embeddings (Sundararajan et al.
    2017, arXiv 1703.01365), on the straight way from the text with each of its tokens masked.

    The way begins at masks because pretraining made those stand for a word that is not known
    (Enguehard 2023, arXiv 2305.15853); padding or zeros name words that are as telling, in more
    steps. It is summed by the trapezoid rule, in steps halved until the gap is small: slopes are
    nearly flat at both ends and steep between, where this rule needs two thirds of the points of
    Gauss's, and none of them twice.

    calibrations, weights: of the sources' members, in order.
    Raises DataError where a tokenizer has no mask.
    """
    return [
        one
        for first in range(0, len(texts), CHUNK)
        for one in _explain(texts[first : first + CHUNK], sources, calibrations, weights)
    ]


def _explain(
    texts: list[str],
    sources: Sequence[Source],
    calibrations: Sequence[Calibration],
    weights: Float[np.ndarray, "members classes"],
) -> list[Explanation]:
    cut = [tokenize_with_spans(one.tokenizer, texts, one.data.windows) for one in sources]
    blanks = [_blanks(one.tokenizer, pieces) for one, pieces in zip(sources, cut, strict=True)]
    sums: dict[int, Sum] = {}
    todo, steps, points = list(range(len(texts))), STEPS, np.linspace(0, 1, STEPS + 1)
    while todo:
        walks = [
            path_gradients(one.step, one.params, pieces.tokens, blank, todo, points, one.shape)
            for one, pieces, blank in zip(sources, cut, blanks, strict=True)
        ]
        for text, *parts in zip(todo, *walks, strict=True):
            sums[text] = _add(sums.get(text), parts, calibrations, weights, steps)
        steps *= 2
        points = np.arange(1, steps, 2) / steps
        todo = [text for text in todo if steps <= MOST_STEPS and not _is_small(sums[text])]
    return [_by_word(text, index, cut, sums[index]) for index, text in enumerate(texts)]


def _blanks(tokenizer: Tokenizer, pieces: TokenSpans) -> Int32[np.ndarray, " tokens"]:
    """Masks for a text's own tokens; the special ones around them stay."""
    masks = [tokenizer.token_to_id(name) for name in MASKS]
    mask = next((one for one in masks if one is not None), None)
    if mask is None:
        raise DataError(f"the tokenizer has no {' or '.join(MASKS)}, which explanations start from")
    return np.where(pieces.own, np.int32(mask), pieces.tokens.ids)


def _add(
    before: Sum | None,
    walks: Sequence[PathGradients],
    calibrations: Sequence[Calibration],
    weights: Float[np.ndarray, "members classes"],
    steps: int,
) -> Sum:
    """The sum with the points between those before, which then count half as much."""
    logits = np.concatenate([one.logits for one in walks], axis=1)
    odds, rates = log_odds(logits, calibrations, weights)
    share = np.full(len(odds), 1 / steps)
    if before is None:
        share[[0, -1]] /= 2
    edges = np.cumsum([one.logits.shape[1] for one in walks])[:-1]
    each = zip(walks, np.split(rates, edges, axis=1), strict=True)
    found = [np.einsum("p,ptmc,pmc->tc", share, one.slopes, rate) for one, rate in each]
    tokens = np.concatenate(found)
    if before is not None:
        return before._replace(tokens=before.tokens / 2 + tokens, steps=steps)
    return Sum(tokens, _attention(walks, np.split(weights, edges)), odds[-1], odds[0], steps)


def _gap(found: Sum) -> Float[np.ndarray, " classes"]:
    return found.log_odds - found.blank - found.tokens.sum(axis=0)


def _is_small(found: Sum) -> bool:
    change = np.abs(found.log_odds - found.blank)
    return bool((np.abs(_gap(found)) <= WITHIN * np.maximum(change, 1)).all())


def _attention(
    walks: Sequence[PathGradients], weights: Sequence[Float[np.ndarray, "_ classes"]]
) -> Float[np.ndarray, " tokens"] | None:
    """Each member's softmax over the text, times the member's weight."""
    parts = []
    for one, share in zip(walks, weights, strict=True):
        if one.scores is None:
            return None
        scores = one.scores[-1].astype(np.float64)
        weight = np.exp(scores - scores.max(axis=0, initial=-np.inf))
        parts.append(weight / weight.sum(axis=0) @ share.mean(axis=1))
    return np.concatenate(parts)


def log_odds(
    logits: Float[np.ndarray, "points members classes"],
    calibrations: Sequence[Calibration],
    weights: Float[np.ndarray, "members classes"],
) -> tuple[
    Float[np.ndarray, "points classes"],
    Float[np.ndarray, "points members classes"],
]:
    """Of the members' calibrated probabilities blended, and their derivative by each logit."""

    def curved(at: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                np.stack(
                    [
                        CURVES[member.kind](at[:, index, label], **curve)
                        for label, curve in enumerate(member.curves)
                    ],
                    axis=1,
                )
                for index, member in enumerate(calibrations)
            ],
            axis=1,
        )

    at = logits.astype(np.float64)
    z, rise = curved(at), (curved(at + NUDGE) - curved(at - NUDGE)) / (2 * NUDGE)
    share = np.log(np.maximum(weights, LEAST))
    yes = np.logaddexp.reduce(share + log_expit(z), axis=1, keepdims=True)
    no = np.logaddexp.reduce(share + log_expit(-z), axis=1, keepdims=True)
    return (yes - no)[:, 0], np.exp(share + log_expit(z) + log_expit(-z) - yes - no) * rise


def _by_word(text: str, index: int, cut: Sequence[TokenSpans], found: Sum) -> Explanation:
    of_text = [
        np.repeat(one.tokens.example_index == index, np.diff(one.tokens.starts)) for one in cut
    ]
    pairs = list(zip(cut, of_text, strict=True))
    own = np.concatenate([one.own[there] for one, there in pairs])
    spans, of = words_of(text, np.concatenate([one.spans[there] for one, there in pairs])[own])

    def summed(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(spans), *values.shape[1:]))
        np.add.at(total, of, values[own])
        return total

    return Explanation(
        tuple(text[start:end] for start, end in spans),
        spans,
        summed(found.tokens),
        None if found.attention is None else summed(found.attention),
        found.log_odds,
        found.blank,
        _gap(found),
        found.steps,
    )


def in_words(explanation: Explanation, labels: Sequence[str], shown: Sequence[str]) -> str:
    """For a reader at a terminal: the strongest words for and against each label shown.

    labels: in the order of the columns. shown: those to speak of, such as the labels given.
    """
    lines = []
    for label in shown:
        column = labels.index(label)
        ends = (explanation.log_odds[column], explanation.blank[column])
        lines.append("{}  {:.3f}, all words masked {:.3f}".format(label, *map(expit, ends)))
        parts = explanation.attributions[:, column]
        order = np.argsort(-np.abs(parts), kind="stable")
        for side, sign in (("for", 1), ("against", -1)):
            named = [
                f"{explanation.words[place]} {parts[place]:+.2f}"
                for place in order
                if sign * parts[place] > FAINT * np.abs(parts).max()
            ]
            if named:
                lines.append(f"  {side:<7}  {'  '.join(named[:NAMED])}")
    return "\n".join(lines)
