"""Explanations: words add up to the decision, and are the text's own."""

import numpy as np
import pytest
from scipy.special import logit, softmax
from tiny_models import LABELS, make_ensemble, make_model, make_tokenizer

import jaxclf
from jaxclf import predict
from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, calibrated
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Spec
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.explanation import (
    MOST_STEPS,
    STEPS,
    WITHIN,
    Explanation,
    Source,
    explain,
    in_words,
    log_odds,
)
from jaxclf.inference.text_output import format_explanations
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
def ensemble(tiny_encoder, tiny_config, tmp_path_factory):
    """One network that pools by attention, and two of one architecture that do not."""
    folder = tmp_path_factory.mktemp("ensemble")
    models = [
        make_model(
            folder / "one", tiny_encoder, tiny_config, Spec("attention", hidden_dim=8), 0, PLATT
        ),
        make_model(folder / "two", tiny_encoder, tiny_config, Spec("mean"), 1),
        make_model(folder / "three", tiny_encoder, tiny_config, Spec("mean"), 2, PLATT),
    ]
    return jaxclf.load(make_ensemble(folder / "blend", models, WEIGHTS))


def reweighted(ensemble, weights):
    """The same networks in other shares: what is compiled stays."""
    thresholds = {name: {"value": 0.5} for name in LABELS}
    return Classifier(LABELS, thresholds, {}, ensemble.groups, ensemble.calibrations, weights)


@pytest.fixture(scope="module")
def single(ensemble):
    """The first network alone."""
    return reweighted(ensemble, np.array([[1.0] * 3, [0.0] * 3, [0.0] * 3]))


@pytest.fixture(scope="module")
def explained(single):
    return single.explain(TEXTS)


@pytest.mark.parametrize("which", ["single", "ensemble"])
def test_words_add_up_to_the_log_odds_of_what_is_predicted(which, request):
    classifier = request.getfixturevalue(which)
    tokens = [len(classifier.tokenizer.encode(text).ids) - 2 for text in TEXTS[:3]]
    blank = logit(classifier.predict_proba([" ".join(["[MASK]"] * count) for count in tokens]))
    probs, changes = classifier.predict_proba(TEXTS), []
    for index, found in enumerate(classifier.explain(TEXTS)):
        change = found.log_odds - found.blank
        np.testing.assert_allclose(found.attributions.sum(axis=0) + found.gap, change, atol=1e-9)
        assert (np.abs(found.gap) <= WITHIN * np.maximum(np.abs(change), 1)).all()
        changes.append(np.abs(change).max())
        # Float32 networks in batches of another shape, through a logit.
        np.testing.assert_allclose(found.log_odds, logit(probs[index]), atol=1e-4)
        if index < 3:  # a long text's windows would be others
            np.testing.assert_allclose(found.blank, blank[index], atol=1e-4)
    assert max(changes) > 0.1  # of "ok" alone it may be less: the pieces are learned anew each time
    for group in classifier.groups[: 1 if which == "single" else 2]:
        assert group.slopes._cache_size() == 1


def test_the_words_are_the_texts_own(explained):
    assert explained[0].words == ("I", "can't", "sleep")
    assert explained[2].words[:4] == ("Caf\u00e9", "at", "3am", ",")
    for text, found in zip(TEXTS, explained, strict=True):
        assert found.words == tuple(text[start:end] for start, end in found.spans)
        assert found.attributions.shape == (len(found.words), 3)
    long = explained[3]
    assert long.words == tuple(TEXTS[3].split())[: len(long.words)]
    assert 10 < len(long.words) < len(TEXTS[3].split())  # the rest is not read


def test_a_text_is_explained_alike_alone_and_in_company(single, explained):
    for text, found in zip(TEXTS, explained, strict=True):
        (alone,) = single.explain([text])
        assert (alone.words, alone.steps) == (found.words, found.steps)
        np.testing.assert_allclose(alone.attributions, found.attributions, atol=1e-5)
        np.testing.assert_allclose(alone.attention, found.attention, atol=1e-6)
    assert single.explain([]) == []
    with pytest.raises(DataError, match="text 1 is empty"):
        single.explain(["a", " "])


def test_attention_is_the_pools_weight_of_each_word(single, ensemble, explained):
    assert all(found.attention.min() > 0 and found.attention.sum() < 1 for found in explained)
    assert np.ptp(explained[0].attention) > 0.01
    assert ensemble.explain(TEXTS[:1])[0].attention is None
    # With no score every token weighs the same: what lacks to 1 is the two at each window's ends.
    group = single.groups[0]
    pool = {**group.params["pool"], "score": {"kernel": np.zeros((8, 1), np.float32)}}
    flat = reweighted(single, single.weights)
    flat.groups = [group._replace(params={**group.params, "pool": pool}), *single.groups[1:]]
    for text, found in zip(TEXTS[:2], flat.explain(TEXTS[:2]), strict=True):
        count = len(single.tokenizer.encode(text).ids)
        np.testing.assert_allclose(found.attention.sum(), (count - 2) / count, atol=1e-6)
    assert np.ptp(flat.explain(["ok ok"])[0].attention) < 1e-7


