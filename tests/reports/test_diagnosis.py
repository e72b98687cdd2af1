"""Every planted problem is reported with its labels and figures and the key that may mend it; the
nearest healthy case is not, and nothing that is on already is advised."""

import itertools
import json
import re
import shlex

import numpy as np
import pytest

from jaxclf.decisions.evaluation import score_run
from jaxclf.decisions.provenance import make_provenance
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import iter_fields, override, parse_overrides
from jaxclf.experiment.registries import REGISTRIES, load_registry
from jaxclf.files.json_file import write_json
from jaxclf.reports.diagnosis import (
    check_calibration,
    check_fit,
    check_half,
    check_validation,
    diagnose,
)
from jaxclf.reports.label_checks import (
    check_missed,
    check_overpredicted,
    check_separation,
    check_support,
    check_training_positives,
    name_labels,
)
from jaxclf.types import Predictions

GOOD = {"precision": 0.8, "recall": 0.8, "f1": 0.8, "auc": 0.9, "ap": 0.9, "support": 50.0}
ABSENT = {"precision": 0.0, **dict.fromkeys(("recall", "f1", "auc", "ap")), "support": 0.0}
PER_LABEL, PLUG_IN, AUTO = Spec("per_label"), Spec("plug_in"), Spec("auto")
BARE = override(
    catalog.load("baseline"),
    {"threshold": "per_label", "calibration": "none", "train.metric": "macro_f1"},
)


def rows(**changes):
    """Two good labels, and changes to the second."""
    return {"calm": GOOD, "grief": {**GOOD, **changes}}


def parts_of(sentences, *parts):
    """Check that there is one sentence, with these parts."""
    (sentence,) = sentences
    assert all(part in sentence for part in parts), sentence
    assert "calm" not in sentence
    return sentence


# Labels.


def test_many_labels_are_counted():
    assert name_labels(list("abcd")) == "a, b, c, d"
    assert name_labels(list("abcdefg")) == "a, b, c and 4 more"


@pytest.mark.parametrize("auc", [0.8, 0.79, None])
def test_missed_positives_are_counted_and_the_cause_is_told_apart(auc):
    """A label that is ranked well has too high a threshold; another lacks data."""
    low = rows(recall=0.2, support=15.0, auc=auc)
    sentence = parts_of(check_missed(low, PER_LABEL), "grief (12 of 15 missed)")
    is_ranked = auc == 0.8
    assert ("threshold=recall_at" in sentence) == is_ranked
    assert ("data.train" in sentence) == (not is_ranked)
    assert not check_missed(rows(recall=0.3, auc=auc), PER_LABEL)
    assert not check_missed(rows(**ABSENT), PER_LABEL)


def test_a_recall_that_is_aimed_at_is_not_advised_again():
    low = rows(recall=0.1)
    for options in ({}, {"labels": ("grief",)}):
        sentence = parts_of(check_missed(low, Spec("recall_at", **options)), "data.train")
        assert "recall_at" not in sentence
    assert "recall_at" in check_missed(low, Spec("recall_at", labels=("calm",)))[0]


def test_the_label_with_most_missed_comes_first():
    low = {name: {**GOOD, "recall": 0.1, "support": n} for name, n in (("a", 10), ("b", 90))}
    parts_of(check_missed(low, PER_LABEL), "b (81 of 90 missed), a (9 of 10 missed)")


def test_a_label_that_is_predicted_too_often_is_counted():
    """80 of 100 are found among 320 predicted: 3.2 times as often as it occurs."""
    many = rows(precision=0.25, recall=0.8, support=100.0)
    parts_of(
        check_overpredicted(many, PER_LABEL), "320 predicted, 100 true, precision 0.25",
        "threshold=auto",
    )  # fmt: skip
    assert not check_overpredicted(rows(precision=0.27, recall=0.8), PER_LABEL)


