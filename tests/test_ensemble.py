"""An ensemble is one folder that everything opens like a run: the same blend on every path."""

import json
import subprocess
import sys

import numpy as np
import pytest

import jaxclf
from jaxclf.decisions.blending import blend
from jaxclf.decisions.predictions import load_predictions
from jaxclf.ensemble import EnsembleConfig, last_names, make_ensemble, teachers_file
from jaxclf.errors import DataError
from jaxclf.evaluate import evaluate_file, evaluate_predictions
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import override
from jaxclf.model.storage.ensemble_folder import ENSEMBLE, load_ensemble
from jaxclf.training.run import train

SMALL = {"data.max_length": 32, "data.max_train_examples": 40, "train.epochs": 1, "optim.lr": 3e-3}
MEMBERS = {
    "one": {"pool": "cls", "head": "linear", "seed": 0, "calibration": "platt"},
    "two": {"pool": "cls", "head": "linear", "seed": 1, "data.folds": 2, "data.fold": 1},
    "other": {"pool": "mean", "head": "linear"},
}


@pytest.fixture(scope="module")
def runs(tiny_encoder, tiny_data, tmp_path_factory):
    """Runs of three networks, two of them of one architecture."""
    folder = tmp_path_factory.mktemp("members")
    common = {"encoder.name": str(tiny_encoder)}
    common |= {f"data.{split}": str(path) for split, path in tiny_data.items()}
    for name, changes in MEMBERS.items():
        experiment = override(catalog.load("baseline"), {**SMALL, **common, **changes})
        train(experiment, folder / name)
    return {name: [folder / name] for name in MEMBERS}


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble") / "blend"
    return out, make_ensemble(runs, EnsembleConfig(Spec("simplex_per_label")), 0, out)


def texts_of(tiny_data, split="test"):
    return [row["text"] for row in json.loads(tiny_data[split].read_text(encoding="utf-8"))]


def test_its_probabilities_are_the_blend_of_its_members(runs, made, tiny_data):
    out, _ = made
    found, _ = load_ensemble(out / "model")
    members = [load_predictions(run / "predictions" / "test.npz").probs for (run,) in runs.values()]
    expected = blend(np.array(members, np.float64), found.weights)
    stored = load_predictions(out / "predictions" / "test.npz")
    np.testing.assert_array_equal(stored.probs, expected)
    classifier = jaxclf.load(out)
    assert sorted(len(group.members) for group in classifier.groups) == [1, 2]
    answered = classifier.predict_proba(texts_of(tiny_data))
    np.testing.assert_allclose(answered, expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(jaxclf.load(out / "model").thresholds, classifier.thresholds)
    assert len(classifier.predict(["a text", "another"])) == 2


def test_what_fitted_what_is_known(made, tiny_data):
    out, report = made
    assert set(report) == {"val", "test"}
    provenance = json.loads((out / "provenance.json").read_text())
    what = [one["what"] for one in provenance["fitted"] if one["split"] == "val"]
    assert "the weights of the ensemble (simplex_per_label)" in what
    assert "the calibration (platt)" in what
    assert "the thresholds (plug_in)" in what
    assert "the thresholds (per_label)" not in what  # the members' own, which have no part in it
    assert {"train", "val", "test", "train-1", "held_out"} == set(provenance["splits"])
    figures, said = evaluate_file(out, tiny_data["val"])
    assert said is not None
    assert "weights of the ensemble" in said
    figures, said = evaluate_file(out, tiny_data["test"])
    assert said is None
    assert figures["macro_f1"] == pytest.approx(report["test"]["macro_f1"], nan_ok=True)
    assert evaluate_predictions(out)[0] == report


def test_the_folder_is_a_runs(made):
    out, _ = made
    for name in (
        "labels.json provenance.json thresholds.json report.json report.html members.json "
        "diagnosis.json model/ensemble.json model/README.md model/member-0/model.safetensors "
        "model/member-2/jaxclf.json"
    ).split():
        assert (out / name).is_file(), name
    assert not list(out.rglob("*.part"))
    about = json.loads((out / "members.json").read_text())
    assert list(about["members"]) == list(MEMBERS)
    assert sum(one["weight"] for one in about["members"].values()) == pytest.approx(1)
    assert about["blend"] == {"name": "simplex_per_label"}
    assert "A person decides" in (out / "model" / "README.md").read_text()
    assert "correlation of errors" in (out / "report.html").read_text()
    assert "Not recorded" not in (out / "report.html").read_text()


def test_members_are_called_by_what_tells_them_apart():
    assert last_names(["runs/a", "runs/b/"]) == ["a", "b"]
    assert last_names(["one/a", "two/a"]) == ["one/a", "two/a"]


def test_a_teachers_probabilities_are_learned_from(runs, made, tiny_encoder, tiny_data, tmp_path):
    out, _ = made
    path = teachers_file(runs, 0, out)
    taught = load_predictions(path)
    assert len(taught.ids) == SMALL["data.max_train_examples"]
    common = {"encoder.name": str(tiny_encoder), "data.soft_labels": str(path)}
    common |= {f"data.{split}": str(file) for split, file in tiny_data.items()}
    student = override(catalog.load("baseline"), {**SMALL, **common})
    train(student, tmp_path / "student")
    plain = override(student, {"data.soft_labels": ""})
    train(plain, tmp_path / "plain")
    one, other = (
        load_predictions(tmp_path / name / "predictions" / "test.npz").probs
        for name in ("student", "plain")
    )
    assert not np.array_equal(one, other)
    more = override(student, {"data.max_train_examples": 41})
    with pytest.raises(DataError, match="lacks 1 training rows"):
        train(more, tmp_path / "more")


def change(folder, values):
    path = folder / ENSEMBLE
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, **values}))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"format": 9}, "format 9"),
        ({"members": []}, "members are not the names"),
        ({"members": ["a"] * 9}, "weights are not 9 shares"),
        ({"weights": {}}, "weights are not 3 shares"),
        ({"weights": None}, "weights are not 3 shares"),
        ({"labels": ["a", "a"]}, "labels are not"),
        ({"provenance": {}}, "provenance does not say"),
    ],
)
def test_a_damaged_ensemble_is_refused_by_name(made, tmp_path, values, says):
    out, _ = made
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / ENSEMBLE).write_bytes((out / "model" / ENSEMBLE).read_bytes())
    change(folder, values)
    with pytest.raises(DataError, match=says):
        load_ensemble(folder)