def toy(value, rate, seen=None):
    """A network in numpy: the logits of a slot are value(the sum of its tokens' rows, each times
    its share), the rows of a token being its own minus the blank's."""

    def step(params, batch, blanks, shares):
        rows = params["rows"]
        way = rows[batch.ids] - rows[blanks]
        slots = len(batch.weight)
        at = np.zeros((slots + 1, rows.shape[1]), np.float32)
        np.add.at(at, batch.examples, way * shares[..., None])
        logits = value(at[:slots])[None]
        if seen is not None:
            seen.extend(np.unique(shares[batch.segments > 0]).tolist())
        there = (batch.segments > 0)[..., None]
        slopes = (rate(at)[batch.examples] * way * there)[None]
        scores = (batch.ids * shares)[None] / 100
        return TokenGradients(*(np.asarray(one, np.float32) for one in (logits, slopes, scores)))

    return step


DATA = Data("", "", "", max_length=16, max_windows=3, window_overlap=4)
PLAIN = Calibration("none", ({}, {}))


def source_of(tiny_encoder, step):
    tokenizer = make_tokenizer(tiny_encoder)
    rows = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    return Source(tokenizer, DATA, Shape(5, 16, 9), {"rows": rows}, step), rows


def pieces_of(tokenizer, text):
    """(id, first character, last, window) of each own token, by the library itself."""
    tokenizer.enable_truncation(16, stride=4)
    encoding = tokenizer.encode(text)
    for window in [encoding, *encoding.overflowing][:3]:
        yield from zip(window.ids, window.offsets, window.special_tokens_mask, strict=True)


def test_of_a_linear_network_a_word_is_its_weight_exactly(tiny_encoder):
    """Windows that overlap: a token that is read twice counts twice."""
    source, rows = source_of(tiny_encoder, toy(lambda at: at, np.ones_like))
    mask = source.tokenizer.token_to_id("[MASK]")
    for text, found in zip(TEXTS, explain(TEXTS, [source], [PLAIN], np.ones((1, 2))), strict=True):
        expected, scores = np.zeros((len(text), 2)), []
        for token, (start, _), special in pieces_of(source.tokenizer, text):
            scores.append((token / 100, -1 if special else start))
            if not special:
                expected[start] += rows[token] - rows[mask]
        weight = softmax([score for score, _ in scores])
        for index, (start, end) in enumerate(found.spans):
            # float32 sums of about ten numbers
            of_word = expected[start:end].sum(axis=0)
            np.testing.assert_allclose(found.attributions[index], of_word, atol=1e-5)
            inside = [start <= place < end for _, place in scores]
            np.testing.assert_allclose(found.attention[index], weight[inside].sum(), atol=1e-6)
        np.testing.assert_allclose(found.log_odds, expected.sum(axis=0), atol=1e-4)
        np.testing.assert_allclose(found.blank, 0, atol=1e-6)
        assert found.steps == STEPS


def test_steps_are_halved_until_the_gap_is_small_and_no_point_is_seen_twice(tiny_encoder):
    seen = []
    source, _ = source_of(tiny_encoder, toy(lambda at: at**9, lambda at: 9 * at**8, seen))
    (found,) = explain(["why can't I sleep"], [source], [PLAIN], np.ones((1, 2)))
    assert STEPS < found.steps <= MOST_STEPS
    np.testing.assert_allclose(sorted(seen), np.linspace(0, 1, found.steps + 1), atol=1e-7)
    change = found.log_odds - found.blank
    assert (np.abs(found.gap) <= WITHIN * np.maximum(np.abs(change), 1)).all()
    # All words change in one proportion along the way, so each has its share of the whole.
    linear, _ = source_of(tiny_encoder, toy(lambda at: at, np.ones_like))
    (parts,) = explain(["why can't I sleep"], [linear], [PLAIN], np.ones((1, 2)))
    share = parts.attributions / parts.attributions.sum(axis=0)
    np.testing.assert_allclose(found.attributions, share * (change - found.gap), rtol=1e-4)


def test_a_gap_that_stays_is_reported(tiny_encoder):
    jump = toy(lambda at: np.where(np.abs(at) > 1e-3, 7.0, 0.0), np.zeros_like)
    source, _ = source_of(tiny_encoder, jump)
    (found,) = explain(["ok"], [source], [PLAIN], np.ones((1, 2)))
    assert found.steps == MOST_STEPS
    np.testing.assert_allclose(found.gap, 7, atol=1e-6)
    assert not found.attributions.any()


