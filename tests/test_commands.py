"""The commands on a tiny sample with a two-layer encoder: results, mistakes, kills, options."""

import csv
import importlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import jaxclf
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.provenance import reuse_warnings, used_rows
from jaxclf.decisions.threshold_choice import RULES
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.model.storage.saved_model import pretrained_params
from jaxclf.model.storage.weights import flatten_params
from jaxclf.reports.evaluate import evaluate_file, evaluate_predictions
from jaxclf.text.reader import read
from jaxclf.text.splits import hash_texts
from jaxclf.training.regularization import AVERAGES
from jaxclf.training.run import train

REPORT = {
    "macro_f1", "micro_f1", "weighted_f1", "samples_f1", "subset_accuracy", "label_accuracy",
    "hamming_loss", "macro_auc", "map", "ece", "label_ece", "labels_in_macro",
    "intervals", "labels",
}  # fmt: skip
ROOT = Path(__file__).parent.parent
LABEL = {"precision", "recall", "f1", "auc", "ap", "support", "threshold"}


def call(command, *words):
    """Run a command in this process. Returns its exit code."""
    return importlib.import_module(f"jaxclf.{command}").main([str(word) for word in words])


def start(command, *words):
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"jaxclf.{command}", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def to_words(changes):
    return [f"{key}={value}" for key, value in changes.items()]


# A finished run.


def test_a_run_folder_has_the_files_of_the_contract(finished_run):
    out, experiment, report = finished_run
    assert set(report) == {"val", "test"}
    for part in report.values():
        assert set(part) >= REPORT
        for row in part["labels"].values():
            assert set(row) == LABEL
    for name in (
        "config.json labels.json environment.json metrics.jsonl tensorboard checkpoints integrity "
        "predictions/val.npz predictions/test.npz thresholds.json provenance.json report.json "
        "diagnosis.json "
        "model/config.json model/model.safetensors model/tokenizer.json model/jaxclf.json "
        "model/README.md"
    ).split():
        assert (out / name).exists(), name
    assert json.loads((out / "config.json").read_text()) == to_dict(experiment)
    assert not list(out.rglob("*.part"))
    assert "A person decides" in (out / "model" / "README.md").read_text()


def test_loading_gives_the_probabilities_of_the_run(finished_run, demo_rows):
    out = finished_run.folder
    classifier = jaxclf.load(out)
    texts = [row["text"] for row in demo_rows["test"][:48]]
    stored = load_predictions(out / "predictions" / "test.npz")
    np.testing.assert_allclose(classifier.predict_proba(texts), stored.probs, atol=1e-6, rtol=0)
    assert jaxclf.load(out / "model").labels == classifier.labels
    assert list(stored.ids) == [row["id"] for row in demo_rows["test"][:48]]
    for names, probs in zip(classifier.predict(texts), stored.probs, strict=True):
        assert names == [
            name
            for name, p, t in zip(classifier.labels, probs, classifier.thresholds, strict=True)
            if p >= t
        ]


def test_a_text_has_one_probability_alone_or_in_a_batch(finished_run, demo_rows):
    classifier = jaxclf.load(finished_run.folder)
    texts = [row["text"] for row in demo_rows["val"]]
    batch = classifier.predict_proba(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = classifier.predict_proba([texts[index] for index in order])
    np.testing.assert_allclose(shuffled, batch[order], atol=1e-6, rtol=0)
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts[:10]])
    np.testing.assert_allclose(alone, batch[:10], atol=1e-6, rtol=0)
    assert classifier.predict_proba([]).shape == (0, len(classifier.labels))
    assert classifier.groups[0].step._cache_size() == 1


