"""Explanations: the words' attributions sum to the log odds, and the words are the text's own."""

import jax
import numpy as np
import pytest
from scipy.special import logit, softmax
from tiny_models import LABELS, make_ensemble, make_model, make_tokenizer

import jaxclf
from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, apply_calibration
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import (
    MAX_STEPS,
    MIN_STEPS,
    TOLERANCE,
    Explanation,
    Source,
    explain,
    log_odds,
)
from jaxclf.inference.text_output import format_explanations, format_predictions, format_words
from jaxclf.model.attribution import TokenGradients
from jaxclf.text.tokenizer.tokenize import load_tokenizer
from jaxclf.types import Shape

PLATT = Calibration("platt", tuple({"slope": s, "intercept": 0.3} for s in (0.5, 1.0, 2.0)))
WEIGHTS = np.array([[0.5, 0.2, 1.0], [0.3, 0.0, 0.0], [0.2, 0.8, 0.0]])
TEXTS = [
    "I can't sleep",
    "ok",
    "Caf\u00e9 at 3am, 😂 why? Nobody knows",
    "everything is due tomorrow and I have not slept " * 6,  # more than three windows
]


@pytest.fixture(scope="module")
def ensemble(tiny_encoder, tmp_path_factory):
    """One network that pools by attention, and two of one architecture that pool by the mean."""
    folder = tmp_path_factory.mktemp("ensemble")
    models = [
        make_model(folder / "first", tiny_encoder, calibration=PLATT),
        make_model(folder / "second", tiny_encoder, pool="mean", seed=1),
        make_model(folder / "third", tiny_encoder, pool="mean", seed=2, calibration=PLATT),
    ]
    return jaxclf.load(make_ensemble(folder / "blend", models, WEIGHTS))


def with_weights(ensemble, weights):
    """The same compiled networks with other weights."""
    thresholds = {name: {"value": 0.5} for name in LABELS}
    return Classifier(
        LABELS, thresholds, ensemble.provenance, ensemble.groups, ensemble.calibrations, weights
    )


@pytest.fixture(scope="module")
def single(ensemble):
    """The first network alone."""
    return with_weights(ensemble, np.array([[1.0] * 3, [0.0] * 3, [0.0] * 3]))


@pytest.fixture(scope="module")
def explanations(single):
    return single.explain(TEXTS)