def test_a_text_without_tokens_has_no_words(tiny_encoder):
    source, _ = source_of(tiny_encoder, toy(lambda at: at, np.ones_like))
    for tokenizer in (source.tokenizer, load_tokenizer(tiny_encoder)):  # with special ones, without
        source = source._replace(tokenizer=tokenizer)
        texts = ["\N{ZERO WIDTH SPACE}", "ok"]
        found, other = explain(texts, [source], [PLAIN], np.ones((1, 2)))
        assert (found.words, found.attributions.shape) == ((), (0, 2))
        assert not found.gap.any()
        assert other.words == ("ok",)


def test_a_tokenizer_without_masks_is_refused(tiny_encoder):
    source, _ = source_of(tiny_encoder, toy(lambda at: at, np.ones_like))
    plain = source.tokenizer.to_str().replace("[MASK]", "[NONE]")
    source = source._replace(tokenizer=type(source.tokenizer).from_str(plain))
    with pytest.raises(DataError, match=r"no \[MASK\] or <mask>"):
        explain(["ok"], [source], [PLAIN], np.ones((1, 2)))


def test_log_odds_are_the_blends_and_their_slopes_its_own():
    rng = np.random.default_rng(0)
    logits, step = rng.normal(size=(5, 3, 2)) * 3, 1e-5
    curves = [
        Calibration("beta", ({"a": 0.7, "b": 1.2, "c": 0.1}, {"a": 1.0, "b": 0.4, "c": 0.0})),
        Calibration("none", ({}, {})),
        Calibration("focal", ({"gamma": 2.0, "alpha": 0.5}, {"gamma": 1.0, "alpha": 0.3})),
    ]
    weights = np.array([[0.5, 0.0], [0.2, 0.3], [0.3, 0.7]])
    odds, slopes = log_odds(logits, curves, weights)
    probs = 1 / (1 + np.exp(-logits))
    each = [calibrated(one, probs[:, index]) for index, one in enumerate(curves)]
    np.testing.assert_allclose(odds, logit(blend(np.array(each), weights)), atol=1e-5)
    for member in range(3):
        nudge = np.zeros((1, 3, 1))
        nudge[0, member] = step
        ends = [log_odds(logits + sign * nudge, curves, weights)[0] for sign in (1, -1)]
        np.testing.assert_allclose(slopes[:, member], (ends[0] - ends[1]) / (2 * step), atol=1e-6)
    # Sure to the last bit on either side, nothing is divided by nothing.
    sure = log_odds(np.array([[[1e4, -1e4]] * 3]), [PLAIN] * 3, weights)
    np.testing.assert_allclose(sure[0], [[1e4, -1e4]])
    np.testing.assert_allclose(sure[1].sum(axis=1), 1)


def test_a_network_without_weight_is_not_asked(single, explained):
    idle = [group._replace(slopes=None) for group in single.groups[1:]]
    alone = reweighted(single, single.weights)
    alone.groups = [single.groups[0], *idle]
    (found,) = alone.explain(TEXTS[:1])
    np.testing.assert_allclose(found.attributions, explained[0].attributions, atol=1e-5)


def test_in_words_names_the_strongest_on_each_side():
    found = Explanation(
        ("so", "very", "sad", "today"),
        np.array([[0, 2], [3, 7], [8, 11], [12, 17]]),
        np.array([[0.1, 1.0], [-0.5, 0.0], [3.0, 0.0], [0.2, 0.0]]),
        None,
        np.array([2.0, 0.0]),
        np.array([-0.8, -1.0]),
        np.zeros(2),
        16,
    )
    assert in_words(found, ("sadness", "joy"), ["sadness"]) == (
        "sadness  0.881, all words masked 0.310\n"
        "  for      sad +3.00  today +0.20\n"
        "  against  very -0.50"
    )
    assert in_words(found, ("sadness", "joy"), ["joy"]).count("\n") == 1


def test_the_command_names_the_words_of_what_it_gives(single, monkeypatch, capsys):
    texts = ["Nobody knows why", "I can't sleep"]
    probs = single.predict_proba(texts)
    given = [[name for name in LABELS if name in names] for names in single.predict(texts)]
    blocks = format_explanations(single, texts, probs).split("\n\n")
    assert len(blocks) == 3 * len(texts)  # the text, its labels, their words
    for text, row, names, words in zip(texts, probs, given, blocks[2::3], strict=True):
        shown = names or [LABELS[row.argmax()]]
        assert words == in_words(single.explain([text])[0], LABELS, shown)
    monkeypatch.setattr("jaxclf.inference.load.load", lambda _: single)
    assert predict.main(["--run", "run", "--explain", *texts]) == 0
    assert "all words masked" in capsys.readouterr().out
    assert predict.main("--run r --explain --input a.csv --output b.csv".split()) == 2
    assert "--explain" in capsys.readouterr().err
