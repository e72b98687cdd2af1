"""Metrics equal scikit-learn's on the known cells; where conventions differ, ours is stated.

scikit-learn answers 0, or `zero_division`, where a figure has no meaning. Ours is NaN: precision
where nothing was decided; recall, F1, AUC and AP of a label without positives, which macro means
leave out; AUC of a label without negatives. Two empty label sets agree: samples F1 is 1.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn

from jaxclf.decisions.metrics import (
    SELECTION,
    aggregate,
    auc,
    average_precision,
    brier,
    by_label,
    calibration_error,
    count,
    cumulative,
    expected_calibration_error,
    f1,
    log_loss,
    precision,
    recall,
)

NAN = float("nan")


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


def same(ours, theirs) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12, equal_nan=True)


# Eighths make ties, and both ends.
PROBS = st.one_of(st.sampled_from([n / 8 for n in range(9)]), st.floats(0, 1, width=32))


@st.composite
def tables(draw, values=(0.0, 1.0), least_classes=1):
    """(labels, probs, decided)."""
    shape = (draw(st.integers(1, 10)), draw(st.integers(least_classes, 4)))
    return (
        draw(arrays(np.float32, shape, elements=st.sampled_from(values))),
        draw(arrays(np.float32, shape, elements=PROBS)),
        draw(arrays(np.bool_, shape)),
    )


WITH_MISSING = tables(values=(0.0, 1.0, NAN))


def large(seed: int, missing: float):
    """A table as a test set might be: 200 examples, 6 labels from frequent to rare, tied scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((200, 6)) < [0.6, 0.4, 0.2, 0.1, 0.05, 0.02]).astype(np.float32)
    probs = np.clip(0.3 * labels + rng.normal(0.3, 0.2, labels.shape), 0, 1).round(2)
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, probs.astype(np.float32), probs >= 0.4


def each_label(score, labels, values) -> list[float]:
    """score(labels, values) of every label's known rows, NaN where none is known."""
    columns = []
    for y, x in zip(labels.T, values.T, strict=True):
        known = ~np.isnan(y)
        columns.append(score(y[known].astype(int), x[known]) if known.any() else NAN)
    return columns


def their_f1(y, decided):
    return sklearn.f1_score(y, decided, zero_division=np.nan) if y.any() else NAN


def their_auc(y, probs):
    return sklearn.roc_auc_score(y, probs) if 0 < y.sum() < len(y) else NAN


def their_ap(y, probs):
    return sklearn.average_precision_score(y, probs) if y.any() else NAN


def check_each_label(table):
    labels, probs, decided = table
    counts = count(labels, decided)

    def of(score):
        return lambda y, x: score(y, x, zero_division=np.nan)

    same(precision(counts), each_label(of(sklearn.precision_score), labels, decided))
    same(recall(counts), each_label(of(sklearn.recall_score), labels, decided))
    same(f1(counts), each_label(their_f1, labels, decided))
    same(auc(labels, probs), each_label(their_auc, labels, probs))
    same(average_precision(labels, probs), each_label(their_ap, labels, probs))


@settings(deadline=None, max_examples=60)
@given(WITH_MISSING)
def test_each_label_is_scikit_learns_on_its_known_rows(table):
    check_each_label(table)


