"""An ensemble is one folder that is read like a run, with the same blend on every path."""

import json
import shutil

import numpy as np
import pytest

import jaxclf
from jaxclf import ensemble
from jaxclf.decisions.blending import blend
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.provenance import reuse_warnings
from jaxclf.decisions.row_hashes import ROW_HASHES
from jaxclf.errors import DataError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import override
from jaxclf.model.storage.ensemble_folder import ENSEMBLE, load_ensemble
from jaxclf.reports.ensemble import (
    EnsembleConfig,
    make_ensemble,
    systems_from_runs,
    write_teacher,
)
from jaxclf.reports.evaluate import evaluate_file, evaluate_predictions
from jaxclf.training.run import train

SMALL = {"data.max_train_examples": 40, "train.epochs": 1}
MEMBERS = {
    "cls": {"pool": "cls", "head": "linear", "seed": 0, "calibration": "platt"},
    "fold": {"pool": "cls", "head": "linear", "seed": 1, "data.folds": 2, "data.fold": 1},
    "mean": {"pool": "mean", "head": "linear"},
}


def call(*words):
    return ensemble.main([str(word) for word in words])


@pytest.fixture(scope="module")
def copies(finished_run, tmp_path_factory):
    """A finished run under two names."""
    folder = tmp_path_factory.mktemp("copies")
    return [shutil.copytree(finished_run.folder, folder / name) for name in ("first", "second")]


@pytest.fixture(scope="module")
def blended_copies(copies, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble") / "blend"
    make_ensemble(systems_from_runs(list(map(str, copies))), EnsembleConfig(), 0, out)
    return out


@pytest.fixture(scope="module")
def systems(tiny_overrides, tmp_path_factory):
    """Runs of three networks, two of them of one architecture."""
    folder = tmp_path_factory.mktemp("members")
    for name, changes in MEMBERS.items():
        changes = {**tiny_overrides, **SMALL, **changes}
        train(override(catalog.load("baseline"), changes), folder / name)
    return {name: [folder / name] for name in MEMBERS}


@pytest.fixture(scope="module")
def blended_systems(systems, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble") / "blend"
    return out, make_ensemble(systems, EnsembleConfig(Spec("simplex_per_label")), 0, out)


def read_texts(tiny_data, split="test"):
    return [row["text"] for row in json.loads(tiny_data[split].read_text(encoding="utf-8"))]


def test_a_blend_of_equal_runs_has_their_probabilities(finished_run, blended_copies, tiny_data):
    stored = load_predictions(blended_copies / "predictions" / "test.npz")
    member = load_predictions(finished_run.folder / "predictions" / "test.npz")
    np.testing.assert_allclose(stored.probs, member.probs, atol=1e-7, rtol=0)
    probs = jaxclf.load(blended_copies).predict_proba(read_texts(tiny_data)[:8])
    np.testing.assert_allclose(probs, stored.probs[:8], atol=1e-6, rtol=0)


def test_the_folder_has_the_files_of_a_run(blended_copies):
    for name in (
        "labels.json provenance.json thresholds.json report.json report.html members.json "
        "diagnosis.json model/ensemble.json model/README.md model/member-0/model.safetensors "
        "model/member-1/jaxclf.json"
    ).split():
        assert (blended_copies / name).is_file(), name
    assert not list(blended_copies.rglob("*.part"))
    members = json.loads((blended_copies / "members.json").read_text())
    assert list(members["members"]) == ["first", "second"]
    assert sum(row["weight"] for row in members["members"].values()) == pytest.approx(1)
    assert members["blend"] == {"name": "uniform"}
    assert "A person decides" in (blended_copies / "model" / "README.md").read_text()
    page = (blended_copies / "report.html").read_text()
    assert "error correlation" in page
    assert "Not recorded" not in page


def test_runs_are_named_by_the_last_part_of_their_path_if_it_differs():
    assert list(systems_from_runs(["runs/a", "runs/b/"])) == ["a", "b"]
    assert list(systems_from_runs(["x/a", "y/a"])) == ["x/a", "y/a"]


def test_options_stand_anywhere_on_the_line(capsys, copies, tmp_path):
    out = tmp_path / "blend"
    runs = [shutil.copytree(copy, tmp_path / copy.name) for copy in copies]
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"calibration": {"name": "none"}}))
    assert call("blend=greedy", "--runs", *runs, "blend.rounds=3", "--out", out) == 0
    output = capsys.readouterr()
    assert "error correlation" in output.out
    assert str(out / "report.html") in output.out
    # Two members without calibration are one warning.
    assert output.err.count("calibration=platt") == 1
    members = json.loads((out / "members.json").read_text())
    assert members["blend"] == {"name": "greedy", "rounds": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 9}, "newer version"),
        ({"members": []}, "members"),
        ({"members": ["a"] * 9}, "weights.*9"),
        ({"weights": {}}, "weights.*2"),
        ({"weights": None}, "weights.*2"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"provenance": {}}, "provenance"),
    ],
)
def test_a_damaged_ensemble_is_refused(blended_copies, tmp_path, values, message):
    meta = json.loads((blended_copies / "model" / ENSEMBLE).read_text())
    shutil.copy(blended_copies / "model" / ROW_HASHES, tmp_path)
    (tmp_path / ENSEMBLE).write_text(json.dumps({**meta, **values}))
    with pytest.raises(DataError, match=message):
        load_ensemble(tmp_path, verify=False)


