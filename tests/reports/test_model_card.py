"""The model card names the model, its labels and its test scores."""

import numpy as np
import pytest
from huggingface_hub import ModelCard

from jaxclf.decisions.evaluation import evaluate_split
from jaxclf.decisions.score_tables import Table, score_tables, to_markdown
from jaxclf.experiment.config import Encoder
from jaxclf.reports.model_card import make_card
from jaxclf.types import Predictions

NAMES = ("stress", "a label with a long name", "joie")
THRESHOLDS = np.array([0.5, 0.4, 0.6])


def predictions(rows: int = 60) -> Predictions:
    rng = np.random.default_rng(rows)
    labels = (rng.random((rows, 3)) < [0.5, 0.3, 0.2]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    return Predictions(np.array([str(row) for row in range(rows)]), probs, labels, "test")


SIZES = {"train": 12345, "val": 60, "test": 61}


@pytest.fixture(scope="module")
def report():
    return {
        "val": evaluate_split(predictions(60), THRESHOLDS, NAMES),
        "test": evaluate_split(predictions(61), THRESHOLDS, NAMES),
    }


def test_a_card_describes_the_model_and_shows_its_test_scores(report):
    descriptions = {NAMES[0]: "it is\nso | or so"}
    text = make_card("my-run", [Encoder()], report, "per_label", "platt", SIZES, descriptions)
    body = ModelCard(text).text
    assert body.strip().startswith("# my-run\n")
    assert "train 12,345, val 60, test 61" in body
    assert "`per_label`, fitted on the validation split" in body
    assert all(to_markdown(table) in body for table in score_tables(report["test"], "test"))
    assert "calibrated (`platt`)" in body
    assert f"\n| {NAMES[0]} | it is so \\| or so |\n" in body
    assert all(f"\n| {name} | not described" in body for name in NAMES[1:])
    assert 'jaxclf.load("' in body
    assert "A person decides" in body
    assert "say nothing about people" in body
    assert not any(line != line.rstrip() for line in body.splitlines())


def test_descriptions_of_another_data_set_are_left_out(report):
    descriptions = {NAMES[0]: "as in the demonstration", "a label of another data set": "such as"}
    text = make_card("my-run", [Encoder()], report, "per_label", "platt", SIZES, descriptions)
    assert "as in the demonstration" not in text
    assert "another data set" not in text


def test_the_metadata_is_that_of_the_hub(report):
    data = ModelCard(make_card("my-run", [Encoder()], report, "fixed", "none", SIZES, {})).data
    assert (data.library_name, data.pipeline_tag) == ("jaxclf", "text-classification")
    assert (data.base_model, data.license) == (
        "sentence-transformers/all-MiniLM-L6-v2",
        "apache-2.0",
    )
    assert data.language is None
    assert "License of the encoder: apache-2.0.\n" in make_card(
        "my-run", [Encoder()], report, "fixed", "none", SIZES, {}
    )
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert values["Macro F1"] == pytest.approx(report["test"]["macro_f1"], abs=1e-6)


def test_the_metadata_leaves_out_what_is_not_known(report):
    """A folder has no Hub id, and an encoder that is not built in no known license."""
    scores = {**report["test"], "macro_f1": float("nan")}
    encoders = [Encoder("/home/me/encoder"), Encoder("org/model", revision="abc"), Encoder()]
    card = ModelCard(make_card("x", encoders, {"test": scores}, "fixed", "none", SIZES, {}))
    assert card.data.base_model == ["org/model", "sentence-transformers/all-MiniLM-L6-v2"]
    assert card.data.license is None
    assert "The license of the encoder is not recorded" in card.content
    assert "Macro F1" not in [result.metric_name for result in card.data.eval_results]
    assert "/home/me" not in card.content


def test_an_ensemble_describes_its_structure_and_details(report):
    text = make_card(
        "x",
        [Encoder(), Encoder()],
        report,
        "plug_in",
        "none",
        SIZES,
        {},
        structure="2 networks in 2 stages",
        details=[Table("Stages", ("stage", "macro F1"), [("small", "0.5")])],
    )
    assert "A multi-label text classifier of 2 networks in 2 stages," in text
    assert "\n## Stages\n\n| stage | macro F1 |" in text


def test_a_fixed_threshold_is_not_called_fitted():
    report = {"test": evaluate_split(predictions(), np.full(3, 0.5), NAMES)}
    text = make_card("my-run", [Encoder()], report, "fixed", "none", SIZES, {})
    assert "fitted on the validation" not in text
    assert "set by hand" in text
