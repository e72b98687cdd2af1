"""The model card names the model, its labels and its test scores."""

import numpy as np

from jaxclf.decisions.evaluation import evaluate_split
from jaxclf.reports.model_card import card
from jaxclf.reports.tables import score_tables, to_markdown
from jaxclf.types import Predictions

NAMES = ("stress", "a label with a long name", "joie")
THRESHOLDS = np.array([0.5, 0.4, 0.6])


def predictions(rows: int = 60) -> Predictions:
    rng = np.random.default_rng(rows)
    labels = (rng.random((rows, 3)) < [0.5, 0.3, 0.2]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    return Predictions(np.array([str(row) for row in range(rows)]), probs, labels, "test")


SIZES = {"train": 12345, "val": 60, "test": 61}


def test_a_card_says_what_the_model_is_and_shows_its_test_figures():
    report = {
        "val": evaluate_split(predictions(60), THRESHOLDS, NAMES),
        "test": evaluate_split(predictions(61), THRESHOLDS, NAMES),
    }
    means = {NAMES[0]: "it is\nso | or so"}
    text = card("my-run", "minilm", report, "per_label", "platt", SIZES, means)
    assert text.startswith("# my-run\n")
    assert "`minilm`" in text
    assert "train 12,345, val 60, test 61" in text
    assert "`per_label`, fitted on the validation split" in text
    assert all(to_markdown(table) in text for table in score_tables(report["test"], "test"))
    assert "calibrated (`platt`)" in text
    assert f"\n| `{NAMES[0]}` | it is so \\| or so |\n" in text
    assert all(f"\n| `{name}` | not written down" in text for name in NAMES[1:])
    assert 'jaxclf.load("' in text
    assert "A person decides" in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_card_does_not_claim_that_a_fixed_threshold_was_fitted():
    report = {"test": evaluate_split(predictions(), np.full(3, 0.5), NAMES)}
    assert "fitted on the validation" not in card(
        "my-run", "minilm", report, "fixed", "none", SIZES, {}
    )