def test_a_missing_member_is_named(blended_copies, tmp_path):
    for name in (ENSEMBLE, ROW_HASHES):
        shutil.copy(blended_copies / "model" / name, tmp_path)
    with pytest.raises(DataError, match="member-0"):
        load_ensemble(tmp_path)


@pytest.mark.slow
def test_its_probabilities_are_the_blend_of_its_members(systems, blended_systems, tiny_data):
    out, _ = blended_systems
    weights = load_ensemble(out / "model")[0].weights
    members = [load_predictions(run / "predictions/test.npz").probs for (run,) in systems.values()]
    expected = blend(np.array(members, np.float64), weights)
    stored = load_predictions(out / "predictions" / "test.npz")
    np.testing.assert_array_equal(stored.probs, expected)
    classifier = jaxclf.load(out)
    assert sorted(len(group.members) for group in classifier.groups) == [1, 2]
    probs = classifier.predict_proba(read_texts(tiny_data))
    np.testing.assert_allclose(probs, expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(jaxclf.load(out / "model").thresholds, classifier.thresholds)
    assert len(classifier.predict(["a text", "a second text"])) == 2


@pytest.mark.slow
def test_the_provenance_names_what_each_split_fitted(blended_systems, tiny_data):
    out, report = blended_systems
    assert set(report) == {"val", "test"}
    provenance = json.loads((out / "provenance.json").read_text())
    fitted = [entry["what"] for entry in provenance["fitted"] if entry["split"] == "val"]
    assert "the weights of the ensemble (simplex_per_label)" in fitted
    assert "the calibration (platt)" in fitted
    assert "the thresholds (auto)" in fitted
    assert "the thresholds (per_label)" not in fitted  # of the members, which are not used
    assert {"train", "val", "test", "train-1", "held_out"} == set(provenance["splits"])
    (text,) = reuse_warnings(evaluate_file(out, tiny_data["val"]), "val")
    assert "48 of 48" in text
    assert "weights of the ensemble" in text
    scores = evaluate_file(out, tiny_data["test"])
    assert not [*reuse_warnings(scores, "test")]
    (text,) = reuse_warnings(evaluate_file(out, tiny_data["train"]), "train")
    assert "of 96 rows were used for training" in text
    assert scores["macro_f1"] == pytest.approx(report["test"]["macro_f1"], nan_ok=True)
    np.testing.assert_equal(evaluate_predictions(out), report)  # a score may be NaN


@pytest.mark.slow
def test_a_student_learns_from_the_probabilities(
    systems, blended_systems, tiny_overrides, tmp_path
):
    out, _ = blended_systems
    path = write_teacher(systems, 0, out)
    assert len(load_predictions(path).ids) == SMALL["data.max_train_examples"]
    changes = {**tiny_overrides, **SMALL, "data.soft_labels": str(path)}
    student = override(catalog.load("baseline"), changes)
    train(student, tmp_path / "student")
    train(override(student, {"data.soft_labels": ""}), tmp_path / "plain")
    soft, hard = (
        load_predictions(tmp_path / name / "predictions" / "test.npz").probs
        for name in ("student", "plain")
    )
    assert not np.array_equal(soft, hard)
    more = override(student, {"data.max_train_examples": 41})
    with pytest.raises(DataError, match="1 training"):
        train(more, tmp_path / "more")


@pytest.mark.slow
def test_the_command_trains_folds_and_a_student(capsys, tiny_overrides, tiny_data, tmp_path):
    out = tmp_path / "out"
    words = [f"{key}={value}" for key, value in {**tiny_overrides, **SMALL}.items()]
    words += ["blend=greedy", "blend.rounds=3"]
    options = ["--exp", "baseline", "--folds", 2, "--out", out, "--distill", "baseline"]
    assert call(*words[:3], *options, *words[3:]) == 0
    output = capsys.readouterr()
    assert "error correlation" in output.out
    assert "by the student" in output.out
    assert len(load_predictions(out / "teacher.npz").ids) == SMALL["data.max_train_examples"]
    assert [path.name for path in sorted((out / "members").iterdir())] == [
        "baseline-seed0-fold0", "baseline-seed0-fold1",
    ]  # fmt: skip
    np.testing.assert_allclose(load_ensemble(out / "model")[0].weights, 0.5)
    for text in read_texts(tiny_data, "train"):
        assert text not in output.out + output.err