def check_headline(table):
    labels, probs, decided = table
    figures = aggregate(labels, probs, decided)
    known = ~np.isnan(labels)
    cells, given_cells = labels[known].astype(int), decided[known]
    rows = [
        (y[there].astype(int), d[there])
        for y, d, there in zip(labels, decided, known, strict=True)
        if there.any()
    ]
    f1s = np.array(each_label(their_f1, labels, decided))
    support = np.nansum(labels, axis=0)
    spoken = support > 0
    if spoken.any():
        same(figures["macro_f1"], f1s[spoken].mean())
        same(figures["weighted_f1"], f1s[spoken] @ support[spoken] / support.sum())
        same(figures["map"], np.nanmean(each_label(their_ap, labels, probs)))
    else:
        assert all(np.isnan(figures[name]) for name in ("macro_f1", "weighted_f1", "map"))
    aucs = np.array(each_label(their_auc, labels, probs))
    same(figures["macro_auc"], np.nanmean(aucs) if not np.isnan(aucs).all() else NAN)
    if not rows:
        assert all(np.isnan(value) for value in figures.values())
        return
    same(figures["micro_f1"], sklearn.f1_score(cells, given_cells, zero_division=np.nan))
    same(
        figures["samples_f1"],
        np.mean([sklearn.f1_score(y, d, zero_division=1.0) for y, d in rows]),
    )
    same(figures["subset_accuracy"], np.mean([(y == d).all() for y, d in rows]))
    same(figures["label_accuracy"], sklearn.accuracy_score(cells, given_cells))
    same(figures["hamming_loss"], sklearn.zero_one_loss(cells, given_cells))
    held = np.clip(probs[known].astype(np.float64), 1e-7, 1 - 1e-7)
    same(figures["log_loss"], sklearn.log_loss(cells, held, labels=[0, 1]))


@settings(deadline=None, max_examples=60)
@given(WITH_MISSING)
def test_the_headline_is_scikit_learns_on_the_known_cells(table):
    check_headline(table)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_large_table_is_scikit_learns(seed, missing):
    table = large(seed, missing)
    check_each_label(table)
    check_headline(table)


@settings(deadline=None, max_examples=40)
@given(tables(least_classes=2))
def test_with_all_labels_known_the_headline_is_scikit_learns_own_averages(table):
    labels, probs, decided = table
    figures = aggregate(labels, probs, decided)
    y = labels.astype(int)
    same(figures["micro_f1"], sklearn.f1_score(y, decided, average="micro", zero_division=np.nan))
    same(figures["samples_f1"], sklearn.f1_score(y, decided, average="samples", zero_division=1.0))
    same(figures["subset_accuracy"], sklearn.accuracy_score(y, decided))
    same(figures["hamming_loss"], sklearn.hamming_loss(y, decided))
    if y.any():
        weighted = sklearn.f1_score(y, decided, average="weighted", zero_division=0.0)
        same(figures["weighted_f1"], weighted)
    if y.any(axis=0).all():
        macro = sklearn.f1_score(y, decided, average="macro", zero_division=0.0)
        same(figures["macro_f1"], macro)
        same(figures["map"], sklearn.average_precision_score(y, probs, average="macro"))
    if y.any(axis=0).all() and not y.all(axis=0).any():
        same(figures["macro_auc"], sklearn.roc_auc_score(y, probs, average="macro"))


@settings(deadline=None, max_examples=60)
@given(WITH_MISSING, st.randoms(use_true_random=False))
def test_what_is_said_of_an_unknown_cell_changes_nothing(table, random):
    labels, probs, decided = table
    unknown = np.isnan(labels)
    other_probs, other_decided = probs.copy(), decided.copy()
    other_probs[unknown] = [random.random() for _ in range(unknown.sum())]
    other_decided[unknown] ^= True
    before = aggregate(labels, probs, decided)
    after = aggregate(labels, other_probs, other_decided)
    np.testing.assert_equal(after, before)


@settings(deadline=None, max_examples=60)
@given(WITH_MISSING, st.booleans())
def test_an_example_of_which_nothing_is_known_changes_nothing(table, given_all):
    labels, probs, decided = table
    row = (1, labels.shape[1])
    longer = aggregate(
        np.concatenate([labels, np.full(row, np.nan, np.float32)]),
        np.concatenate([probs, np.full(row, 0.7, np.float32)]),
        np.concatenate([decided, np.full(row, given_all)]),
    )
    shorter = aggregate(labels, probs, decided)
    for name, value in shorter.items():
        same(longer[name], value)


@settings(deadline=None, max_examples=40)
@given(WITH_MISSING, st.data())
def test_the_order_of_examples_changes_nothing(table, data):
    order = data.draw(st.permutations(range(len(table[0]))))
    before = aggregate(*table)
    for name, value in aggregate(*(part[list(order)] for part in table)).items():
        same(value, before[name])


