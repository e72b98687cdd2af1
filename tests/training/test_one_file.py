"""A run that is made from one file: its split is kept, resumed, scored and shown again."""

import json

import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.reports.evaluate import evaluate_file, evaluate_predictions, rewrite_report
from jaxclf.train import build_parser
from jaxclf.training.members import read_texts
from jaxclf.training.run import train
from jaxclf.training.setup import make_setup


def test_the_options_for_files_stand_for_keys():
    parser = build_parser()
    args = parser.parse(["--data", "2024", "--test", "a=b.csv", "seed=1"])
    assert args.overrides == {"data.train": "2024", "data.test": "a=b.csv", "seed": 1}
    assert override(catalog.load("baseline"), args.overrides).data.val == ""
    with pytest.raises(ConfigError, match=r"--data and data\.train="):
        parser.parse(["--data", "a.csv", "data.train=b.csv"])


def test_a_run_from_one_file_is_evaluated_resumed_and_held_to_its_file(
    tiny_overrides, demo_rows, tmp_path
):
    path, out = tmp_path / "mine.json", tmp_path / "run"
    rows = demo_rows["train"][:160]
    path.write_text(json.dumps(rows), encoding="utf-8")
    changes = {
        key: of for key, of in tiny_overrides.items() if key not in ("data.val", "data.test")
    }
    changes |= {"data.train": str(path), "train.epochs": 1, "data.val_share": 0.25}
    experiment = override(catalog.load("baseline"), changes)
    report = train(experiment, out)
    listed = json.loads((out / "split.json").read_text(encoding="utf-8"))
    assert sorted(id for ids in listed.values() for id in ids) == [row["id"] for row in rows]
    assert train(experiment, out)["test"]["macro_f1"] == report["test"]["macro_f1"]
    assert evaluate_predictions(out)["test"]["macro_f1"] == report["test"]["macro_f1"]
    uses = evaluate_file(out, path)["used_rows"]
    assert [use["rows"] for use in uses] == [len(listed["train"]), len(listed["val"])]
    text_by_id = {row["id"]: row["text"] for row in rows}
    assert read_texts(out, "test") == {id: text_by_id[id] for id in listed["test"]}
    assert rewrite_report(out, include_texts=True).is_file()
    # The same division, by the file that the run wrote.
    again = override(experiment, {"data.split": str(out / "split.json")})
    splits = make_setup(again).splits
    assert {name: list(part.ids) for name, part in splits.items()} == {
        name: list(ids) for name, ids in listed.items()
    }
    path.write_text(json.dumps(rows[:-1]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data\.train: .*mine\.json"):
        train(experiment, out)
