"""A cascade is one folder that opens like a run: each text has the output of the stage at which it
exits, and no network reads a text twice."""

import contextlib
import io
import json
import shutil

import jax
import numpy as np
import pytest
from scipy.special import logit

import jaxclf
from jaxclf import cascade as command
from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, apply_calibration, calibration_to_json
from jaxclf.decisions.compare_runs import compare_systems, read_system
from jaxclf.decisions.predictions import load_predictions, save_predictions
from jaxclf.decisions.provenance import Provenance, reuse_warnings, write_provenance
from jaxclf.decisions.row_hashes import ROW_HASHES
from jaxclf.decisions.thresholds import plug_in
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.files.json_file import read_json, write_json
from jaxclf.inference.cascade import build, stages
from jaxclf.inference.cascade.config import CascadeConfig
from jaxclf.inference.cascade.cutoffs import NO_LIMIT
from jaxclf.inference.cascade.folder import CASCADE, load_cascade, new_networks
from jaxclf.inference.cascade.rules import Rule, apply_rules, read_rules
from jaxclf.inference.cascade.summary import measure_cost
from jaxclf.inference.members import model_folder
from jaxclf.inference.model_groups import make_group, score_group
from jaxclf.model.classifier import param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, open_encoder, pretrained_params, save_model
from jaxclf.reports.evaluate import evaluate_file
from jaxclf.text import splits as text_splits
from jaxclf.text.reader import read
from jaxclf.types import Predictions

NAMES = ("calm", "stress", "harm")
NETWORKS = ("small", "similar", "large")
ERRORS = (0.2, 0.4, 0.4)  # of each network's head, relative to what all heads share
CURVE = Calibration("platt", ({"slope": 1.2, "intercept": 0.1},) * 3)
MEAN_LOGITS = np.array([0.5, 0.0, -1.5], np.float32)
SPLITS = ("val", "test")
# Two programs of one network differ by rounding.
CLOSE = {"atol": 1e-6, "rtol": 0}


