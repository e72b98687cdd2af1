"""`jaxclf curve` trains nested, stratified shares once each, and writes what more data gains."""

import numpy as np
import pytest

from jaxclf import curve
from jaxclf.decisions.predictions import load_predictions
from jaxclf.errors import DataError, StoppedError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.files.json_file import read_json
from jaxclf.text.splits import stratified_share
from jaxclf.training import learning_curve
from jaxclf.training.data import read_splits
from jaxclf.types import Examples


@pytest.fixture
def words(tiny_overrides):
    changes = {**tiny_overrides, "train.epochs": 1, "calibration": "platt", "threshold": "plug_in"}
    return ["--exp", "focal_attention", *(f"{key}={value}" for key, value in changes.items())]


def examples(labels):
    ids = tuple(map(str, range(len(labels))))
    return Examples(ids, ids, labels, np.ones_like(labels), ("a", "b", "c"), "")


def test_shares_are_nested_and_every_label_keeps_its_share():
    rng = np.random.default_rng(0)
    rows = examples((rng.random((1000, 3)) < [0.3, 0.05, 0.01]).astype(np.float32))
    parts = {share: stratified_share(rows, share) for share in (0.1, 0.25, 0.5, 0.77, 1.0)}
    assert parts[1.0] is rows
    before = set()
    for share, part in parts.items():
        assert len(part.ids) == round(1000 * share)
        assert before < set(part.ids)
        assert list(part.ids) == sorted(part.ids, key=int)
        before = set(part.ids)
        # The rarest label of a row is its stratum. Others lie in up to four strata, each of which
        # is rounded.
        expected = share * rows.labels.sum(axis=0)
        assert abs(part.labels[:, 2].sum() - expected[2]) <= 1
        assert (np.abs(part.labels.sum(axis=0) - expected) <= 0.1 * expected + 4).all()
    assert stratified_share(rows, 0.25).ids == parts[0.25].ids
    assert len(stratified_share(rows, 1e-9).ids) == 1


def test_a_share_is_one_of_the_training_rows_alone(tiny_overrides):
    changes = {**tiny_overrides, "data.max_train_examples": 40, "data.train_share": 0.5}
    splits = read_splits(override(catalog.load("baseline"), changes).data)
    full = read_splits(override(catalog.load("baseline"), tiny_overrides).data)
    assert len(splits["train"].ids) == 20
    assert splits["train"].names == full["train"].names
    assert splits["val"].ids == full["val"].ids


@pytest.mark.parametrize(
    "shares", ["0.25 0.5", "1", "0 1", "0.5 1.5 1", "nan 1", "1 1", "-0.5 1", "inf 1"]
)
def test_bad_shares_are_one_line(capsys, tmp_path, words, shares):
    assert curve.main([*words, "--out", str(tmp_path / "c"), "--shares", *shares.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --shares")
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_stopped_curve_resumes_and_trains_no_finished_share_again(
    capsys, monkeypatch, tmp_path, words
):
    out, train = tmp_path / "curve", learning_curve.train

    def stop_at_half(experiment, run):
        if experiment.data.train_share == 0.5:
            raise StoppedError("stopped", 15)
        return train(experiment, run)

    command = [*words, "--out", str(out), "--shares", "1", "0.25", "0.5"]
    monkeypatch.setattr(learning_curve, "train", stop_at_half)
    assert curve.main(command) == 143
    assert [path.name for path in sorted(out.glob("share-*/report.json"))] == ["report.json"]
    monkeypatch.setattr(learning_curve, "train", train)
    first = {path: path.stat().st_mtime_ns for path in (out / "share-0.25").rglob("*")}
    assert curve.main(command) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    files = {path: path.stat().st_mtime_ns for path in out.glob("share-*/**/*")}
    capsys.readouterr()
    assert curve.main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("share-*/**/*")} == files

    record, output = read_json(out / "curve.json"), capsys.readouterr().out
    assert record["shares"] == [0.25, 0.5, 1.0]
    assert record["rows"] == [24, 48, 96]
    ids = [set(read_ids(out / name)) for name in record["runs"]]
    assert ids[0] == ids[1] == ids[2]
    macro_f1 = record["macro_f1"]
    last = read_json(out / "share-1" / "report.json")["val"]
    assert macro_f1["scores"][-1] == pytest.approx(last["macro_f1"], abs=1e-9)
    assert record["log_loss"]["scores"][-1] == pytest.approx(last["log_loss"], abs=1e-6)
    for forecast, rows in zip(macro_f1["forecasts"], ("192", "384"), strict=True):
        assert rows in output
        assert f"{forecast['score']:.3f}" in output
    page = (out / "curve.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    assert "http://" not in page
    assert "https://" not in page


def read_ids(run):
    return load_predictions(run / "predictions" / "val.npz").ids.tolist()


def test_shares_with_equally_many_rows_are_refused(finished_run):
    runs = dict.fromkeys((0.5, 1.0), finished_run.folder)
    with pytest.raises(DataError, match="96, 96 rows"):
        learning_curve.score_shares(runs)
