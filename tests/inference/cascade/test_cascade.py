"""A cascade is one folder that everything opens like a run: each text has the answer of the stage
where it left, and no network reads it twice."""

import contextlib
import io
import json
import shutil
import sys
import time

import jax
import numpy as np
import pytest
from scipy.special import logit

import jaxclf
from jaxclf import cascade as command
from jaxclf.cascade import CascadeConfig, make_cascade
from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, calibrated, to_json
from jaxclf.decisions.compare_runs import compare_systems, read_system
from jaxclf.decisions.predictions import load_predictions, save_predictions
from jaxclf.decisions.thresholds import plug_in
from jaxclf.errors import DataError
from jaxclf.evaluate import evaluate_file
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.files.json_file import write_json
from jaxclf.inference.cascade import stages as serving
from jaxclf.inference.cascade.folder import (
    ALWAYS,
    CASCADE,
    Rule,
    load_cascade,
    new_networks,
    read_rules,
)
from jaxclf.inference.cascade.stages import apply_rules, measure
from jaxclf.inference.classifier import make_group, score_group
from jaxclf.inference.members import model_folder, param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, open_encoder, pretrained_params, save_model
from jaxclf.predict import in_words
from jaxclf.text import splits as text_splits
from jaxclf.text.reader import read
from jaxclf.types import Predictions

NAMES = ("calm", "stress", "harm")
NETWORKS = ("one", "like", "other")
ERRORS = (0.2, 0.4, 0.4)  # of each network's head, as a share of what all heads have in common
CURVE = Calibration("platt", ({"slope": 1.2, "intercept": 0.1},) * 3)
CENTRE = np.array([0.5, 0.0, -1.5], np.float32)  # mean logits
SPLITS = ("val", "test")