def test_a_finished_run_is_kept(finished_run):
    out, experiment, report = finished_run
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train(experiment, out)["test"]["macro_f1"] == report["test"]["macro_f1"]
    with pytest.raises(ConfigError, match=r"loss.*--out"):
        train(override(experiment, {"loss.gamma": 1.0}), out)
    with pytest.raises(ConfigError, match="exists"):
        train(experiment, out, resume="never")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_epochs_have_the_metric_that_chooses_and_the_report_the_chosen_rule(finished_run):
    out, experiment, report = finished_run
    assert experiment.train.metric == "calibrated_log_loss"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "epoch/epoch" in line]
    assert epochs
    assert all(0 < line["epoch/calibrated_log_loss"] < 1 for line in epochs)
    assert not any("epoch/score" in line for line in epochs)
    chosen = report["val"]["threshold_choice"]["rule"]
    for row in json.loads((out / "thresholds.json").read_text()).values():
        assert (row["rule"], row["chosen"]) == ("auto", chosen)
        assert set(row["compared"]) == {"macro_f1", "difference", "error"}
    for name in ("report.html", "model/README.md"):
        assert f"thresholds: the rule {chosen}." in (out / name).read_text().replace("\\", "")


def test_evaluate_computes_the_report_again(finished_run, tiny_data):
    out, _, report = finished_run
    np.testing.assert_equal(evaluate_predictions(out), report)
    (warning,) = reuse_warnings(report["val"], "val")
    assert "48 of 48" in warning
    assert "the choice of the epoch" in warning
    assert "thresholds" not in warning  # the scores are of cross-fitted decisions
    (warning,) = reuse_warnings(evaluate_file(out, tiny_data["val"]), "val")
    assert "the thresholds (auto)" in warning
    assert not [*reuse_warnings(report["test"], "test")]
    scores = evaluate_file(out, tiny_data["test"])
    assert scores["macro_f1"] == pytest.approx(report["test"]["macro_f1"], abs=1e-6)
    assert not [*reuse_warnings(scores, "test")]