def demo_texts(demo_rows, split):
    """The texts of a split and their first halves, since the sets are small."""
    texts = [row["text"] for row in demo_rows[split]]
    halves = [" ".join(text.split()[: len(text.split()) // 2]) for text in texts]
    return list(dict.fromkeys([*texts, *halves]))


def make_networks(encoder_folder, data, texts):
    """The random encoder under three random heads, with logits that spread over these texts."""
    experiment = Experiment(data, Encoder("tiny"), Spec("mean"), Spec("linear"))
    hf_config, tokenizer = open_encoder(encoder_folder)
    shapes = param_shapes(experiment, hf_config, len(NAMES))
    encoder = pretrained_params(encoder_folder, {"encoder": shapes["encoder"]})
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(32, 3))
    kernels = [shared + error * rng.normal(size=(32, 3)) for error in ERRORS]
    thresholds = {name: {"value": 0.5, "split": "val", "rule": "fixed"} for name in NAMES}
    record = {"splits": {}, "fitted": [{"what": "the weights", "split": "train"}], "files": {}}
    provenance = Provenance(record, {"train": text_splits.hash_texts(("a text",))})

    def make_model(kernel, bias):
        layer = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        params = {**encoder, "head": {"classifier": layer}}
        curves = calibration_to_json(CURVE)
        return SavedModel(experiment, hf_config, NAMES, thresholds, curves, provenance, params)

    small = 0.01  # logits so small that probabilities are linear in them
    models = [make_model(small * kernel, np.zeros(3)) for kernel in kernels]
    group = make_group(models, [0, 1, 2], tokenizer)
    logits = logit(score_group(group, texts["val"]).astype(np.float64)) / small
    models = [
        make_model(1.5 * kernel / spread, MEAN_LOGITS - 1.5 * mean / spread)
        for kernel, spread, mean in zip(
            kernels, logits.std(axis=1), logits.mean(axis=1), strict=True
        )
    ]
    trees = [model.params for model in models]
    params = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *trees)
    group = group._replace(params=params)
    probs = {
        split: np.array([apply_calibration(CURVE, raw) for raw in score_group(group, texts[split])])
        for split in SPLITS
    }
    return models, tokenizer, probs


@pytest.fixture(scope="module")
def folder(tiny_encoder, demo_rows, tmp_path_factory):
    """Runs of three networks and of the `blend` of all, without training: labels are drawn from the
    blend's probabilities."""
    folder = tmp_path_factory.mktemp("cascade")
    texts = {split: demo_texts(demo_rows, split) for split in SPLITS}
    train, val, test = (str(folder / f"{split}.jsonl") for split in ("train", *SPLITS))
    data = Data(train, val, test, max_length=16, max_windows=2, window_overlap=2)
    models, tokenizer, probs = make_networks(tiny_encoder, data, texts)
    for name, model in zip(NETWORKS, models, strict=True):
        save_model(folder / name / "model", model, tokenizer, "a card")
    runs = {
        name: {split: probs[split][index] for split in SPLITS}
        for index, name in enumerate(NETWORKS)
    }
    even = np.full((3, 3), 1 / 3)
    runs["blend"] = {split: blend(probs[split], even) for split in SPLITS}
    rng, provenance, examples = np.random.default_rng(0), models[0].provenance, {}
    for split in SPLITS:
        drawn = rng.random((len(texts[split]), 3)) < runs["blend"][split]
        rows = [
            json.dumps({"text": text, "labels": dict(zip(NAMES, row, strict=True))})
            for text, row in zip(texts[split], drawn.astype(int).tolist(), strict=True)
        ]
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(rows), encoding="utf-8")
        examples[split] = read(path, NAMES)
        provenance.record["splits"][split] = text_splits.describe(examples[split])
        provenance.row_hashes[split] = text_splits.hash_texts(examples[split].texts)
    for name, by_split in runs.items():
        for split, split_probs in by_split.items():
            ids, labels = np.array(examples[split].ids), examples[split].labels
            path = folder / name / "predictions" / f"{split}.npz"
            save_predictions(path, Predictions(ids, split_probs, labels, split))
        values = plug_in(examples["val"].labels, by_split["val"])
        record = {
            label: {"value": value, "split": "val", "rule": "plug_in", "prior_strength": 20.0}
            for label, value in zip(NAMES, values.tolist(), strict=True)
        }
        write_json(folder / name / "thresholds.json", record)
        write_provenance(folder / name, provenance)
        write_json(folder / name / "labels.json", NAMES)
    networks = [folder / name / "model" for name in NETWORKS]
    ensemble = Blend(NETWORKS, NAMES, even, record, provenance)
    save_ensemble(folder / "blend" / "model", ensemble, networks, "a card")
    return folder


