"""A run starts from the model of another one, and what fitted that model counts as fitting it."""

import json

import jax
import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment.overrides import override
from jaxclf.model.storage.saved_model import load_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.training.run import train
from jaxclf.training.setup import init_params, make_setup


def start_from(run, **changes):
    return override(run.experiment, {"train.init_from": str(run.folder), **changes})


def same_leaves(params, trained):
    """The paths of the parameters that are those of the trained model, to the bit."""
    flat = flatten_params(trained)
    leaves = {path: leaf for path, leaf in flatten_params(params).items() if path in flat}
    return {
        path
        for path, leaf in leaves.items()
        if leaf.shape == flat[path].shape and jax.numpy.array_equal(leaf, flat[path])
    }


@pytest.fixture(scope="module")
def trained(finished_run):
    return load_model(finished_run.folder / "model")


@pytest.mark.parametrize("prior", [True, False])
def test_with_the_same_labels_pool_and_head_every_weight_is_the_model_s(
    finished_run, trained, prior
):
    setup = make_setup(start_from(finished_run, **{"optim.init_bias_from_prior": prior}))
    params = init_params(setup)
    assert same_leaves(params, trained.params) == flatten_params(params).keys()


@pytest.mark.parametrize("change", ["labels", "pool", "head"])
def test_otherwise_the_encoder_is_and_the_log_says_why(
    finished_run, trained, tiny_data, tmp_path, caplog, change
):
    changes = {"pool": {"pool": "mean_max"}, "head": {"head": "linear"}}.get(change, {})
    if change == "labels":
        for split, file in tiny_data.items():
            rows = json.loads(file.read_text(encoding="utf-8"))
            path = tmp_path / file.name
            for row in rows:
                row["labels"] = {f"{name}_now": value for name, value in row["labels"].items()}
            path.write_text(json.dumps(rows), encoding="utf-8")
            changes[f"data.{split}"] = str(path)
    caplog.set_level("INFO", "jaxclf")
    params = init_params(make_setup(start_from(finished_run, **changes)))
    encoder = {path for path in flatten_params(params) if path[0] == "encoder"}
    assert same_leaves(params, trained.params) >= encoder
    assert any(change in record.message for record in caplog.records if "start" in record.message)
    assert ("head", "classifier", "kernel") not in same_leaves(params, trained.params)


def test_rows_that_fitted_the_first_model_fitted_the_second(finished_run, tiny_data, tmp_path):
    rows = json.loads(tiny_data["train"].read_text(encoding="utf-8"))
    (tmp_path / "few.json").write_text(json.dumps(rows[:40]), encoding="utf-8")
    files = {"data.train": tmp_path / "few.json"}
    files |= {f"data.{name}": tiny_data[name] for name in ("val", "test")}
    experiment = start_from(finished_run, **{key: str(path) for key, path in files.items()})
    provenance = make_setup(experiment).provenance
    splits = provenance.record["splits"]
    fitted = {part["split"] for part in provenance.record["fitted"] if "weights" in part["what"]}
    assert sorted(splits[name]["rows"] for name in fitted) == [40, 96]
    assert {len(provenance.row_hashes[name]) for name in fitted} == {40, 96}
    assert provenance.record["files"]["train.init_from"]


def test_another_encoder_is_refused(finished_run):
    with pytest.raises(ConfigError, match=r"encoder\.name="):
        make_setup(start_from(finished_run, **{"encoder.name": "minilm"}))


def test_the_refusal_of_a_longer_run_names_the_way(finished_run):
    longer = override(finished_run.experiment, {"train.epochs": 9})
    with pytest.raises(ConfigError, match=r"train\.epochs.*train\.init_from="):
        train(longer, finished_run.folder)