def test_the_label_with_most_false_alarms_comes_first():
    many = {name: {**GOOD, "precision": 0.1, "support": n} for name, n in (("a", 10), ("b", 90))}
    (sentence,) = check_overpredicted(many, PER_LABEL)
    assert sentence.index("b (720 predicted") < sentence.index("a (80 predicted")


@pytest.mark.parametrize(("supports", "words"), [
    ((20, 90), ""), ((19, 90), "1 of them have fewer than 20"), ((19, 2), "They have fewer than 20")
])  # fmt: skip
def test_counts_of_few_positives_are_called_chance(supports, words):
    changes = {"recall": 0.1, "precision": 0.1}
    low = {str(n): {**GOOD, **changes, "support": float(n)} for n in supports}
    for check in (check_missed, check_overpredicted):
        (sentence,) = check(low, AUTO)
        assert ("chance" in sentence) == bool(words)
        assert words in sentence


def test_advised_options_can_be_copied_into_a_shell():
    low = {**rows(), "it's": {**GOOD, "recall": 0.1}}
    (sentence,) = check_missed(low, AUTO)
    words = shlex.split(sentence[sentence.index("threshold=recall_at") :])[:2]
    assert parse_overrides(words) == {"threshold": "recall_at", "threshold.labels": ["it's"]}


def test_a_low_precision_is_reported_of_a_label_that_is_not_predicted_often():
    parts_of(check_overpredicted(rows(precision=0.19, recall=0.4), PLUG_IN), "0.19")
    assert not check_overpredicted(rows(precision=0.2, recall=0.4), PLUG_IN)
    assert not check_overpredicted(rows(**ABSENT), PLUG_IN)
    assert not check_overpredicted(rows(precision=None, recall=0.0), PLUG_IN)


@pytest.mark.parametrize(
    ("threshold", "advised"),
    [
        (PER_LABEL, "threshold=auto"),
        (Spec("per_label", prior_strength=20.0), "threshold=precision_at"),
        (AUTO, "threshold=precision_at"),
        (Spec("recall_at", target=0.95), "threshold.target"),
        (Spec("precision_at"), "data.train"),
        (Spec("recall_at", labels=("calm",)), "threshold=precision_at"),
    ],
)
def test_what_is_advised_against_false_alarms_depends_on_the_rule(threshold, advised):
    sentence = parts_of(check_overpredicted(rows(precision=0.1), threshold), advised)
    assert (f"threshold={threshold.name}" in sentence) == (advised == "threshold.target")


def test_a_poorly_separated_label_is_reported_unless_it_is_rare():
    parts_of(check_separation(rows(auc=0.69)), "grief (0.69)", "jaxclf audit", "data.train")
    assert not check_separation(rows(auc=0.7))
    assert not check_separation(rows(auc=0.1, support=19.0))
    assert not check_separation(rows(auc=None))


def test_labels_too_rare_in_training_are_reported_the_rarest_first():
    sentences = check_training_positives({"calm": 10.0, "grief": 9.0, "fear": 0.0})
    parts_of(sentences, "fear (0), grief (9)", "data.train")
    assert not check_training_positives({"calm": 10.0})
    assert not check_training_positives({})


@pytest.mark.parametrize("split", ["val", "test"])
def test_absent_and_rare_labels_are_reported_with_their_split(split):
    parts_of(check_support(rows(**ABSENT), split), f"No positive example in {split}: grief")
    parts_of(check_support(rows(support=19.0), split), "grief (19)", f"data.{split}")
    assert not check_support(rows(support=20.0), split)


# The run.


def scores(fitted, half):
    return {"macro_f1": fitted, "macro_f1_at_half": half}


