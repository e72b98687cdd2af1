"""Each command on a tiny sample with a two-layer encoder; bad input; SIGKILL and on again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import jaxclf
from jaxclf.compare import ablate, ablation_table, score_ablation
from jaxclf.decisions.predictions import load_predictions
from jaxclf.errors import ConfigError, DataError
from jaxclf.evaluate import evaluate_file, evaluate_predictions
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.inference.load import load
from jaxclf.model.storage.saved_model import pretrained_params
from jaxclf.model.storage.weights import flatten_params
from jaxclf.predict import predict_file
from jaxclf.training.run import train

REPORT = {
    "macro_f1", "micro_f1", "weighted_f1", "samples_f1", "subset_accuracy", "label_accuracy",
    "hamming_loss", "macro_auc", "map", "ece", "intervals", "labels",
}  # fmt: skip
LABEL = {"precision", "recall", "f1", "auc", "ap", "support", "threshold"}


def overrides(tiny_encoder, tiny_data, **more):
    return {
        "encoder.name": str(tiny_encoder),
        **{f"data.{split}": str(path) for split, path in tiny_data.items()},
        "data.max_length": 32,
        "train.epochs": 2,
        "train.checkpoint_every": 3,
        "optim.lr": 3e-3,
        **more,
    }


def command(module, *words, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"jaxclf.{module}", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def as_words(changes):
    return [f"{key}={value}" for key, value in changes.items()]


@pytest.fixture
def finished(finished_run):
    return finished_run


def test_a_run_folder_holds_what_the_contract_says(finished):
    out, experiment, report = finished
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
    card = (out / "model" / "README.md").read_text()
    assert "A person decides" in card


def test_loading_gives_the_runs_own_probabilities(finished, demo_rows):
    out, _, _ = finished
    classifier = jaxclf.load(out)
    texts = [row["text"] for row in demo_rows["test"][:48]]
    stored = load_predictions(out / "predictions" / "test.npz")
    np.testing.assert_allclose(classifier.predict_proba(texts), stored.probs, atol=1e-6, rtol=0)
    assert jaxclf.load(out / "model").labels == classifier.labels
    assert list(stored.ids) == [row["id"] for row in demo_rows["test"][:48]]
    given = classifier.predict(texts)
    for names, probs in zip(given, stored.probs, strict=True):
        assert names == [
            name
            for name, p, t in zip(classifier.labels, probs, classifier.thresholds, strict=True)
            if p >= t
        ]


def test_what_is_frozen_stays_and_what_starts_anew_does(tiny_encoder, tiny_data, tmp_path):
    changes = overrides(
        tiny_encoder,
        tiny_data,
        **{
            "train.epochs": 1,
            "optim.lr": 1e-4,
            "optim.freeze": ["encoder/embeddings", "encoder/layer_0"],
            "optim.layerwise_lr_decay": 0.5,
            "optim.reinit_layers": 1,
            "optim.init_bias_from_prior": True,
        },
    )
    train(override(catalog.load("focal_attention"), changes), tmp_path / "run")
    trained = flatten_params(jaxclf.load(tmp_path / "run").params)
    pretrained = flatten_params(
        pretrained_params(tiny_encoder, {"encoder": unflatten_dict(trained)["encoder"]})
    )
    for path, leaf in pretrained.items():
        if path[1] in ("embeddings", "layer_0"):
            np.testing.assert_array_equal(trained[path], leaf)
        elif path[-1] == "kernel":  # of layer 1, drawn anew: not just moved a little
            kept = np.corrcoef(np.ravel(trained[path]), np.ravel(leaf))[0, 1]
            assert abs(kept) < 0.2, path
    # At this rate a bias that starts at 0 stays there.
    assert np.abs(trained["head", "classifier", "bias"]).max() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.freeze": ["encoder/layer_7"]}, "matches none of"),
        ({"optim.reinit_layers": 7}, "the encoder has 2 layers"),
        ({"loss": "bce", "loss.pos_weight": [1.0, 2.0]}, "2 numbers for 6 labels"),
    ],
)
def test_what_encoder_or_labels_do_not_have_is_refused_before_anything_is_written(
    tiny_encoder, tiny_data, tmp_path, changes, message
):
    changes = overrides(tiny_encoder, tiny_data, **changes)
    with pytest.raises(ConfigError, match=message):
        train(override(catalog.load("focal_attention"), changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_export_gives_a_folder_that_predict_takes(finished, tmp_path):
    out, _, _ = finished
    done = command("export", "--run", out, "--to", "hf", "--out", tmp_path / "hf")
    assert (done.returncode, done.stderr) == (0, "")
    assert "AutoModel (the encoder alone)" in done.stdout
    texts = ["a quiet day", "all of it at once"]
    one, other = (
        command("predict", "--run", folder, *texts).stdout for folder in (out, tmp_path / "hf")
    )
    assert one == other != ""
    again = command("export", "--run", out, "--to", "hf", "--out", tmp_path / "hf")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1


def test_alone_or_in_company_in_any_order_a_text_gets_the_same(finished, demo_rows):
    out, _, _ = finished
    classifier = load(out)
    texts = [row["text"] for row in demo_rows["val"]]
    together = classifier.predict_proba(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = classifier.predict_proba([texts[index] for index in order])
    np.testing.assert_allclose(shuffled, together[order], atol=1e-6, rtol=0)
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts[:10]])
    np.testing.assert_allclose(alone, together[:10], atol=1e-6, rtol=0)
    assert classifier.predict_proba([]).shape == (0, len(classifier.labels))
    assert classifier.groups[0].step._cache_size() == 1


def test_evaluate_gives_the_report_again(finished, tiny_data):
    out, _, report = finished
    again, warnings = evaluate_predictions(out)
    assert again == report
    assert warnings == [
        "val fitted the choice of the epoch and the thresholds (per_label): figures on it flatter."
    ]
    from_file, warning = evaluate_file(out, tiny_data["test"])
    assert from_file["macro_f1"] == pytest.approx(report["test"]["macro_f1"], abs=1e-6)
    assert warning is None


def test_a_file_that_fitted_something_is_known_whatever_it_is_called(finished, tiny_data, tmp_path):
    out, _, _ = finished
    rows = json.loads(tiny_data["train"].read_text(encoding="utf-8"))
    (tmp_path / "fresh.jsonl").write_text("\n".join(json.dumps(row) for row in rows[::-1]))
    assert evaluate_file(out, tmp_path / "fresh.jsonl")[1] == (
        "train fitted the weights: figures on it flatter."
    )
    (tmp_path / "fewer.jsonl").write_text("\n".join(json.dumps(row) for row in rows[1:]))
    assert evaluate_file(out, tmp_path / "fewer.jsonl")[1] is None


def test_other_thresholds_can_be_tried_on_a_runs_predictions(finished):
    out, _, report = finished
    tried, warnings = evaluate_predictions(out, {"calibration": "platt", "threshold": "plug_in"})
    assert tried["test"]["ece"] != report["test"]["ece"]
    assert tried["test"]["macro_auc"] == pytest.approx(report["test"]["macro_auc"])
    assert "the calibration (platt)" in warnings[0]
    with pytest.raises(ConfigError, match="pool: only calibration and threshold"):
        evaluate_predictions(out, {"pool": "mean"})
    with pytest.raises(ConfigError, match="did you mean 'platt'"):
        evaluate_predictions(out, {"calibration": "plat"})


def test_compare_prints_a_verdict_and_an_ablation_goes_on(tiny_encoder, tiny_data, tmp_path):
    changes = overrides(
        tiny_encoder, tiny_data, **{"train.epochs": 1, "data.max_train_examples": 40}
    )
    changes |= {"pool": "cls", "head": "native", "sampler": "shuffle", "loss": "bce"}
    runs = ablate("focal_attention", changes, 1, tmp_path / "runs")
    # One choice is left to put back: then that is the baseline, and one run serves both.
    assert list(runs) == ["full", "optim.schedule=linear", "baseline"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("report.json")}
    assert len(times) == 2
    assert ablate("focal_attention", changes, 1, tmp_path / "runs") == runs  # nothing anew
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    record = score_ablation(runs, 200)
    assert list(record) == ["optim.schedule=linear", "baseline", "threshold=fixed"]
    text = ablation_table(record)
    assert "| optim.schedule=linear | " in text
    done = command("compare", runs["full"][0], runs["baseline"][0], "--resamples", 200)
    assert done.returncode == 0, done.stderr
    assert "no evidence of a difference" in done.stdout or "is better" in done.stdout
    alone = command("compare", runs["full"][0])
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)


def test_a_calibrated_run_answers_calibrated_probabilities(tiny_encoder, tiny_data, tmp_path):
    changes = overrides(
        tiny_encoder,
        tiny_data,
        **{"train.epochs": 1, "calibration": "platt", "threshold": "plug_in"},
    )
    report = train(override(catalog.load("focal_attention"), changes), tmp_path / "run")
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
    assert evaluate_predictions(tmp_path / "run")[0] == report


def test_folds_are_audited_and_hold_every_row_out_once(tiny_encoder, tiny_data, tmp_path):
    out = tmp_path / "audit"
    words = ["--exp", "baseline", "--folds", 2, "--out", out]
    words += as_words(overrides(tiny_encoder, tiny_data, **{"train.epochs": 1}))
    answer = command("audit", *words)
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(tiny_data["train"].read_text(encoding="utf-8"))
    merged = load_predictions(out / "predictions" / "held_out.npz")
    assert sorted(merged.ids) == sorted(row["id"] for row in rows)
    by_id = {row["id"]: list(row["labels"].values()) for row in rows}
    np.testing.assert_array_equal(merged.labels, [by_id[name] for name in merged.ids])
    parts = [
        set(load_predictions(out / f"fold-{fold}" / "predictions" / "held_out.npz").ids)
        for fold in (0, 1)
    ]
    assert not parts[0] & parts[1]
    provenance = json.loads((out / "fold-1" / "provenance.json").read_text())
    assert provenance["splits"]["train"]["rows"] == len(parts[0])
    assert set(json.loads((out / "fold-0" / "report.json").read_text())) == {"val", "test"}
    csv_file = (out / "audit.csv").read_text(encoding="utf-8")
    assert csv_file.startswith("id,label,given,suggested,probability\n")
    assert f"{csv_file.count(chr(10)) - 1} given values to look at again" in answer.stdout
    assert not any(row["text"] in csv_file + answer.stdout + answer.stderr for row in rows)
    shown = command(
        "audit", "--run", out / "fold-0", "--split", "held_out", "--show-text",
        "--output", tmp_path / "shown.csv",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    texts = {row["id"]: row["text"] for row in rows}
    with (tmp_path / "shown.csv").open(encoding="utf-8", newline="") as file:
        assert all(texts[row["id"]] == row["text"] for row in csv.DictReader(file))


@pytest.mark.parametrize("text", ["", "  ", "half \ud83d a pair"])
def test_what_is_no_text_is_refused_by_its_number(finished, text):
    with pytest.raises(DataError, match="text 1 "):
        load(finished[0]).predict_proba(["a text", text])


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_predict_writes_every_row_in_order(finished, tiny_data, demo_rows, tmp_path, ending):
    out, _, _ = finished
    classifier = load(out)
    target = tmp_path / f"labelled{ending}"
    assert predict_file(classifier, tiny_data["test"], target) == 48
    text = target.read_text(encoding="utf-8")
    if ending == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        given = [[name for name in classifier.labels if row[name] == "1"] for row in rows]
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        given = [row["labels"] for row in rows]
    assert [row["id"] for row in rows] == [row["id"] for row in demo_rows["test"][:48]]
    assert given == classifier.predict(row["text"] for row in demo_rows["test"][:48])
    assert demo_rows["test"][0]["text"] not in text
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_finished_run_answers_with_its_report(finished):
    out, experiment, report = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train(experiment, out)["test"]["macro_f1"] == report["test"]["macro_f1"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_folder_of_another_experiment_is_not_touched(finished):
    out, experiment, _ = finished
    with pytest.raises(ConfigError, match=r"loss.*--out"):
        train(override(experiment, {"loss.gamma": 1.0}), out)
    with pytest.raises(ConfigError, match="exists"):
        train(experiment, out, resume="never")


def test_a_killed_run_goes_on_and_ends_in_the_same_bits(
    finished, tiny_encoder, tiny_data, tmp_path
):
    """SIGKILL after the first checkpoint and again after a later one; then to the end."""
    whole, _, _ = finished
    torn = tmp_path / "torn"
    words = ["--exp", "focal_attention", "--out", torn]
    words += as_words(overrides(tiny_encoder, tiny_data, augment="eda"))
    for checkpoints in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxclf.train", *map(str, words)], stderr=subprocess.PIPE
        )
        while process.poll() is None:
            steps = [int(path.stem) for path in (torn / "integrity").glob("*.json")]
            if steps and max(steps) >= 3 * checkpoints:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (torn / "report.json").exists()
    answer = command("train", *words)
    assert answer.returncode == 0, answer.stderr
    assert "resumed after batch" in answer.stderr
    for name in ("model/model.safetensors", "model/head.safetensors", "report.json"):
        assert (torn / name).read_bytes() == (whole / name).read_bytes(), name
    assert "macro F1" in answer.stdout
    assert "threshold" in answer.stdout
    for row in json.loads(tiny_data["train"].read_text()):
        assert row["text"] not in answer.stdout + answer.stderr


class Enough(Exception):
    pass


def test_everything_at_once_goes_on_to_the_same_bits(tiny_encoder, tiny_data, tmp_path):
    """Two passes, mixing, an adversary, a running mean, a soup, sampled heads, accumulation: ended
    in the middle and begun again."""
    changes = overrides(
        tiny_encoder,
        tiny_data,
        **{
            "data.max_train_examples": 48, "augment": "eda", "sampler": "balanced", "head.dropout_samples": 2,
            "optim.gradient_accumulation_steps": 2, "regularization.rdrop": 0.5, "regularization.mixup": 0.4,
            "regularization.adversarial": {"name": "fgm", "epsilon": 0.1}, "regularization.ema_decay": 0.9,
            "regularization.weight_averaging": "swa",
        },
    )  # fmt: skip
    experiment = override(catalog.load("focal_attention"), changes)
    whole = train(experiment, tmp_path / "whole")
    scores = []

    def stop(score):
        scores.append(score)
        if len(scores) == 2:
            raise Enough

    with pytest.raises(Enough):
        train(experiment, tmp_path / "torn", report_score=stop)
    assert not (tmp_path / "torn" / "report.json").exists()
    again = train(experiment, tmp_path / "torn", report_score=scores.append)
    assert again == whole
    assert scores[2:] == scores[1:2]  # only what was left was done again
    name = "model/model.safetensors"
    assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    provenance = json.loads((tmp_path / "whole" / "provenance.json").read_text())
    assert "the choice of the epochs that are averaged" in str(provenance["fitted"])


BAD = {
    "malformed row": (
        '[{"text": "a", "labels": {"x": 1}},\n{"text": "b"\n]',
        "bad.json:3: not JSON",
    ),
    "unknown label": (
        '[{"text": "a", "labels": {"stress": 1}},\n {"text": "b", "labels": {"stres": 1}}]',
        "bad.json:2: unknown label 'stres'; did you mean 'stress'?",
    ),
    "empty text": ('[{"text": " ", "labels": {"stress": 1}}]', "bad.json:1: the text is empty"),
    "missing file": (None, "bad.json: no such file"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_data_is_one_line_with_the_place(tmp_path, fault, tiny_encoder):
    content, message = BAD[fault]
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    answer = command(
        "train", "--exp", "baseline", "--out", tmp_path / "run",
        f"data.train={tmp_path / 'bad.json'}", f"encoder.name={tiny_encoder}",
    )  # fmt: skip
    assert answer.returncode == 2
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exp", "baseline", "loss.gama=3"], "loss.gama: 'bce' has no such option"),
        (["--exp", "baseline", "trian.epochs=3"], "did you mean 'train.epochs'?"),
        (["--exp", "baseline", "loss=focl"], "did you mean 'focal'?"),
        (["--exp", "baseline", "train.epochs=many"], "train.epochs='many': expected int"),
        (["--exp", "baseline", "optim.lr=-1"], "optim.lr=-1.0 is out of range"),
        (["--exp", "basline"], "unknown experiment 'basline'; did you mean 'baseline'?"),
        (["--exp", "baseline", "encoder.name=/nowhere/at/all"], "no folder with a config.json"),
        (["--exp", "no/such/file.py"], "no such file"),
        (["--exp", "baseline", "epochs"], "not of the form key=value"),
    ],
)
def test_a_bad_key_or_experiment_is_one_line(tmp_path, words, message):
    answer = command("train", *words, "--out", tmp_path / "run")
    assert answer.returncode == 2
    line = answer.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        ("predict", ["--run", "nowhere", "a text"], "no such file"),
        ("predict", ["--run", "nowhere"], "give texts, or --input"),
        ("predict", ["--run", "nowhere", " "], "an empty text"),
        ("evaluate", ["--run", "nowhere"], "no such file"),
        ("audit", ["--run", "nowhere"], "no such file"),
        ("audit", ["--exp", "baseline"], "--exp NAME with --out DIR"),
    ],
)
def test_other_commands_say_what_is_missing(module, words, message):
    answer = command(module, *words)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize("module", ["train", "predict", "evaluate", "compare", "audit"])
def test_help_suffices(module):
    answer = command(module, "--help")
    assert answer.returncode == 0
    assert f"python -m jaxclf.{module}" in answer.stdout