@pytest.mark.parametrize("decided_absent", [False, True])
def test_a_label_without_positives_has_no_figures_and_no_part_in_macro_means(decided_absent):
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    probs = np.array([[0.9, 0.8], [0.6, 0.7], [0.3, 0.1]])
    decided = np.array([[True, decided_absent], [True, False], [False, False]])
    absent = by_label(labels, probs, decided, ("there", "absent"))["absent"]
    assert all(np.isnan(absent[name]) for name in ("recall", "f1", "auc", "ap"))
    assert absent["support"] == 0
    np.testing.assert_equal(absent["precision"], 0.0 if decided_absent else NAN)
    figures = aggregate(labels, probs, decided)
    # One hit, one false alarm, one miss: F1 1/2. Ranks +, -, +: AUC 1/2, AP (1 + 2/3) / 2.
    assert figures["macro_f1"] == figures["weighted_f1"] == figures["macro_auc"] == 0.5
    same(figures["map"], 5 / 6)
    # Yet its false alarm counts in the micro mean.
    same(figures["micro_f1"], 2 / 5 if decided_absent else 1 / 2)


def test_a_label_with_positives_only_has_no_auc():
    labels, probs = column(1, 1, 1, 1), column(0.9, 0.2, 0.2, 0.4)
    counts = count(labels, column(1, 0, 0, 1) == 1)
    assert np.isnan(auc(labels, probs)[0])
    assert average_precision(labels, probs)[0] == 1
    assert (precision(counts)[0], recall(counts)[0]) == (1, 0.5)
    same(f1(counts), [2 / 3])


def test_constant_probabilities_rank_nothing():
    labels, probs = column(1, 0, 0, 0, 1), np.full((5, 1), 0.3)
    assert auc(labels, probs)[0] == 0.5
    assert average_precision(labels, probs)[0] == 0.4


@pytest.mark.parametrize(("label", "right"), [(1.0, True), (1.0, False), (0.0, True), (0.0, False)])
def test_one_row(label, right):
    labels, decided = column(label), np.array([[(label == 1) == right]])
    figures = aggregate(labels, column(0.25), decided)
    assert figures["subset_accuracy"] == figures["label_accuracy"] == right
    assert figures["samples_f1"] == right
    assert figures["hamming_loss"] == (not right)
    np.testing.assert_equal(figures["macro_f1"], float(right) if label else NAN)
    assert np.isnan(figures["macro_auc"])
    same(figures["ece"], abs(label - 0.25))
    same(figures["log_loss"], -np.log(0.25 if label else 0.75))


def test_no_row_decided():
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    decided = np.zeros((4, 2), bool)
    counts = count(labels, decided)
    assert np.isnan(precision(counts)).all()
    np.testing.assert_array_equal(recall(counts), [0, 0])
    np.testing.assert_array_equal(f1(counts), [0, 0])
    figures = aggregate(labels, np.full((4, 2), 0.1), decided)
    assert figures["macro_f1"] == figures["micro_f1"] == figures["weighted_f1"] == 0
    assert figures["samples_f1"] == figures["subset_accuracy"] == 0.25
    assert figures["hamming_loss"] == figures["label_accuracy"] == 0.5


def test_nothing_at_all_is_nan_everywhere():
    for shape in ((0, 2), (3, 2)):
        nothing = np.full(shape, np.nan)
        figures = aggregate(nothing, np.full(shape, 0.5), np.ones(shape, bool))
        assert all(np.isnan(value) for value in figures.values()), figures


def test_counts_on_a_table_one_can_check_by_eye():
    labels = np.array([[1, 0], [1, 0], [0, 1], [np.nan, 1], [1, np.nan]])
    decided = np.array([[1, 1], [0, 0], [1, 1], [1, 1], [1, 1]]) == 1
    counts = count(labels, decided)
    np.testing.assert_array_equal(counts.tp, [2, 2])
    np.testing.assert_array_equal(counts.fp, [1, 1])
    np.testing.assert_array_equal(counts.fn, [1, 0])
    np.testing.assert_array_equal(counts.tn, [0, 1])