def test_thresholds_that_lose_to_a_half_are_reported_and_val_decides_what_is_advised():
    test, worse, better = scores(0.811, 0.835), scores(0.79, 0.78), scores(0.79, 0.80)
    sentence = parts_of(check_half(worse, test, PER_LABEL), "0.811", "0.835", "threshold=auto")
    assert "threshold=fixed" not in sentence
    parts_of(check_half(better, test, PER_LABEL), "threshold=fixed", "0.010 and 0.024")
    assert "threshold=auto" not in check_half(worse, test, AUTO)[0]
    assert not check_half(better, scores(0.811, 0.8155), PER_LABEL)
    for undefined in (None, float("nan")):
        assert not check_half(better, scores(undefined, undefined), PER_LABEL)
    for rule in ("fixed", "recall_at", "precision_at"):
        assert not check_half(better, test, Spec(rule))


def test_a_high_calibration_error_asks_for_calibration_only_where_it_is_off():
    parts_of(check_calibration(0.079, Spec("none")), "0.079", "calibration=platt")
    sentence = parts_of(check_calibration(0.079, Spec("platt")), "0.079", "data.val")
    assert "calibration=" not in sentence
    assert not check_calibration(0.05, Spec("none"))
    assert not check_calibration(None, Spec("none"))
    assert not check_calibration(float("nan"), Spec("none"))


def val_of(support, optimism=0.03):
    return {"labels": rows(support=support), "crossfit": {"macro_f1": {"optimism": optimism}}}


def test_a_validation_set_too_small_for_what_it_chooses_is_reported():
    def check(support, threshold, metric, epochs):
        return check_validation(val_of(support), threshold, metric, epochs)

    parts_of(
        check(19.0, PER_LABEL, "macro_f1", 5), "2 thresholds and 1 of 5 epochs", "grief (19)",
        "0.030 better", "threshold=auto", "train.metric=calibrated_log_loss", "data.val",
    )  # fmt: skip
    only_epochs = parts_of(check(19.0, PLUG_IN, "macro_f1", 5), "(1 of 5 epochs)", "train.metric=")
    only_rule = parts_of(check(19.0, PER_LABEL, "map", 5), "(2 thresholds)", "threshold=auto")
    assert "threshold=" not in only_epochs
    assert "train.metric=" not in only_rule
    assert "threshold=auto" not in check(19.0, Spec("recall_at"), "map", 5)[0]
    assert not check(20.0, PER_LABEL, "macro_f1", 5)
    assert not check(19.0, PLUG_IN, "map", 5)
    assert not check(19.0, AUTO, "macro_f1", 1)
    assert not check(0.0, PER_LABEL, "macro_f1", 5)


def epochs(train_loss, log_loss, score):
    """A history as the loop writes it."""
    table = zip(train_loss, log_loss, score, strict=True)
    keys = ("epoch", "train_loss", "log_loss", "score")
    return [dict(zip(keys, (index, *row), strict=True)) for index, row in enumerate(table, 1)]


HEALTHY = epochs([0.6, 0.4, 0.3], [0.5, 0.4, 0.39], [0.5, 0.7, 0.705])
# (training loss, log loss, score) of each epoch -> parts of the only problem, if there is one.
FITS = {
    "healthy": (HEALTHY, ()),
    "no epoch": (HEALTHY[:0], ()),
    "too short for a trend": (HEALTHY[:1], ()),
    "overfitting": (
        epochs([0.6, 0.3, 0.1, 0.05], [0.5, 0.4, 0.5, 0.6], [0.5, 0.7, 0.72, 0.71]),
        ("Overfitting:", "lowest after epoch 2 (0.4000)", "0.6000 after epoch 4",
         "macro_f1 was best after epoch 3", "train.epochs=3", "encoder.dropout", "optim.lr"),
    ),
    "a rising loss, but the last epoch is the best": (
        epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.6], [0.5, 0.695, 0.7]), ()
    ),
    "a wavering loss": (epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.404], [0.5, 0.7, 0.69]), ()),
    "underfitting": (
        epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.3, 0.4, 0.525]),
        ("Underfitting:", "0.125", "train.epochs=6", "optim.lr"),
    ),
    "underfitting by a loss as score": (
        epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [-0.6, -0.5, -0.4]), ("Underfitting:", "0.100")
    ),
    "a level score": (epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.3, 0.69, 0.70]), ()),
    "a higher score before": (epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.3, 0.6, 0.4]), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_the_fit_is_judged_by_the_losses_and_the_score_that_chose(name):
    history, parts = FITS[name]
    sentences = check_fit(history, BARE.train)
    assert bool(sentences) == bool(parts)
    if parts:
        parts_of(sentences, *parts)


