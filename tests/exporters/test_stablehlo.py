"""A StableHLO program has the run's answers in any jax, without jaxclf."""

import json
import subprocess
import sys

import jax.export
import numpy as np
import pytest
from tiny_models import LABELS, LENGTH, make_ensemble, make_model

import jaxclf
from jaxclf.decisions import calibration
from jaxclf.errors import ConfigError, DataError
from jaxclf.exporters import program
from jaxclf.exporters.hf import to_hf
from jaxclf.exporters.onnx.export import to_onnx
from jaxclf.exporters.stablehlo import to_stablehlo
from jaxclf.model.inference import prediction_shape
from jaxclf.text.packing import fill, plan
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.types import Windows

WINDOWS = Windows(LENGTH, 3, 4)
SHAPE = prediction_shape(WINDOWS)
CURVE = calibration.Calibration("platt", ({"slope": 0.7, "intercept": 0.2},) * len(LABELS))
WITHOUT_JAXCLF = """
import sys
for name in ("jaxclf", "flax"):
    sys.modules[name] = None
import jax.export, numpy as np, safetensors.numpy
params = safetensors.numpy.load_file("params.safetensors")
program = jax.export.deserialize(bytearray(open("program.stablehlo", "rb").read()))
rows = np.load("rows.npz")
names = "ids positions segments examples".split()
answer = program.call(params, *[rows[name] for name in names])
np.savez("answer.npz", **answer)
"""


@pytest.fixture(scope="module")
def texts(demo_rows):
    return [*[row["text"] for row in demo_rows["val"]][:30], "a", "word " * 90]


@pytest.fixture(scope="module")
def model(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    return make_model(folder, tiny_encoder, calibration=CURVE)


@pytest.fixture(scope="module")
def batch(model, texts):
    """One batch with all texts, and the text in each slot."""
    tokenizer = jaxclf.load(model).tokenizer
    tokens = tokenize(tokenizer, texts, WINDOWS)
    (placement,) = plan(tokens, range(len(texts)), SHAPE)
    blank = np.zeros((len(texts), 0), np.float32)
    return fill(tokens, blank, blank, placement, SHAPE), placement.examples


@pytest.mark.slow
def test_it_answers_without_jaxclf(model, texts, batch, tmp_path):
    out = tmp_path / "out"
    to_stablehlo(model, out)
    rows, examples = batch
    np.savez(out / "rows.npz", **{name: getattr(rows, name) for name in program.Packed._fields})
    subprocess.run([sys.executable, "-c", WITHOUT_JAXCLF], cwd=out, check=True)
    classifier, answer = jaxclf.load(model), np.load(out / "answer.npz")
    expected = classifier.predict_proba(texts)[examples]
    # The program calibrates in float32, jaxclf in float64.
    probs = answer["probabilities"][: len(examples)]
    np.testing.assert_allclose(probs, expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(
        answer["decisions"], answer["probabilities"] >= classifier.thresholds
    )
    card = (out / "README.md").read_text()
    assert "for cpu" in card
    assert f"[{SHAPE.rows}, {SHAPE.length}]" in card
    record = json.loads((out / "verification.json").read_text())
    assert record["largest_difference"] < 1e-6
    assert record["model"]["digest"] == classifier.digest


@pytest.mark.slow
def test_an_ensemble_for_several_platforms(model, tiny_encoder, texts, batch, tmp_path):
    second = make_model(tmp_path / "other", tiny_encoder, "distilbert", "mean", seed=1)
    run = make_ensemble(tmp_path / "ensemble", [model, second])
    to_stablehlo(run, tmp_path / "out", ("cpu", "cuda"))
    blob = (tmp_path / "out" / "program.stablehlo").read_bytes()
    assert jax.export.deserialize(bytearray(blob)).platforms == ("cpu", "cuda")
    record = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert record["largest_difference"] < 1e-6
    assert record["platforms"] == ["cpu", "cuda"]
    assert (tmp_path / "out" / "ensemble.json").is_file()


def test_platforms_must_include_the_local_one(model, tmp_path):
    with pytest.raises(ConfigError, match="--platforms must include cpu"):
        to_stablehlo(model, tmp_path / "out", ("cuda",))
    assert not list(tmp_path.iterdir())


def test_a_wrong_program_is_not_written(model, tmp_path, monkeypatch):
    curves = {"platt": lambda xp, z, *, slope, intercept: slope * z}
    monkeypatch.setattr(program, "CURVES", curves)
    with pytest.raises(DataError, match="differ from the run's"):
        to_stablehlo(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "export", "extra"),
    [
        ("onnx", to_onnx, "onnx"),
        ("onnxruntime", to_onnx, "onnx"),
        ("flatbuffers", to_stablehlo, "stablehlo"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package, export, extra, model, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package} .*pip install 'jaxclf\[{extra}\]'"):
        export(model, tmp_path / "out")


@pytest.mark.parametrize("export", [to_hf, to_onnx, to_stablehlo])
def test_an_existing_folder_is_left_alone(export, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigError, match=r"--out.*give a new folder"):
        export(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