def test_a_member_that_is_missing_is_named(made, tmp_path):
    out, _ = made
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / ENSEMBLE).write_bytes((out / "model" / ENSEMBLE).read_bytes())
    with pytest.raises(DataError, match=r"member-0.*lacks a member"):
        load_ensemble(folder)


def test_the_command_trains_folds_and_a_student(tiny_encoder, tiny_data, tmp_path):
    out = tmp_path / "out"
    words = [f"{key}={value}" for key, value in SMALL.items()]
    words += [f"data.{split}={path}" for split, path in tiny_data.items()]
    words += [f"encoder.name={tiny_encoder}", "blend=greedy", "blend.rounds=3"]
    base = [sys.executable, "-m", "jaxclf.ensemble"]
    whole = [*base, "--exp", "baseline", *words, "--folds", "2", "--out", str(out)]
    answer = subprocess.run(
        [*whole, "--distill", "baseline"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "correlation of errors" in answer.stdout
    assert "by the student" in answer.stdout
    assert len(load_predictions(out / "teacher.npz").ids) == SMALL["data.max_train_examples"]
    assert [path.name for path in sorted((out / "members").iterdir())] == [
        "baseline-seed0-fold0", "baseline-seed0-fold1",
    ]  # fmt: skip
    found, _ = load_ensemble(out / "model")
    np.testing.assert_allclose(found.weights, 0.5)
    for row in texts_of(tiny_data, "train"):
        assert row not in answer.stdout + answer.stderr
    for words, says in (
        (["--runs", str(out), "loss=bce", "--out", "x"], "taken as they are"),
        (["--out", "x"], "give --runs"),
        (["--runs", "blend=nothing", "--out", "x"], "blend='nothing'"),
    ):
        bad = subprocess.run([*base, *words], capture_output=True, text=True, check=False)
        assert bad.returncode == 2
        assert says in bad.stderr.splitlines()[-1]