def as_written(rows, folder):
    """Files with the texts of some rows, as people write them."""
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "renamed.jsonl").write_text(lines)
    decomposed = [{**row, "text": unicodedata.normalize("NFD", row["text"])} for row in rows]
    (folder / "nfd.json").write_text(json.dumps(decomposed, ensure_ascii=False), encoding="utf-8")
    spaced = [{**row, "text": " " + row["text"].upper().replace(" ", "\u00a0\n")} for row in rows]
    (folder / "spaced.json").write_text(json.dumps(spaced))
    with (folder / "converted.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *rows[0]["labels"]])
        writer.writerows([row["text"], *row["labels"].values()] for row in rows)
    return sorted(folder.iterdir())


def test_rows_used_for_fitting_are_counted_in_any_file(finished_run, tiny_data, tmp_path):
    out = finished_run.folder
    rows = {split: json.loads(path.read_text("utf-8")) for split, path in tiny_data.items()}
    uses = {
        "subset": rows["train"][:40],
        "superset": rows["train"] + rows["test"],
        "shuffled": rows["train"][::-1],
        "joined": rows["train"] + rows["val"] + rows["test"],
        "fresh": rows["test"],
    }
    for name, part in uses.items():
        folder = tmp_path / name
        folder.mkdir()
        part = [{**row, "id": str(index)} for index, row in enumerate(part)]
        count = sum(row["text"] in {row["text"] for row in rows["train"]} for row in part)
        for path in as_written(part, folder):
            used = {use["for"][0]: use["rows"] for use in used_in(out, path, len(part))}
            assert used == {
                "training": count,
                "the choice of the epoch": 48 * (name == "joined"),
            }, path
    assert call("evaluate", "--run", out, "--data", tmp_path / "subset" / "converted.csv") == 0


def used_in(run, path, count):
    classifier = jaxclf.load(run)
    examples = read(path, classifier.labels)
    assert len(examples.ids) == count
    return used_rows(classifier.provenance, hash_texts(examples.texts))


def test_calibration_and_thresholds_can_be_changed_after_training(finished_run):
    out, _, report = finished_run
    scores = evaluate_predictions(out, {"threshold": "plug_in"})
    assert "threshold_choice" not in scores["test"]
    assert scores["test"]["macro_auc"] == report["test"]["macro_auc"]
    assert scores["val"]["used_rows"][-1]["rows"] == 48
    with pytest.raises(ConfigError, match=r"^pool: "):
        evaluate_predictions(out, {"pool": "mean"})
    with pytest.raises(ConfigError, match="calibrated already"):
        evaluate_predictions(out, {"calibration": "beta"})


def test_predictions_of_another_program_get_the_default_calibration_and_rule(
    finished_run, tmp_path
):
    shutil.copytree(finished_run.folder / "predictions", tmp_path / "predictions")
    shutil.copy(finished_run.folder / "labels.json", tmp_path)
    scores = evaluate_predictions(tmp_path)
    assert scores["test"]["ece"] != finished_run.report["test"]["ece"]
    assert scores["test"]["threshold_choice"]["rule"] in RULES
    assert {"the calibration (platt)", "the thresholds (auto)"} <= {*scores["val"]["fitted"]}
    plain = evaluate_predictions(tmp_path, {"calibration": "none"})
    assert plain["test"]["ece"] == finished_run.report["test"]["ece"]
    assert "the calibration (platt)" not in plain["val"]["fitted"]
    with pytest.raises(ConfigError, match="'platt'"):
        evaluate_predictions(tmp_path, {"calibration": "plat"})


# Commands on a finished run.


def test_evaluate_takes_options_anywhere(finished_run, tmp_path):
    path = tmp_path / "scores.json"
    words = ["calibration=none", "--run", finished_run.folder, "threshold=plug_in", "--json", path]
    assert call("evaluate", *words) == 0
    expected = evaluate_predictions(finished_run.folder, {"threshold": "plug_in"})
    assert json.loads(path.read_text())["test"]["macro_f1"] == expected["test"]["macro_f1"]


def test_evaluate_writes_the_page_again_with_texts_on_request(
    capsys, finished_run, tmp_path, demo_rows
):
    out = shutil.copytree(finished_run.folder, tmp_path / "copy")
    texts = [row["text"] for row in demo_rows["test"][:48]]
    for options, has_texts in ((["--html"], False), (["--html", "--include-texts"], True)):
        (out / "report.html").unlink(missing_ok=True)
        assert call("evaluate", "--run", out, *options) == 0
        assert capsys.readouterr().out.strip() == str(out / "report.html")
        page = (out / "report.html").read_text(encoding="utf-8")
        assert any(text in page for text in texts if text.isalnum() or " " in text) == has_texts


def test_compare_prints_a_verdict(capsys, finished_run, tmp_path):
    out = finished_run.folder
    path = tmp_path / "comparison.json"
    assert call("compare", out, f"{out},{out}", "--resamples", 100, "--json", path) == 0
    assert "no evidence of a difference" in capsys.readouterr().out
    assert call("compare", out, f"{out},{out}", "--resamples", 100, "--split", "val") == 0
    assert "48 of 48 rows were used" in capsys.readouterr().out
    (record,) = json.loads(path.read_text()).values()
    assert record["metrics"]["macro_f1"]["difference"] == 0


def test_audit_writes_a_csv_with_texts_on_request(capsys, finished_run, demo_rows, tmp_path):
    texts = {row["id"]: row["text"] for row in demo_rows["test"]}
    for options, columns in (([], set()), (["--include-texts"], {"text"})):
        path = tmp_path / "issues.csv"
        assert call("audit", "--run", finished_run.folder, "--csv", path, *options) == 0
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert f"{len(rows)} annotations" in capsys.readouterr().out
        for row in rows:
            assert {"id", "label", "probability"} | columns <= set(row)
            assert row.get("text", texts[row["id"]]) == texts[row["id"]]
    assert call("audit", "--run", finished_run.folder, "--csv", path, "--split", "val") == 0
    assert "48 of 48 rows were used" in capsys.readouterr().out


def test_weights_that_are_not_finite_end_the_command_before_their_results(
    capsys, tiny_overrides, tmp_path, monkeypatch
):
    def spoil(epochs, read_epoch):
        return jax.tree.map(lambda leaf: leaf * np.nan, average_best(epochs, read_epoch))

    average_best = AVERAGES["best"]
    monkeypatch.setitem(AVERAGES, "best", spoil)
    words = to_words({**tiny_overrides, "train.epochs": 1})
    out = tmp_path / "run"
    assert call("train", "--exp", "focal_attention", "--out", out, *words) == 3
    error = capsys.readouterr().err
    assert "48 of 48" in error
    assert "Traceback" not in error
    assert not (out / "model").exists()
    assert not (out / "report.json").exists()


def test_predict_reads_an_exported_folder_like_the_run(capsys, finished_run, tmp_path):
    out, exported = finished_run.folder, tmp_path / "hf"
    assert call("export", "--run", out, "--to", "hf", "--out", exported) == 0
    assert "AutoModel" in capsys.readouterr().out
    outputs = []
    for folder in (out, exported):
        assert call("predict", "--run", folder, "a quiet day", "all of it at once") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""
    assert call("export", "--run", out, "--to", "hf", "--out", exported) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Mistakes.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.freeze": ["encoder/layer_7"]}, "encoder/layer_7"),
        ({"optim.reinit_layers": 7}, "2 layers"),
        ({"loss": "bce", "loss.pos_weight": [1.0, 2.0]}, "2 numbers for 6 labels"),
    ],
)
def test_options_that_encoder_or_labels_refuse_write_nothing(
    tiny_overrides, tmp_path, changes, message
):
    changes = {**tiny_overrides, **changes}
    with pytest.raises(ConfigError, match=message):
        train(override(catalog.load("focal_attention"), changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


BAD_DATA = {
    "malformed row": (
        '[{"text": "a", "labels": {"x": 1}},\n{"text": "b"\n]',
        ["bad.json:3", "JSON"],
    ),
    "unknown label": (
        '[{"text": "a", "labels": {"stress": 1}},\n {"text": "b", "labels": {"stres": 1}}]',
        ["bad.json:2", "'stres'", "'stress'"],
    ),
    "empty text": ('[{"text": " ", "labels": {"stress": 1}}]', ["bad.json:1", "without a text"]),
    "missing file": (None, ["bad.json: no such file"]),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_one_line_with_the_position(capsys, tmp_path, name, tiny_encoder):
    content, parts = BAD_DATA[name]
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    out = tmp_path / "run"
    words = ["--exp", "baseline", f"data.train={path}", f"encoder.name={tiny_encoder}"]
    assert call("train", *words, "--out", out) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    for part in parts:
        assert part in line
    assert not out.exists()


MISTAKES = {
    "train --exp baseline loss.gama=3": ["loss.gama", "'bce'"],
    "train trian.epochs=3 --exp baseline": ["'train.epochs'"],
    "train --exp baseline loss=focl": ["'focal'"],
    "train --exp baseline train.epochs=many": ["train.epochs='many'", "int"],
    "train --exp baseline optim.lr=-1": ["optim.lr=-1"],
    "train --exp basline": ["'basline'", "'baseline'"],
    "train --exp baseline encoder.name=/nowhere/at/all": ["/nowhere/at/all"],
    "train --exp no/such/file.py": ["no such file"],
    "train --exp baseline epochs": ["epochs", "key=value"],
    "predict --run nowhere 'a text'": ["nowhere", "no such file"],
    "predict --run nowhere": ["--input"],
    "predict --run nowhere ' '": ["empty"],
    "evaluate --run nowhere": ["nowhere", "no such file"],
    "evaluate --run nowhere --include-texts": ["--html"],
    "evaluate --run nowhere --html threshold=shared": ["--html"],
    "evaluate --run x --data y threshold=plug_in": ["threshold", "--data"],
    "compare nowhere": ["--ablate"],
    "compare nowhere nowhere": ["nowhere", "no such file"],
    "compare --ablate baseline": ["--out"],
    "audit --run nowhere": ["nowhere", "no such file"],
    "audit --exp baseline": ["--out"],
    "audit --run nowhere train.epochs=1": ["train.epochs=1", "--exp"],
    "ensemble --runs a loss=bce --out x": ["only blend and threshold"],
    "ensemble --runs a --folds 2 --out x": ["only blend and threshold"],
    "ensemble --out x": ["--runs DIR"],
    "ensemble --runs a --exp baseline --out x": ["--runs DIR"],
    "ensemble --exp baseline --folds 1 --out x": ["--folds"],
    "ensemble --runs a blend=nothing --out x": ["blend='nothing'"],
    "ensemble --runs a --out x": ["a/labels.json"],
    "export --run nowhere --to hf --out x --int8": ["does not apply to --to hf"],
    "export --run nowhere --to stablehlo --out x --input=padded": ["does not apply to --to stable"],
    "export --run nowhere --to onnx --out x --platforms=cpu": ["does not apply to --to onnx"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert call(*shlex.split(words)) == 2
    output = capsys.readouterr()
    *notes, line = output.err.splitlines()
    assert output.out == ""
    assert line.startswith("error: ")
    assert all(part in line for part in MISTAKES[words])
    assert not any("error" in note or "Traceback" in note for note in notes)
    assert not list(tmp_path.iterdir())


# Training.


@pytest.mark.slow
def test_frozen_layers_stay_and_reinitialized_layers_do_not(tiny_encoder, tiny_overrides, tmp_path):
    changes = {
        **tiny_overrides,
        "train.epochs": 1,
        "optim.lr": 1e-4,
        "optim.freeze": ["encoder/embeddings", "encoder/layer_0"],
        "optim.layerwise_lr_decay": 0.5,
        "optim.reinit_layers": 1,
        "optim.init_bias_from_prior": True,
    }
    train(override(catalog.load("focal_attention"), changes), tmp_path / "run")
    trained = flatten_params(jaxclf.load(tmp_path / "run").params)
    pretrained = flatten_params(
        pretrained_params(tiny_encoder, {"encoder": unflatten_dict(trained)["encoder"]})
    )
    for path, leaf in pretrained.items():
        if path[1] in ("embeddings", "layer_0"):
            np.testing.assert_array_equal(trained[path], leaf)
        elif path[-1] == "kernel":  # of layer 1: drawn at random, not just moved a little
            correlation = np.corrcoef(np.ravel(trained[path]), np.ravel(leaf))[0, 1]
            assert abs(correlation) < 0.2, path
    # At this learning rate, a bias that starts at 0 stays near 0.
    assert np.abs(trained["head", "classifier", "bias"]).max() > 1


@pytest.mark.slow
def test_a_calibrated_run_answers_calibrated_probabilities(tiny_overrides, tiny_data, tmp_path):
    changes = {"train.epochs": 1, "calibration": "platt", "threshold": "plug_in"}
    experiment = override(catalog.load("focal_attention"), {**tiny_overrides, **changes})
    report = train(experiment, tmp_path / "run")
    classifier = jaxclf.load(tmp_path / "run")
    assert classifier.calibrations[0].kind == "platt"
    stored = load_predictions(tmp_path / "run" / "predictions" / "test.npz")
    texts = [row["text"] for row in json.loads(tiny_data["test"].read_text(encoding="utf-8"))]
    np.testing.assert_allclose(classifier.predict_proba(texts), stored.probs, atol=1e-6, rtol=0)
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert [entry["what"] for entry in provenance["fitted"]] == [
        "the weights", "the choice of the epoch", "the calibration (platt)",
        "the thresholds (plug_in)",
    ]  # fmt: skip
    assert evaluate_predictions(tmp_path / "run") == report


@pytest.mark.slow
def test_an_audit_holds_every_row_out_once(capsys, tiny_overrides, tiny_data, tmp_path):
    out = tmp_path / "audit"
    words = to_words({**tiny_overrides, "train.epochs": 1})
    options = ["--exp", "baseline", "--folds", 2, "--out", out]
    assert call("audit", *words[:2], *options, *words[2:]) == 0
    output = capsys.readouterr()
    rows = json.loads(tiny_data["train"].read_text(encoding="utf-8"))
    merged = load_predictions(out / "predictions" / "held_out.npz")
    assert sorted(merged.ids) == sorted(row["id"] for row in rows)
    labels = {row["id"]: list(row["labels"].values()) for row in rows}
    np.testing.assert_array_equal(merged.labels, [labels[name] for name in merged.ids])
    parts = [
        set(load_predictions(out / f"fold-{fold}" / "predictions" / "held_out.npz").ids)
        for fold in (0, 1)
    ]
    assert not parts[0] & parts[1]
    provenance = json.loads((out / "fold-1" / "provenance.json").read_text())
    assert provenance["splits"]["train"]["rows"] == len(parts[0])
    assert set(json.loads((out / "fold-0" / "report.json").read_text())) == {"val", "test"}
    content = (out / "audit.csv").read_text(encoding="utf-8")
    assert f"{content.count(chr(10)) - 1} annotations" in output.out
    assert not any(row["text"] in content + output.out + output.err for row in rows)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(finished_run, tiny_overrides, tiny_data, tmp_path):
    """SIGKILL after the first checkpoint and after a later one, then to the end."""
    out = tmp_path / "killed"
    words = to_words({**tiny_overrides, "augment": "eda"})
    words = ["--exp", "focal_attention", *words, "--out", out]
    for checkpoints in (1, 2):
        process = start("train", *words)
        while process.poll() is None:
            steps = [int(path.stem) for path in (out / "integrity").glob("*.json")]
            if steps and max(steps) >= 3 * checkpoints:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (out / "report.json").exists()
    process = start("train", *words)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "resumed after" in stderr
    for name in ("model/model.safetensors", "model/head.safetensors", "report.json"):
        assert (out / name).read_bytes() == (finished_run.folder / name).read_bytes(), name
    assert "threshold" in stdout
    for row in json.loads(tiny_data["train"].read_text()):
        assert row["text"] not in stdout + stderr


class InterruptionError(Exception):
    pass


@pytest.mark.slow
def test_every_kind_of_regularization_resumes_to_the_same_bits(tiny_overrides, tmp_path):
    changes = {
        "data.max_train_examples": 48,
        "augment": "eda",
        "sampler": "balanced",
        "head.dropout_samples": 2,
        "optim.gradient_accumulation_steps": 2,
        "regularization.rdrop": 0.5,
        "regularization.mixup": 0.4,
        "regularization.adversarial": {"name": "fgm", "epsilon": 0.1},
        "regularization.ema_decay": 0.9,
        "regularization.weight_averaging": "swa",
    }
    experiment = override(catalog.load("focal_attention"), {**tiny_overrides, **changes})
    report = train(experiment, tmp_path / "uninterrupted")
    scores = []

    def interrupt(score, done):
        scores.append((score, done))
        if done == 1 and len(scores) == 2:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train(experiment, tmp_path / "interrupted", report_score=interrupt)
    assert not (tmp_path / "interrupted" / "report.json").exists()
    resumed = train(
        experiment, tmp_path / "interrupted", report_score=lambda *score: scores.append(score)
    )
    assert json.dumps(resumed) == json.dumps(report)  # a score may be NaN
    assert scores[2:] == scores[1:2]  # the second epoch alone was repeated
    weights = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("uninterrupted", "interrupted")
    ]
    assert weights[0] == weights[1]