def texts_of(demo_rows, split):
    """The sets are small: halves of texts are texts too."""
    whole = [row["text"] for row in demo_rows[split]]
    halves = [" ".join(text.split()[: len(text.split()) // 2]) for text in whole]
    return list(dict.fromkeys([*whole, *halves]))


def networks(encoder_folder, data, texts):
    """The random encoder under three random heads, with logits that spread over these texts."""
    experiment = Experiment(data, Encoder("tiny"), Spec("mean"), Spec("linear"))
    hf_config, tokenizer = open_encoder(encoder_folder)
    shapes = param_shapes(experiment, hf_config, len(NAMES))
    encoder = pretrained_params(encoder_folder, {"encoder": shapes["encoder"]})
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(32, 3))
    kernels = [shared + error * rng.normal(size=(32, 3)) for error in ERRORS]
    half = {name: {"value": 0.5, "split": "val", "rule": "fixed"} for name in NAMES}
    provenance = {"splits": {}, "fitted": [{"what": "the weights", "split": "train"}]}

    def made(kernel, bias):
        layer = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        params = {**encoder, "head": {"classifier": layer}}
        return SavedModel(experiment, hf_config, NAMES, half, to_json(CURVE), provenance, params)

    small = 0.01  # logits so small that probabilities say what they are
    start = [made(small * kernel, np.zeros(3)) for kernel in kernels]
    group = make_group(start, [0, 1, 2], tokenizer)
    logits = logit(score_group(group, texts["val"]).astype(np.float64)) / small
    spread, mean = logits.std(axis=1), logits.mean(axis=1)
    final = [
        made(1.5 * kernel / wide, CENTRE - 1.5 * middle / wide)
        for kernel, wide, middle in zip(kernels, spread, mean, strict=True)
    ]
    params = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *[one.params for one in final])
    group = group._replace(params=params)
    probs = {
        split: np.array([calibrated(CURVE, one) for one in score_group(group, texts[split])])
        for split in SPLITS
    }
    return final, tokenizer, probs


@pytest.fixture(scope="module")
def home(tiny_encoder, demo_rows, tmp_path_factory):
    """Runs of three networks and of the `blend` of all, without training: labels are drawn from
    what the blend says of texts, so that it is right."""
    home = tmp_path_factory.mktemp("cascade")
    texts = {split: texts_of(demo_rows, split) for split in SPLITS}
    train, val, test = (str(home / f"{split}.jsonl") for split in ("train", *SPLITS))
    data = Data(train, val, test, max_length=16, max_windows=2, window_overlap=2)
    members, tokenizer, probs = networks(tiny_encoder, data, texts)
    for name, member in zip(NETWORKS, members, strict=True):
        save_model(home / name / "model", member, tokenizer, "a card")
    runs = {
        name: {split: probs[split][index] for split in SPLITS}
        for index, name in enumerate(NETWORKS)
    }
    even = np.full((3, 3), 1 / 3)
    runs["blend"] = {split: blend(probs[split], even) for split in SPLITS}
    rng, provenance, examples = np.random.default_rng(0), members[0].provenance, {}
    for split in SPLITS:
        drawn = rng.random((len(texts[split]), 3)) < runs["blend"][split]
        rows = [
            json.dumps({"text": text, "labels": dict(zip(NAMES, row, strict=True))})
            for text, row in zip(texts[split], drawn.astype(int).tolist(), strict=True)
        ]
        path = home / f"{split}.jsonl"
        path.write_text("\n".join(rows), encoding="utf-8")
        examples[split] = read(path, NAMES)
        provenance["splits"][split] = text_splits.describe(examples[split], path.name)
    for name, found in runs.items():
        for split, part in found.items():
            ids, labels = np.array(examples[split].ids), examples[split].labels
            path = home / name / "predictions" / f"{split}.npz"
            save_predictions(path, Predictions(ids, part, labels, split))
        cuts = plug_in(examples["val"].labels, found["val"])
        record = {
            label: {"value": cut, "split": "val", "rule": "plug_in", "prior_strength": 20.0}
            for label, cut in zip(NAMES, cuts.tolist(), strict=True)
        }
        write_json(home / name / "thresholds.json", record)
        write_json(home / name / "provenance.json", provenance)
        write_json(home / name / "labels.json", NAMES)
    models = [home / name / "model" for name in NETWORKS]
    save_ensemble(
        home / "blend" / "model", Blend(NETWORKS, NAMES, even, record, provenance), models, "a card"
    )
    return home


def run(*words):
    """(exit code, what was printed, what was said) of the command."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["cascade.py", *map(str, words)])
        code = command.main()
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def made(home):
    """(folder, what the command printed)."""
    out = home / "fast"
    words = ["--runs", home / "one", home / "blend", "loss=0.005", "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxclf.reports.html_report.pictures", lambda *parts: "")  # slow, and as ever
        code, printed, said = run(*words)
    assert code == 0, said
    return out, printed, said


@pytest.fixture(scope="module")
def cascade(made):
    return jaxclf.load(made[0])


def texts_in(home, split="test"):
    return list(read(home / f"{split}.jsonl", NAMES).texts)


def stored(folder, split="test"):
    return load_predictions(folder / "predictions" / f"{split}.npz").probs


def test_each_text_has_the_answer_of_the_stage_where_it_left(home, cascade):
    texts = texts_in(home)
    answered = cascade.answer(texts)
    left = answered.stage == 0
    assert 0.1 < left.mean() < 0.9
    early = calibrated(cascade.chain.early[0].calibration, stored(home / "one"))
    # Two programs of one network differ by their rounding, here of probabilities.
    near = {"atol": 1e-6, "rtol": 0}
    np.testing.assert_allclose(answered.probs[left], early[left], **near)
    np.testing.assert_allclose(answered.probs[~left], stored(home / "blend")[~left], **near)
    record = json.loads((home / "blend" / "thresholds.json").read_text())
    assert cascade.thresholds.tolist() == [record[name]["value"] for name in NAMES]
    assert cascade.stages(texts) == [("one", "blend")[stage] for stage in answered.stage]


def test_every_path_gives_the_same(home, made, cascade, monkeypatch):
    out, _, _ = made
    texts = texts_in(home)
    probs = cascade.predict_proba(texts)
    near = {"atol": 1e-6, "rtol": 0}
    np.testing.assert_allclose(probs, stored(out), **near)
    assert model_folder(out) == model_folder(out / "model") == out / "model"
    # Company changes nothing.
    some = [0, 7, 3]
    alone = [cascade.predict_proba([texts[row]])[0] for row in some]
    np.testing.assert_allclose(alone, probs[some], **near)
    decided = probs >= cascade.thresholds
    given = [[name for name, yes in zip(NAMES, row, strict=True) if yes] for row in decided]
    assert cascade.predict(texts) == given
    assert cascade.predict_proba([]).shape == (0, 3)
    assert "threshold" in in_words(cascade, texts[:1], probs[:1])
    report = json.loads((out / "report.json").read_text())
    monkeypatch.setattr("jaxclf.evaluate.load", lambda run: cascade)  # loaded once is enough
    for split, warns in (("val", True), ("test", False)):
        figures, warned = evaluate_file(out, home / f"{split}.jsonl")
        assert figures["macro_f1"] == pytest.approx(report[split]["macro_f1"])
        assert (warned is not None) == warns
        assert not warns or "the cut-offs of the cascade" in str(warned)
    ours, theirs = (read_system(run.name, [run], "test") for run in (out, home / "blend"))
    difference = compare_systems(ours, theirs, 50, 0).metrics["macro_f1"].value
    about = json.loads((out / "stages.json").read_text())
    assert about["lost"]["test"]["difference"] == pytest.approx(difference)


def test_no_network_reads_a_text_twice(home, cascade, monkeypatch):
    seen = []
    score = serving.score_group

    def counted(group, texts):
        seen.append((group.members, list(texts)))
        return score(group, texts)

    monkeypatch.setattr(serving, "score_group", counted)
    texts = texts_in(home)
    stage = cascade.answer(texts).stage
    on = [text for text, one in zip(texts, stage, strict=True) if one]
    assert seen[0] == ((0,), texts)
    # The other two are of one architecture, so one program.
    assert seen[1:] == [((1, 2), on)]
    seen.clear()
    nothing = cascade.chain.early[0]._replace(doubt=np.tile([0.5, 0.5], (3, 1)))
    changed(cascade, early=(nothing,)).predict_proba(texts)
    assert [members for members, _ in seen] == [(0,)]


def test_the_folder_is_a_runs_and_holds_each_network_once(home, made):
    out, printed, _ = made
    for name in (
        "labels.json provenance.json thresholds.json report.json report.html stages.json "
        "diagnosis.json predictions/val.npz model/cascade.json model/README.md "
        "model/network-2/model.safetensors"
    ).split():
        assert (out / name).is_file(), name
    assert len(list((out / "model").glob("network-*"))) == 3
    assert not list(out.rglob("*.part"))
    assert (out / "thresholds.json").read_text() == (home / "blend/thresholds.json").read_text()
    about = json.loads((out / "stages.json").read_text())
    for split in ("val", "test"):
        assert sum(stage["left"][split] for stage in about["stages"]) == pytest.approx(1)
        stages = load_predictions(out / "predictions" / f"{split}.npz")
        assert len(stages.ids) == len(texts_in(home, split))
    on = about["stages"][1]["left"]["test"]
    assert 1 / 3 < about["cost"]["counted"] < 1
    # By tokens, while `on` is of texts; the tokenizer's pieces are learned anew each time.
    assert about["cost"]["counted"] == pytest.approx((1 + 2 * on) / 3, abs=0.1)
    assert about["cost"]["speed"] > 0
    lost = about["lost"]
    # Half of what is allowed, since laws are not to the letter what is promised of few texts.
    assert lost["promised"] + 0.84 * lost["scatter"] < 1.5 * 0.005
    assert "left at" in printed
    assert "left at" in (out / "report.html").read_text()
    assert "Not recorded" not in (out / "report.html").read_text()
    card = (out / "model" / "README.md").read_text()
    assert "A person decides" in card
    assert "left at" in card
    for text in texts_in(home):
        assert text not in printed + card


def changed(cascade, **values):
    """The same networks under another chain."""
    return serving.Cascade(cascade.chain._replace(**values), cascade.new, cascade.calibrations)


def test_rules_send_texts_on_and_give_labels(home, cascade):
    texts = texts_in(home)
    plain = cascade.answer(texts)
    early = int(np.flatnonzero(plain.stage == 0)[0])
    words = texts[early].lower().split()
    phrase = " ".join(word.strip(".,!?") for word in words[1:4])
    rules = (Rule((phrase,), None), Rule(("zzz*", phrase), "harm"))
    cascade = changed(cascade, rules=rules)
    ruled = apply_rules(rules, texts, NAMES)
    np.testing.assert_array_equal(ruled.demanded, ruled.given[:, 2])
    assert ruled.demanded[early]
    assert not ruled.given[:, :2].any()
    answered = cascade.answer(texts)
    assert answered.stage[early] == 1
    assert answered.probs[early, 2] == 1
    last = stored(home / "blend")[early]
    np.testing.assert_allclose(answered.probs[early, :2], last[:2], atol=1e-6, rtol=0)
    others = ~ruled.demanded
    np.testing.assert_allclose(answered.probs[others], plain.probs[others], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
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
def test_a_phrase_is_words(phrase, text, found):
    assert apply_rules([Rule((phrase,), None)], [text], NAMES).demanded[0] == found


def test_no_phrase_takes_for_ever():
    """Linear: the regular expressions that phrases become cannot backtrack far."""
    phrases = tuple(f"a* b{number}* c*" for number in range(50))
    hostile = ["a" * 20_000, "a b" * 5000, "a " * 10_000, "a! b! " * 3000, "ab" * 10_000]
    began = time.perf_counter()
    apply_rules([Rule(phrases, None)], hostile, NAMES)
    assert time.perf_counter() - began < 10  # some tenths of a second, on an idle machine


def test_a_safety_label_comes_from_the_last_stage(home, cascade):
    texts = texts_in(home)
    doubt = cascade.chain.early[0].doubt.copy()
    doubt[2] = 0.2, ALWAYS
    early = cascade.chain.early[0]._replace(doubt=doubt)
    answered = changed(cascade, early=(early,)).answer(texts)
    decided = answered.probs[:, 2] >= 0.2
    assert decided.any()
    assert (answered.stage[decided] == 1).all()


def test_what_is_too_rare_to_promise_is_said(home, cascade, tmp_path, monkeypatch):
    """Its folder needs no networks: they are loaded, timed and drawn above."""
    cost = {"counted": 1.0, "by": "texts", "texts_per_second": None, "speed": None}
    for name, instead in (
        ("load", lambda run: cascade),
        ("assemble", lambda chain, models: None),
        ("measure", lambda *parts: cost),
        ("write_page", lambda out: None),
    ):
        monkeypatch.setattr(command, name, instead)
    out = tmp_path / "safe"
    runs = [home / name for name in ("one", "like", "blend")]
    code, printed, said = run("--runs", *runs, "last=harm", "miss=0.0001", "--out", out)
    assert code == 0, said
    assert "miss=0.0001 needs 19999" in said
    about = json.loads((out / "stages.json").read_text())
    assert [stage["left"]["test"] for stage in about["stages"]] == [0, 0, 1]
    assert about["last"]["harm"]["test"]["missed"] == 0
    assert "harm: on test" in printed
    assert about["lost"]["test"]["difference"] == 0
    chain, _ = load_cascade(out / "model")
    assert new_networks(chain.weights) == [[0], [1], [2]]


def test_networks_that_are_not_shared_are_counted(cascade):
    """A first stage that has nothing of the last costs what it costs besides."""
    stage = np.array([0, 1, 1, 1])
    both = [cascade.new[0], cascade.new[0]]
    twice = serving.Cascade(cascade.chain, both, cascade.calibrations)
    alone = serving.Cascade(cascade.chain, cascade.new[:1], cascade.calibrations)
    found = measure(twice, alone, stage, None)
    assert found == {"counted": 1.75, "by": "texts", "texts_per_second": None, "speed": None}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{one}"], "two different runs"),
        (["{one}", "{one}"], "two different runs"),
        (["{blend}", "{one}"], "no network that the stages before it lack"),
        (["{one}", "{fast}"], "a cascade is no stage"),
        (["{one}", "{nowhere}"], "no such file"),
        (["{one}", "{blend}", "--out", "{blend}"], "is one of the runs"),
        (["{one}", "{blend}", "loss=-1"], "loss=-1.0 is out of range"),
        (["{one}", "{blend}", "sure=1"], "sure=1.0 is out of range"),
        (["{one}", "{blend}", "miss=0"], "miss=0.0 is out of range"),
        (["{one}", "{blend}", "metric=macro_f2"], "did you mean 'macro_f1'"),
        (["{one}", "{blend}", "last=hram"], "did you mean 'harm'"),
        (["{one}", "{blend}", "lost=1"], "did you mean 'loss'"),
        (["{one}", "{blend}", "--rules", "{nowhere}"], "no such file"),
        (["{one}", "{blend}", "--rules", "{val}.npz"], "not UTF-8"),
        (["{one}", "{blend}", "--rules", "{stages}"], '"rules" is no list'),
    ],
)
def test_a_bad_command_is_one_line_and_writes_nothing(home, made, tmp_path, words, says):
    places = {name: home / name for name in ("one", "blend", "fast", "nowhere")}
    places |= {"val": home / "one/predictions/val", "stages": home / "fast/stages.json"}
    words = [word.format(**places) for word in words]
    code, _, said = run("--out", tmp_path / "out", "--runs", *words)
    assert code == 2
    assert says in said.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([{"phrases": []}], "rule 1: phrases are not"),
        (
            [{"phrases": ["a"]}, {"phrases": ["b"], "label": "nobody"}],
            "rule 2: nobody is no label|rule 2: 'nobody' is no label",
        ),
        ([{"phrases": ["a"], "then": "last"}], "'then'; a rule has phrases"),
        ([{"phrases": ["fine", "a*b"]}], "phrase 2 is not words"),
        ([{"phrases": ["*"]}], "phrase 1 is not words"),
        ([{"phrases": ["(a+)+$"]}], "phrase 1 is not words"),
        ([{"phrases": [" "]}], "phrase 1 is not words"),
        ([{"phrases": ["a" * 101]}], "phrase 1 is not words"),
        ([{"phrases": [3]}], "phrase 1 is not words"),
        ([{"phrases": [f"a{number}" for number in range(257)]}], "more than 256 phrases"),
        ("a", "is no list"),
        (["a"], "is no list"),
    ],
)
def test_bad_rules_are_named(rules, says, tmp_path):
    with pytest.raises(DataError, match=says):
        read_rules({"rules": rules}, tmp_path / "rules.json", NAMES)


def stage_of(meta, index, **values):
    return [
        *meta["stages"][:index],
        {**meta["stages"][index], **values},
        *meta["stages"][index + 1 :],
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda meta: {"format": 9}, "format 9"),
        (lambda meta: {"networks": 99}, "networks is not their number"),
        (lambda meta: {"networks": "3"}, "networks is not their number"),
        (lambda meta: {"networks": 4}, "weights has not 4 numbers"),
        (lambda meta: {"stages": meta["stages"][:1]}, "stages are not 2 to 8"),
        (lambda meta: {"stages": [{}, {}]}, "stages are not 2 to 8"),
        (lambda meta: {"stages": stage_of(meta, 0, weights={})}, "weights has not 3 numbers"),
        (
            lambda meta: {
                "stages": stage_of(meta, 0, weights={name: [0.5, 0, 0] for name in NAMES})
            },
            "weights are not 3 shares",
        ),
        (lambda meta: {"stages": [meta["stages"][0], meta["stages"][0]]}, "a stage has no network"),
        (
            lambda meta: {"stages": stage_of(meta, 0, doubt={name: [0.6, 0.5] for name in NAMES})},
            "doubt is not a lower and an upper end",
        ),
        (
            lambda meta: {"stages": stage_of(meta, 0, doubt={name: [-1, 0.5] for name in NAMES})},
            "doubt has not 2 numbers",
        ),
        (lambda meta: {"stages": stage_of(meta, 0, calibration={})}, "not a calibration"),
        (lambda meta: {"rules": None}, "is no list"),
        (lambda meta: {"labels": ["a", "a"]}, "labels are not"),
        (lambda meta: {"provenance": {}}, "provenance does not say"),
        (lambda meta: {}, "network-0.*lacks a network"),
    ],
)
def test_a_damaged_cascade_is_refused_by_name(made, tmp_path, change, says):
    out, _, _ = made
    meta = json.loads((out / "model" / CASCADE).read_text())
    (tmp_path / CASCADE).write_text(json.dumps({**meta, **change(meta)}))
    with pytest.raises(DataError, match=says):
        load_cascade(tmp_path)


def test_what_is_saved_is_what_is_loaded(made, cascade):
    chain, models = load_cascade(made[0] / "model")
    for ours, theirs in zip(chain, cascade.chain, strict=True):
        assert str(ours) == str(theirs)
    assert [model.name for model in models] == ["network-0", "network-1", "network-2"]


def test_other_examples_or_texts_are_refused(home, tmp_path):
    found = load_predictions(home / "one" / "predictions" / "val.npz")
    shutil.copytree(home / "one", tmp_path / "one")
    save_predictions(tmp_path / "one/predictions/val.npz", found._replace(ids=found.ids[::-1]))
    with pytest.raises(DataError, match="cannot be paired"):
        make_cascade([tmp_path / "one", home / "blend"], CascadeConfig(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