@settings(deadline=None, max_examples=60)
@given(tables())
def test_cumulative_counts_what_each_cut_decides(table):
    y, p = table[0][:, 0] == 1, table[1][:, 0]
    scores, tp, decided = cumulative(y, p)
    assert scores.tolist() == sorted(set(p.tolist()), reverse=True)
    assert tp.tolist() == [int(y[p >= score].sum()) for score in scores]
    assert decided.tolist() == [int((p >= score).sum()) for score in scores]


def test_ece_on_a_table_one_can_check_by_hand():
    # Second bin: said 0.1, came 1/3, three of four cells. Fourteenth: said 0.9, came 1.
    labels, probs = column(0, 0, 1, 1), column(0.1, 0.1, 0.1, 0.9)
    same(expected_calibration_error(labels, probs), 3 / 4 * (1 / 3 - 0.1) + 1 / 4 * (1 - 0.9))
    # The same four cells as two labels: bins are over all labels together.
    two = labels.reshape(2, 2), probs.reshape(2, 2)
    same(expected_calibration_error(*two), 0.2)
    # Said too little in one bin and too much in another does not cancel; within a bin it does.
    same(expected_calibration_error(column(1, 0), column(0.2, 0.8)), 0.8)
    same(expected_calibration_error(column(1, 0), column(0.5, 0.5)), 0)
    # Certainty shares the last of the fifteen bins, whose edge at 14/15 parts 0.93 from 0.935.
    same(expected_calibration_error(column(1, 0), column(0.95, 1.0)), 0.475)
    same(expected_calibration_error(column(1, 0), column(0.93, 0.935)), (0.07 + 0.935) / 2)
    # A cell not known is in no bin.
    same(expected_calibration_error(column(0, 0, 1, 1, NAN), column(0.1, 0.1, 0.1, 0.9, 1)), 0.2)


@settings(deadline=None, max_examples=60)
@given(WITH_MISSING)
def test_each_labels_calibration_error_is_that_of_its_column(table):
    labels, probs, _ = table
    columns = [slice(index, index + 1) for index in range(labels.shape[1])]
    alone = [expected_calibration_error(labels[:, one], probs[:, one]) for one in columns]
    same(calibration_error(labels, probs), alone)


@settings(deadline=None, max_examples=60)
@given(WITH_MISSING)
def test_brier_is_scikit_learns_on_the_known_cells(table):
    labels, probs, _ = table
    for ours, y, p in zip(brier(labels, probs), labels.T, probs.T, strict=True):
        known = ~np.isnan(y)
        if not known.any():
            assert np.isnan(ours)
            continue
        same(ours, sklearn.brier_score_loss(y[known], p[known].astype(np.float64), pos_label=1))


def test_log_loss_stays_finite_at_certainty():
    same(log_loss(column(1), column(0)), -np.log(1e-7))
    same(log_loss(column(0), column(1)), -np.log(1 - (1 - 1e-7)))
    same(log_loss(column(1, 0), column(1, 0)), -np.log1p(-1e-7))


def test_the_figures_that_may_select_are_one_when_all_is_right_and_lower_when_not():
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    right = aggregate(labels, labels, labels == 1)
    worse = aggregate(labels, 1 - labels, labels == 0)
    for name in SELECTION:
        assert right[name] == 1, name
        assert worse[name] < 1, name


def test_by_label_gives_every_label_its_own_column():
    labels, probs, decided = large(0, 0.2)
    names = tuple("abcdef")
    counts = count(labels, decided)
    columns = {
        "precision": precision(counts),
        "recall": recall(counts),
        "f1": f1(counts),
        "auc": auc(labels, probs),
        "ap": average_precision(labels, probs),
        "support": np.nansum(labels, axis=0),
    }
    rows = by_label(labels, probs, decided, names)
    assert tuple(rows) == names
    for index, name in enumerate(names):
        assert rows[name] == {key: float(values[index]) for key, values in columns.items()}