def assert_complete(explanation):
    """The attributions sum to the change of the log odds, up to a small convergence delta."""
    change = explanation.log_odds - explanation.baseline
    total = explanation.attributions.sum(axis=0) + explanation.convergence_delta
    np.testing.assert_allclose(total, change, atol=1e-9)
    delta = np.abs(explanation.convergence_delta)
    assert (delta <= TOLERANCE * np.maximum(np.abs(change), 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["single", "ensemble"])
def test_attributions_sum_to_the_log_odds_of_the_predicted_probabilities(which, request):
    classifier = request.getfixturevalue(which)
    lengths = [len(classifier.tokenizer.encode(text).ids) - 2 for text in TEXTS[:3]]
    masked = [" ".join(["[MASK]"] * length) for length in lengths]
    baselines, probs = logit(classifier.predict_proba(masked)), classifier.predict_proba(TEXTS)
    changes = []
    for index, explanation in enumerate(classifier.explain(TEXTS)):
        assert_complete(explanation)
        changes.append(np.abs(explanation.log_odds - explanation.baseline).max())
        # float32 networks in batches of another shape, through a logit
        np.testing.assert_allclose(explanation.log_odds, logit(probs[index]), atol=1e-4)
        if index < 3:  # masks of a long text fall into other windows
            np.testing.assert_allclose(explanation.baseline, baselines[index], atol=1e-4)
    assert max(changes) > 0.1
    for group in classifier.groups[: 1 if which == "single" else 2]:
        assert group.slopes._cache_size() == 1


def test_words_are_spans_of_the_text_that_was_read(explanations):
    assert explanations[0].words == ("I", "can't", "sleep")
    assert explanations[2].words[:4] == ("Caf\u00e9", "at", "3am", ",")
    for text, explanation in zip(TEXTS, explanations, strict=True):
        assert explanation.words == tuple(text[start:end] for start, end in explanation.spans)
        assert explanation.attributions.shape == (len(explanation.words), 3)
    long = explanations[3]
    assert long.words == tuple(TEXTS[3].split())[: len(long.words)]
    assert 10 < len(long.words) < len(TEXTS[3].split())  # text beyond the last window is not read


def test_an_explanation_does_not_depend_on_the_texts_beside_it(single, explanations):
    for text, explanation in zip(TEXTS, explanations, strict=True):
        (alone,) = single.explain([text])
        assert (alone.words, alone.steps) == (explanation.words, explanation.steps)
        np.testing.assert_allclose(alone.attributions, explanation.attributions, atol=1e-5)
        np.testing.assert_allclose(alone.attention, explanation.attention, atol=1e-6)


def test_attention_is_the_pooling_weight_of_each_word(single, explanations):
    for explanation in explanations:
        assert explanation.attention.min() > 0
        assert explanation.attention.sum() < 1
    assert np.ptp(explanations[0].attention) > 0.01
    # Without scores all tokens weigh the same; the two special tokens have the rest.
    group = single.groups[0]
    pool = {
        **group.params["pool"],
        "score": jax.tree.map(np.zeros_like, group.params["pool"]["score"]),
    }
    uniform = with_weights(single, single.weights)
    uniform.groups = [group._replace(params={**group.params, "pool": pool}), *single.groups[1:]]
    for text, explanation in zip(TEXTS[:2], uniform.explain(TEXTS[:2]), strict=True):
        length = len(single.tokenizer.encode(text).ids)
        np.testing.assert_allclose(explanation.attention.sum(), (length - 2) / length, atol=1e-6)
    assert np.ptp(uniform.explain(["ok ok"])[0].attention) < 1e-7


@pytest.mark.slow
def test_an_ensemble_with_another_pool_has_no_attention(ensemble):
    assert ensemble.explain(TEXTS[:1])[0].attention is None


def toy_step(value, derivative, shares_seen=None):
    """A network in numpy: the logits of a slot are value(the sum of its tokens' rows, each times
    its share), where a token's row is its embedding minus that of the baseline."""

    def step(params, batch, baselines, shares):
        rows = params["rows"]
        change = rows[batch.ids] - rows[baselines]
        slots = len(batch.weight)
        total = np.zeros((slots + 1, rows.shape[1]), np.float32)
        np.add.at(total, batch.examples, change * shares[..., None])
        logits = value(total[:slots])[None]
        is_token = batch.segments > 0
        if shares_seen is not None:
            shares_seen.extend(np.unique(shares[is_token]).tolist())
        slopes = (derivative(total)[batch.examples] * change * is_token[..., None])[None]
        scores = (batch.ids * shares)[None] / 100
        return TokenGradients(*(np.asarray(part, np.float32) for part in (logits, slopes, scores)))

    return step


LINEAR = toy_step(lambda total: total, np.ones_like)
DATA = Data("", "", "", max_length=16, max_windows=3, window_overlap=4)
IDENTITY = Calibration("none", ({}, {}))


def make_source(tiny_encoder, step):
    tokenizer = make_tokenizer(tiny_encoder)
    rows = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    return Source(tokenizer, DATA, Shape(5, 16, 9), {"rows": rows}, step), rows


def explain_toy(source, texts):
    return explain(texts, [source], [IDENTITY], np.ones((1, 2)))


def tokens_of(tokenizer, text):
    """(id, offsets, whether it is special) of each token of the first three windows."""
    tokenizer.enable_truncation(16, stride=4)
    encoding = tokenizer.encode(text)
    for window in [encoding, *encoding.overflowing][:3]:
        yield from zip(window.ids, window.offsets, window.special_tokens_mask, strict=True)


def test_a_linear_network_attributes_exactly_its_weights(tiny_encoder):
    """A token that two overlapping windows share counts twice."""
    source, rows = make_source(tiny_encoder, LINEAR)
    mask = source.tokenizer.token_to_id("[MASK]")
    for text, explanation in zip(TEXTS, explain_toy(source, TEXTS), strict=True):
        expected, scores = np.zeros((len(text), 2)), []
        for token, (start, _), special in tokens_of(source.tokenizer, text):
            scores.append((token / 100, -1 if special else start))
            if not special:
                expected[start] += rows[token] - rows[mask]
        weights = softmax([score for score, _ in scores])
        for index, (start, end) in enumerate(explanation.spans):
            # float32 sums of about ten numbers
            of_word = expected[start:end].sum(axis=0)
            np.testing.assert_allclose(explanation.attributions[index], of_word, atol=1e-5)
            is_inside = [start <= offset < end for _, offset in scores]
            attention = weights[is_inside].sum()
            np.testing.assert_allclose(explanation.attention[index], attention, atol=1e-6)
        np.testing.assert_allclose(explanation.log_odds, expected.sum(axis=0), atol=1e-4)
        np.testing.assert_allclose(explanation.baseline, 0, atol=1e-6)
        assert explanation.steps == MIN_STEPS


def test_steps_are_halved_until_convergence_and_no_point_is_evaluated_twice(tiny_encoder):
    shares = []
    step = toy_step(lambda total: total**9, lambda total: 9 * total**8, shares)
    source, _ = make_source(tiny_encoder, step)
    (explanation,) = explain_toy(source, ["why can't I sleep"])
    assert MIN_STEPS < explanation.steps <= MAX_STEPS
    points = np.linspace(0, 1, explanation.steps + 1)
    np.testing.assert_allclose(sorted(shares), points, atol=1e-7)
    assert_complete(explanation)
    # All words change in proportion along the path, so each has its share of the total.
    linear, _ = make_source(tiny_encoder, LINEAR)
    (expected,) = explain_toy(linear, ["why can't I sleep"])
    proportions = expected.attributions / expected.attributions.sum(axis=0)
    total = explanation.log_odds - explanation.baseline - explanation.convergence_delta
    np.testing.assert_allclose(explanation.attributions, proportions * total, rtol=1e-4)


def test_a_remaining_convergence_delta_is_reported(tiny_encoder):
    jump = toy_step(lambda total: np.where(np.abs(total) > 1e-3, 7.0, 0.0), np.zeros_like)
    source, _ = make_source(tiny_encoder, jump)
    (explanation,) = explain_toy(source, ["ok"])
    assert explanation.steps == MAX_STEPS
    np.testing.assert_allclose(explanation.convergence_delta, 7, atol=1e-6)
    assert not explanation.attributions.any()


def test_a_text_without_tokens_has_no_words(tiny_encoder):
    source, _ = make_source(tiny_encoder, LINEAR)
    for tokenizer in (
        source.tokenizer,
        load_tokenizer(tiny_encoder),
    ):  # with special tokens, without
        source = source._replace(tokenizer=tokenizer)
        empty, ok = explain_toy(source, ["\N{ZERO WIDTH SPACE}", "ok"])
        assert (empty.words, empty.attributions.shape) == ((), (0, 2))
        assert not empty.convergence_delta.any()
        assert ok.words == ("ok",)


def test_a_tokenizer_without_masks_is_refused(tiny_encoder):
    source, _ = make_source(tiny_encoder, LINEAR)
    text = source.tokenizer.to_str().replace("[MASK]", "[NONE]")
    source = source._replace(tokenizer=type(source.tokenizer).from_str(text))
    with pytest.raises(DataError, match=r"\[MASK\] or <mask>"):
        explain_toy(source, ["ok"])


def test_log_odds_and_their_derivatives_are_those_of_the_blend():
    rng = np.random.default_rng(0)
    logits, step = rng.normal(size=(5, 3, 2)) * 3, 1e-5
    curves = [
        Calibration("beta", ({"a": 0.7, "b": 1.2, "c": 0.1}, {"a": 1.0, "b": 0.4, "c": 0.0})),
        Calibration("none", ({}, {})),
        Calibration("temperature", ({"temperature": 2.0}, {"temperature": 0.7})),
    ]
    weights = np.array([[0.5, 0.0], [0.2, 0.3], [0.3, 0.7]])
    odds, slopes = log_odds(logits, curves, weights)
    probs = 1 / (1 + np.exp(-logits))
    members = [apply_calibration(curve, probs[:, index]) for index, curve in enumerate(curves)]
    np.testing.assert_allclose(odds, logit(blend(np.array(members), weights)), atol=1e-5)
    for member in range(3):
        nudge = np.zeros((1, 3, 1))
        nudge[0, member] = step
        ends = [log_odds(logits + sign * nudge, curves, weights)[0] for sign in (1, -1)]
        np.testing.assert_allclose(slopes[:, member], (ends[0] - ends[1]) / (2 * step), atol=1e-6)
    # Probabilities of exactly 0 and 1 cause no division by zero.
    odds, slopes = log_odds(np.array([[[1e4, -1e4]] * 3]), [IDENTITY] * 3, weights)
    np.testing.assert_allclose(odds, [[1e4, -1e4]])
    np.testing.assert_allclose(slopes.sum(axis=1), 1)


def test_a_network_without_weight_is_not_evaluated(single, explanations):
    unusable = [group._replace(slopes=None) for group in single.groups[1:]]
    alone = with_weights(single, single.weights)
    alone.groups = [single.groups[0], *unusable]
    (explanation,) = alone.explain(TEXTS[:1])
    expected = explanations[0].attributions
    np.testing.assert_allclose(explanation.attributions, expected, atol=1e-5)


def test_the_printed_explanation_names_the_strongest_words_of_each_sign():
    explanation = Explanation(
        ("so", "very", "sad", "today"),
        np.array([[0, 2], [3, 7], [8, 11], [12, 17]]),
        np.array([[0.1, 1.0], [-0.5, 0.0], [3.0, 0.0], [0.2, 0.0]]),
        None,
        np.array([2.0, 0.0]),
        np.array([-0.8, -1.0]),
        np.zeros(2),
        16,
    )
    labels = ("sadness", "joy")
    lines = format_words(explanation, labels, ["sadness"]).splitlines()
    assert [line.split() for line in lines] == [
        "sadness 0.881, all words masked 0.310".split(),
        "evidence for sad +3.00 today +0.20".split(),
        "evidence against very -0.50".split(),
    ]
    assert len(format_words(explanation, labels, ["joy"]).splitlines()) == 2


def test_printed_texts_show_the_words_of_their_predicted_labels(single):
    texts = ["Nobody knows why", "I can't sleep"]
    probs = single.predict_proba(texts)
    labels = [[name for name in LABELS if name in names] for names in single.predict(texts)]
    blocks = format_explanations(single, texts, probs).split("\n\n")
    assert len(blocks) == 3 * len(texts)  # the text, its labels, their words
    for text, row, names, words in zip(texts, probs, labels, blocks[2::3], strict=True):
        shown = names or [LABELS[row.argmax()]]
        assert words == format_words(single.explain([text])[0], LABELS, shown)
    without_words = [block for index, block in enumerate(blocks) if index % 3 < 2]
    assert format_predictions(single, texts, probs).split("\n\n") == without_words