def test_fewer_epochs_are_not_advised_where_training_stops_by_itself():
    train = override(BARE, {"train.patience": 2}).train
    sentence = parts_of(check_fit(FITS["overfitting"][0], train), "Overfitting:")
    assert "train.epochs" not in sentence


# All together.


def make_report(seed=0, count=80):
    """Labels that are absent, always there, rare and frequent, with good probabilities."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 4)) < [0.0, 1.1, 0.1, 0.5]).astype(np.float32)
    probs = np.clip(labels * 0.6 + rng.random(labels.shape) * 0.4, 0, 1).astype(np.float32)
    names = ("absent", "always", "rare", "good")
    rules = {"average": "best", "calibration": "none", "threshold": "per_label"}
    splits = {split: Predictions(range(count), probs, labels, split) for split in ("val", "test")}
    return score_run(splits, PER_LABEL, names, make_provenance({}, rules))[0]


def test_what_is_missed_comes_first():
    report = make_report()
    report["test"]["labels"]["good"] |= {"recall": 0.1}
    report["test"]["labels"]["always"] |= {"precision": 0.1}
    report["test"]["ece"] = 0.2
    history = FITS["overfitting"][0]
    sentences = diagnose(history, report, BARE, {"rare": 3.0})
    starts = [
        "Very low recall on test: good", "Too rare in training to be learned: rare",
        "Predicted too often on test: always", "The probabilities are not frequencies",
        "Validation is small", "Overfitting", "No positive example in val: absent",
        "Too rare in val", "No positive example in test: absent", "Too rare in test",
    ]  # fmt: skip
    for sentence, start in zip(sentences, starts, strict=True):
        assert sentence.startswith(start)


def test_a_report_read_from_its_file_has_the_same_problems(tmp_path):
    """NaN is null in the file: an absent label has no F1, one without negatives no AUC."""
    report = make_report()
    sentences = diagnose(HEALTHY, report, BARE, {})
    assert sentences
    write_json(tmp_path / "report.json", report)
    read_back = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert diagnose(HEALTHY, read_back, BARE, {}) == sentences


def test_every_key_and_choice_in_a_sentence_exists():
    """And none of them is what the experiment has already."""
    bad = make_report()
    bad["test"] |= {"ece": 0.2, "macro_f1": 0.5, "macro_f1_at_half": 0.6}
    bad["test"]["labels"]["good"] |= {"recall": 0.1}
    bad["test"]["labels"]["always"] |= {"precision": 0.1}
    histories = [parts[0] for parts in FITS.values()]
    rules = [PER_LABEL, PLUG_IN, AUTO, Spec("fixed"), Spec("recall_at"), Spec("precision_at")]
    fields = dict(iter_fields(BARE))
    for rule, history, calibration in itertools.product(rules, histories, ("none", "platt")):
        experiment = override(BARE, {"threshold": rule, "calibration": calibration})
        text = " ".join(diagnose(history, bad, experiment, {"rare": 3.0}))
        for key, value in re.findall(r"\b([a-z_.]+)=([a-z_0-9]+)", text):
            assert key in fields, key
            if key in REGISTRIES:
                assert value in load_registry(key), value
            if key in ("threshold", "calibration") and value != "recall_at":
                assert value != dict(iter_fields(experiment))[key].name
        for key in re.findall(r"\b(?:data|optim|encoder|train)\.[a-z_]+", text):
            assert key in fields, key