def run(*words):
    """(exit code, stdout, stderr) of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def built(folder):
    """(the cascade's folder, stdout of the command)."""
    out = folder / "fast"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxclf.reports.html_report.draw_figures", lambda *_: [])  # slow to draw
        runs = [folder / "small", folder / "blend"]
        code, printed, errors = run("--runs", *runs, "max_metric_loss=0.005", "--out", out)
    assert code == 0, errors
    return out, printed


@pytest.fixture(scope="module")
def cascade(built):
    return jaxclf.load(built[0])


def split_texts(folder, split="test"):
    return list(read(folder / f"{split}.jsonl", NAMES).texts)


def stored_probs(run_folder, split="test"):
    return load_predictions(run_folder / "predictions" / f"{split}.npz").probs


def with_plan(cascade, **values):
    """The same networks under a changed plan."""
    plan = cascade.plan._replace(**values)
    return stages.Cascade(plan, cascade.new_groups, cascade.calibrations)


def test_each_text_has_the_output_of_the_stage_at_which_it_exits(folder, cascade):
    texts = split_texts(folder)
    outputs = cascade.run(texts)
    is_early = outputs.stage == 0
    assert 0.1 < is_early.mean() < 0.9
    early_probs = apply_calibration(
        cascade.plan.exits[0].calibration, stored_probs(folder / "small")
    )
    final_probs = stored_probs(folder / "blend")
    np.testing.assert_allclose(outputs.probs[is_early], early_probs[is_early], **CLOSE)
    np.testing.assert_allclose(outputs.probs[~is_early], final_probs[~is_early], **CLOSE)
    thresholds = read_json(folder / "blend" / "thresholds.json")
    assert cascade.thresholds.tolist() == [thresholds[name]["value"] for name in NAMES]
    assert cascade.stages(texts) == [("small", "blend")[stage] for stage in outputs.stage]


def test_every_path_gives_the_same(folder, built, cascade, monkeypatch):
    out, _ = built
    texts = split_texts(folder)
    probs = cascade.predict_proba(texts)
    np.testing.assert_allclose(probs, stored_probs(out), **CLOSE)
    assert model_folder(out) == model_folder(out / "model") == out / "model"
    # A text's probabilities do not depend on the texts beside it.
    rows = [0, 7, 3]
    alone = [cascade.predict_proba([texts[row]])[0] for row in rows]
    np.testing.assert_allclose(alone, probs[rows], **CLOSE)
    decisions = probs >= cascade.thresholds
    labels = [[name for name, yes in zip(NAMES, row, strict=True) if yes] for row in decisions]
    assert cascade.predict(texts) == labels
    assert cascade.predict_proba([]).shape == (0, 3)
    report = read_json(out / "report.json")
    monkeypatch.setattr("jaxclf.evaluate.load", lambda run: cascade, raising=False)
    # The scores of val in the report are out of fold.
    macro_f1 = {
        "val": report["val"]["crossfit"]["macro_f1"]["in_sample"],
        "test": report["test"]["macro_f1"],
    }
    for split, is_biased in (("val", True), ("test", False)):
        metrics = evaluate_file(out, folder / f"{split}.jsonl")
        assert metrics["macro_f1"] == pytest.approx(macro_f1[split])
        count = metrics["used_rows"][-1]["of"]
        sentences = [*reuse_warnings(metrics, split), *reuse_warnings(report[split], split)]
        assert len(sentences) == 2 * is_biased
        for sentence in sentences:
            assert f"{count} of {count} rows were used for" in sentence
            assert "the cut-offs of the cascade" in sentence
    systems = (read_system(run.name, [run], "test") for run in (out, folder / "blend"))
    difference = compare_systems(*systems, 50, 0).metrics["macro_f1"].value
    summary = read_json(out / "stages.json")
    assert summary["metric_loss"]["test"]["difference"] == pytest.approx(difference)


def test_no_network_reads_a_text_twice(folder, cascade, monkeypatch):
    calls = []
    real_score = stages.score_group

    def score(group, texts):
        calls.append((group.members, list(texts)))
        return real_score(group, texts)

    monkeypatch.setattr(stages, "score_group", score)
    texts = split_texts(folder)
    stage = cascade.run(texts).stage
    continuing = [text for text, index in zip(texts, stage, strict=True) if index]
    # The two networks that only the final stage has are of one architecture: one program.
    assert calls == [((0,), texts), ((1, 2), continuing)]
    calls.clear()
    always_exit = cascade.plan.exits[0]._replace(uncertain=np.tile([0.5, 0.5], (3, 1)))
    with_plan(cascade, exits=(always_exit,)).predict_proba(texts)
    assert [members for members, _ in calls] == [(0,)]


def test_the_folder_is_a_runs_and_holds_each_network_once(folder, built):
    out, printed = built
    for name in (
        "labels.json provenance.json thresholds.json report.json report.html stages.json "
        "diagnosis.json predictions/val.npz model/cascade.json model/README.md "
        "model/network-2/model.safetensors"
    ).split():
        assert (out / name).is_file(), name
    assert len(list((out / "model").glob("network-*"))) == 3
    assert not list(out.rglob("*.part"))
    assert (out / "thresholds.json").read_text() == (folder / "blend/thresholds.json").read_text()
    for split in SPLITS:
        assert len(stored_probs(out, split)) == len(split_texts(folder, split))
    page, card = (out / "report.html").read_text(), (out / "model" / "README.md").read_text()
    for text in (printed, page, card):
        assert "macro F1 alone" in text
    assert "Not recorded" not in page
    for text in split_texts(folder):
        assert text not in printed + card


def test_the_summary_holds_rates_losses_and_costs(built):
    summary = read_json(built[0] / "stages.json")
    for split in SPLITS:
        assert sum(stage["exit_rate"][split] for stage in summary["stages"]) == pytest.approx(1)
    continuing = summary["stages"][1]["exit_rate"]["test"]
    assert 1 / 3 < summary["cost"]["tokens"] < 1
    # Tokens against texts; the tokenizer's vocabulary is trained for each session.
    assert summary["cost"]["tokens"] == pytest.approx((1 + 2 * continuing) / 3, abs=0.1)
    rates = summary["cost"]["texts_per_second"]
    assert summary["cost"]["time"] == pytest.approx(rates["final_stage"] / rates["cascade"])
    losses = summary["metric_loss"]
    # The fitted exponentials follow the expected losses only roughly on few texts.
    assert losses["expected"] + 0.84 * losses["standard_deviation"] < 1.5 * 0.005


def test_rules_escalate_texts_and_force_labels(folder, cascade):
    texts = split_texts(folder)
    outputs = cascade.run(texts)
    early = int(np.flatnonzero(outputs.stage == 0)[0])
    words = texts[early].lower().split()
    phrase = " ".join(word.strip(".,!?") for word in words[1:4])
    rules = (Rule((phrase,), None), Rule(("zzz*", phrase), "harm"))
    matches = apply_rules(rules, texts, NAMES)
    np.testing.assert_array_equal(matches.escalate, matches.forced[:, 2])
    assert matches.escalate[early]
    assert not matches.forced[:, :2].any()
    with_rules = with_plan(cascade, rules=rules).run(texts)
    assert with_rules.stage[early] == 1
    assert with_rules.probs[early, 2] == 1
    final_probs = stored_probs(folder / "blend")[early, :2]
    np.testing.assert_allclose(with_rules.probs[early, :2], final_probs, **CLOSE)
    unmatched = ~matches.escalate
    np.testing.assert_allclose(with_rules.probs[unmatched], outputs.probs[unmatched], **CLOSE)


@pytest.mark.parametrize(
    ("phrase", "text", "is_match"),
    [
        ("want to die", "I WANT, to... die", True),
        ("want to die", "I want to diet", False),
        ("want to die", "unwant to die", False),
        ("suicid*", "Suicidal thoughts", True),
        ("suicid*", "parasuicidal", False),
        ("kill* myself", "killing  myself", True),
        ("don't", "I don\N{RIGHT SINGLE QUOTATION MARK}t", True),
        ("straße", "STRASSE", True),
        ("c++", "in C++.", True),
        ("a.c", "abc", False),
        ("late", " " * 19_990 + "late", True),
        ("late", " " * 20_000 + "late", False),
    ],
)
def test_a_phrase_matches_words(phrase, text, is_match):
    assert apply_rules([Rule((phrase,), None)], [text], NAMES).escalate[0] == is_match


def test_no_phrase_backtracks():
    """A pattern that takes exponential time would never return."""
    phrases = tuple(f"a* b{number}* c*" for number in range(50))
    texts = ["a" * 20_000, "a b" * 5000, "a " * 10_000, "a! b! " * 3000, "ab" * 10_000]
    assert not apply_rules([Rule(phrases, None)], texts, NAMES).escalate.any()


def test_only_the_final_stage_predicts_a_final_stage_label(folder, cascade):
    uncertain = cascade.plan.exits[0].uncertain.copy()
    uncertain[2] = 0.2, NO_LIMIT
    early_exit = cascade.plan.exits[0]._replace(uncertain=uncertain)
    outputs = with_plan(cascade, exits=(early_exit,)).run(split_texts(folder))
    is_predicted = outputs.probs[:, 2] >= 0.2
    assert is_predicted.any()
    assert (outputs.stage[is_predicted] == 1).all()


def test_a_label_too_rare_for_the_miss_rate_is_reported(
    folder, cascade, tmp_path, monkeypatch, caplog
):
    """Nothing is loaded, timed or drawn; the tests above do that."""
    cost = {"tokens": 1.0, "time": None, "texts_per_second": None}
    monkeypatch.setattr(build, "load", lambda run: cascade)
    monkeypatch.setattr(build, "make_cascade", lambda plan, networks: None)
    monkeypatch.setattr(build, "measure_cost", lambda *parts: cost)
    monkeypatch.setattr("jaxclf.reports.html_report.write_page", lambda out: None)
    out = tmp_path / "safe"
    runs = [folder / name for name in ("small", "similar", "blend")]
    words = ["final_stage_labels=harm", "max_miss_rate=0.0001"]
    code, printed, errors = run("--runs", *runs, *words, "--out", out)
    assert code == 0, errors
    assert "max_miss_rate=0.0001 needs 19999" in caplog.text + errors
    summary = read_json(out / "stages.json")
    assert [stage["exit_rate"]["test"] for stage in summary["stages"]] == [0, 0, 1]
    assert summary["final_stage_labels"]["harm"]["test"]["missed"] == 0
    assert "harm: the final stage predicts it" in printed
    assert summary["metric_loss"]["test"]["difference"] == 0
    plan, _ = load_cascade(out / "model")
    assert new_networks(plan.weights) == [[0], [1], [2]]


def test_a_network_that_stages_do_not_share_counts_twice(cascade):
    stage = np.array([0, 1, 1, 1])
    first = cascade.new_groups[0]
    twice = stages.Cascade(cascade.plan, [first, first], cascade.calibrations)
    alone = stages.Cascade(cascade.plan, [first], cascade.calibrations)
    cost = measure_cost(twice, alone, stage, None)
    assert cost == {"tokens": 1.75, "time": None, "texts_per_second": None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{small}"], "two different runs"),
        (["{small}", "{small}"], "two different runs"),
        (["{blend}", "{small}"], "adds no network"),
        (["{small}", "{fast}"], "a cascade cannot be a stage"),
        (["{small}", "{missing}"], "no such file"),
        (["{small}", "{blend}", "--out", "{blend}"], "is one of the runs"),
        (["{small}", "{blend}", "max_metric_loss=-1"], "max_metric_loss=-1.0"),
        (["{small}", "{blend}", "confidence=1"], "confidence=1.0"),
        (["{small}", "{blend}", "max_miss_rate=0"], "max_miss_rate=0.0"),
        (["{small}", "{blend}", "metric=macro_f2"], "did you mean 'macro_f1'"),
        (["{small}", "{blend}", "final_stage_labels=hram"], "did you mean 'harm'"),
        (["{small}", "{blend}", "confidance=1"], "did you mean 'confidence'"),
        (["{small}", "{blend}", "--rules", "{missing}"], "no such file"),
        (["{small}", "{blend}", "--rules", "{val}.npz"], "not UTF-8"),
        (["{small}", "{blend}", "--rules", "{stages}"], '"rules" is not a list'),
    ],
)
def test_a_bad_command_prints_one_line_and_writes_nothing(folder, built, tmp_path, words, message):
    paths = {name: folder / name for name in ("small", "blend", "fast", "missing")}
    paths |= {"val": folder / "small/predictions/val", "stages": folder / "fast/stages.json"}
    words = [word.format(**paths) for word in words]
    code, _, errors = run("--out", tmp_path / "out", "--runs", *words)
    assert code == 2
    assert message in errors.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"phrases": []}], "rule 1: phrases"),
        ([{"phrases": ["a"]}, {"phrases": ["b"], "label": "nobody"}], "rule 2: .*'?nobody'?"),
        ([{"phrases": ["a"], "then": "last"}], "unknown key 'then'"),
        ([{"phrases": ["good", "a*b"]}], "phrase 2 is not valid"),
        ([{"phrases": ["*"]}], "phrase 1 is not valid"),
        ([{"phrases": ["(a+)+$"]}], "phrase 1 is not valid"),
        ([{"phrases": [" "]}], "phrase 1 is not valid"),
        ([{"phrases": ["a" * 101]}], "phrase 1 is not valid"),
        ([{"phrases": [3]}], "phrase 1 is not valid"),
        ([{"phrases": [f"a{number}" for number in range(257)]}], "more than 256 phrases"),
        ("a", "not a list"),
        (["a"], "not a list"),
    ],
)
def test_bad_rules_are_named(rules, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_rules({"rules": rules}, tmp_path / "rules.json", NAMES)


def with_stage(meta, **values):
    return {"stages": [{**meta["stages"][0], **values}, *meta["stages"][1:]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: {"format": 9}, "newer version"),
        (lambda meta: {"format": 1}, "preview"),
        (lambda meta: {"networks": 99}, "networks is not"),
        (lambda meta: {"networks": "3"}, "networks is not"),
        (lambda meta: {"networks": 4}, "weights does not have 4 numbers"),
        (lambda meta: {"stages": meta["stages"][:1]}, "stages is not"),
        (lambda meta: {"stages": [{}, {}]}, "stages is not"),
        (lambda meta: with_stage(meta, weights={}), "weights does not have 3 numbers"),
        (lambda meta: with_stage(meta, weights={name: [0.5, 0, 0] for name in NAMES}), "sum to 1"),
        (lambda meta: {"stages": [meta["stages"][0]] * 2}, "adds no network"),
        (
            lambda meta: with_stage(meta, uncertain={name: [0.6, 0.5] for name in NAMES}),
            "lower end",
        ),
        (lambda meta: with_stage(meta, uncertain={name: [-1, 0.5] for name in NAMES}), "2 numbers"),
        (lambda meta: with_stage(meta, calibration={}), "calibration"),
        (lambda meta: {"rules": None}, "not a list"),
        (lambda meta: {"labels": ["a", "a"]}, "labels"),
        (lambda meta: {"provenance": {}}, "provenance"),
        (lambda meta: {}, "network-0.*needs it"),
    ],
)
def test_a_damaged_cascade_is_refused(built, tmp_path, change, message):
    meta = read_json(built[0] / "model" / CASCADE)
    shutil.copy(built[0] / "model" / ROW_HASHES, tmp_path)
    (tmp_path / CASCADE).write_text(json.dumps({**meta, **change(meta)}))
    with pytest.raises(DataError, match=message):
        load_cascade(tmp_path, verify=False)


def test_a_saved_plan_is_loaded_unchanged(built, cascade):
    plan, networks = load_cascade(built[0] / "model")
    assert [str(value) for value in plan] == [str(value) for value in cascade.plan]
    assert [network.name for network in networks] == ["network-0", "network-1", "network-2"]


def test_runs_of_different_examples_are_refused(folder, tmp_path):
    predictions = load_predictions(folder / "small" / "predictions" / "val.npz")
    shutil.copytree(folder / "small", tmp_path / "small")
    reversed_ids = predictions._replace(ids=predictions.ids[::-1])
    save_predictions(tmp_path / "small/predictions/val.npz", reversed_ids)
    with pytest.raises(DataError, match="blend"):
        build.fit_cascade([tmp_path / "small", folder / "blend"], CascadeConfig())
