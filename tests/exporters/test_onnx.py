"""A model activations to onnxruntime: the same probabilities, by any encoder, pool, head and
calibration; in eight bits nearly the same, and how nearly is measured."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_models import LABELS, LENGTH, THRESHOLDS, make_ensemble, make_model

import jaxclf
from jaxclf import export
from jaxclf.decisions import calibration
from jaxclf.decisions.calibration import CALIBRATORS
from jaxclf.decisions.metrics import score_labels
from jaxclf.errors import ConfigError, DataError
from jaxclf.exporters import program
from jaxclf.exporters.onnx import export as onnx_export
from jaxclf.exporters.onnx import fusions, int8, ops
from jaxclf.exporters.onnx import graph as onnx_graph
from jaxclf.exporters.onnx import model as onnx_model
from jaxclf.exporters.onnx.export import save, to_onnx
from jaxclf.exporters.onnx.jaxpr import LENGTH as ANY_LENGTH
from jaxclf.exporters.onnx.jaxpr import ROWS, trace
from jaxclf.exporters.onnx.scorer import MODEL, onnx_scorer
from jaxclf.exporters.program import load_program
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.types import Windows

# DistilBERT is in the ensemble.
VARIANTS = [
    "bert",
    *(
        pytest.param(variant, marks=pytest.mark.slow)
        for variant in (
            "xlm-roberta",
            "deberta-short",
            "deberta-v2-xlarge",
            "modernbert",
            "modernbert-bias",
        )
    ),
]
CLOSE = 1e-6  # two float32 libraries add in different orders


@pytest.fixture(scope="module")
def texts(demo_rows):
    """Of one token, of several windows, of more than a batch of one row."""
    return [*[row["text"] for row in demo_rows["val"]][:30], "a", "ok ok", "word " * 90]


@pytest.fixture(scope="module")
def model(tiny_encoder, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("bert") / "model", tiny_encoder)


@pytest.fixture(scope="module")
def bert_program(model):
    return load_program(model, "float32")


@pytest.fixture(scope="module")
def run_probs(model, texts):
    return jaxclf.load(model).predict_proba(texts)


@pytest.fixture(scope="module")
def packed(bert_program, tmp_path_factory):
    return exported(bert_program, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def labelled(texts, run_probs, tmp_path_factory):
    """Rows whose labels are the run's own decisions, but for one in seven."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("labelled") / "rows.jsonl"
    truth = (run_probs >= 0.5) ^ (rng.random(run_probs.shape) < 1 / 7)
    rows = [
        {"text": text, "labels": dict(zip(LABELS, row.astype(int).tolist(), strict=True))}
        for text, row in zip(texts, truth, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def exported(bert_program, folder, form="packed", int8=False):
    """The graph and what reads it, without the comparison."""
    save(folder / MODEL, bert_program, form, int8)
    bert_program.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def session_of(folder):
    return onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])


def as_rows(bert_program, texts, length, side="right"):
    """input_ids and attention_mask, and which texts are no longer than a row."""
    tokens = tokenize(bert_program.tokenizer, texts, Windows(LENGTH, 2, 4))
    short = np.flatnonzero(np.bincount(tokens.example_index) == 1)
    ids, mask = (np.zeros((len(short), length), np.int64) for _ in range(2))
    for row, text in enumerate(short):
        (window,) = np.flatnonzero(tokens.example_index == text)
        size = tokens.starts[window + 1] - tokens.starts[window]
        columns = slice(0, size) if side == "right" else slice(length - size, length)
        ids[row, columns] = tokens.ids[tokens.starts[window] : tokens.starts[window + 1]]
        mask[row, columns] = 1
    return {"input_ids": ids, "attention_mask": mask}, short


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_encoder_gives_the_same_probabilities(variant, tiny_encoder, texts, tmp_path):
    run = make_model(tmp_path / "model", tiny_encoder, variant, "mean", "native")
    expected = jaxclf.load(run).predict_proba(texts)
    assert expected.std() > 0.05
    bert_program = load_program(run, "float32")
    exported_probs = onnx_scorer(exported(bert_program, tmp_path))(texts)
    np.testing.assert_allclose(exported_probs, expected, atol=CLOSE, rtol=0)
    session = session_of(exported(bert_program, tmp_path, "padded"))
    for side in ("left", "right"):
        inputs, short = as_rows(bert_program, texts, LENGTH, side)
        probs = session.run(["probabilities"], inputs)[0]
        np.testing.assert_allclose(probs, expected[short], atol=CLOSE, rtol=0)
    exported_probs = onnx_scorer(tmp_path)(texts)
    np.testing.assert_allclose(exported_probs[short], expected[short], atol=CLOSE, rtol=0)


def test_rows_and_their_length_are_free(bert_program, run_probs, texts, packed, tmp_path):
    scorer = onnx_scorer(packed)
    alone = np.concatenate([scorer([text]) for text in texts])
    np.testing.assert_allclose(alone, run_probs, atol=CLOSE, rtol=0)
    assert scorer([]).shape == (0, len(LABELS))
    session = session_of(exported(bert_program, tmp_path, "padded"))
    assert [port.shape for port in session.get_inputs()] == [["rows", "length"]] * 2
    for length in (LENGTH - 3, LENGTH, 31):
        inputs, short = as_rows(bert_program, texts, max(length, LENGTH))
        kept = inputs["attention_mask"].sum(axis=1) <= length
        inputs = {name: rows[kept][:, :length] for name, rows in inputs.items()}
        probs = session.run(["probabilities"], inputs)[0]
        np.testing.assert_allclose(probs, run_probs[short[kept]], atol=CLOSE, rtol=0)


def test_thresholds_decide_in_the_graph_as_outside(model, packed, texts):
    session = session_of(packed)
    rows = {port.name: np.zeros((3, LENGTH), np.int32) for port in session.get_inputs()}
    rows["ids"][:] = np.arange(5, 65).reshape(3, LENGTH)
    rows["segments"][:], rows["positions"][:] = 1, np.arange(LENGTH)
    rows["examples"][:] = np.arange(3)[:, None]
    probs, thresholds, decisions = session.run(None, rows)
    assert [port.name for port in session.get_outputs()] == list(program.Answer._fields)
    np.testing.assert_array_equal(decisions, probs >= thresholds)
    exact = np.array([THRESHOLDS[name]["value"] for name in LABELS])
    for step in range(-3, 4):  # floats around each threshold are decided alike
        near = thresholds
        for _ in range(abs(step)):
            near = np.nextafter(near, np.float32(np.sign(step)))
        np.testing.assert_array_equal(near >= thresholds, near.astype(np.float64) >= exact)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list(LABELS)
    assert len(json.loads(metadata["model"])) == 64
    assert json.loads(metadata["jaxclf"]) == jaxclf.__version__


@pytest.fixture(scope="module")
def curves():
    """A calibration of every kind, fitted on noise around a truth."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 3)) * 3
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))).astype(np.float32)
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return {kind: fit(labels, probs) for kind, fit in CALIBRATORS.items()}


def test_calibration_in_jax_is_that_in_numpy(curves):
    assert program.CURVES.keys() == curves.keys()
    ends = 10.0 ** -np.arange(0.5, 9, 0.25)
    probs = np.concatenate([[0], ends, np.linspace(0.1, 0.9, 99), 1 - ends, [1]])
    probs = np.repeat(probs.astype(np.float32)[:, None], 3, axis=1)
    for kind, curve in curves.items():
        exported_probs = program.apply_calibration(curve, jnp.asarray(probs))
        np.testing.assert_allclose(
            exported_probs,
            calibration.apply_calibration(curve, probs),
            atol=CLOSE,
            rtol=0,
            err_msg=kind,
        )


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "cls", "head": "native"},
        pytest.param({"pool": "mean_max"}, marks=pytest.mark.slow),
        pytest.param({"head": "residual"}, marks=pytest.mark.slow),
        {"calibration": "platt"},
        {"calibration": "isotonic"},
    ],
    ids=str,
)
def test_every_pool_head_and_calibration(options, curves, tiny_encoder, texts, run_probs, tmp_path):
    if kind := options.get("calibration"):
        options = {"calibration": curves[kind]}
    run = make_model(tmp_path / "model", tiny_encoder, **options)
    expected = jaxclf.load(run).predict_proba(texts)
    assert np.abs(expected - run_probs).max() > 0.05
    if kind:
        calibrated = calibration.apply_calibration(curves[kind], run_probs)
        np.testing.assert_allclose(expected, calibrated, atol=CLOSE, rtol=0)
    exported_probs = onnx_scorer(exported(load_program(run, "float32"), tmp_path))(texts)
    np.testing.assert_allclose(exported_probs, expected, atol=CLOSE, rtol=0)


def test_an_ensemble_is_one_graph(tiny_encoder, curves, texts, run_probs, tmp_path):
    others = [
        make_model(tmp_path / "a", tiny_encoder, "bert", seed=1),
        make_model(tmp_path / "b", tiny_encoder, "distilbert", "mean", calibration=curves["beta"]),
    ]
    run = make_ensemble(tmp_path / "ensemble", others)
    exported_probs = onnx_scorer(exported(load_program(run, "float32"), tmp_path))(texts)
    np.testing.assert_allclose(
        exported_probs, jaxclf.load(run).predict_proba(texts), atol=CLOSE, rtol=0
    )
    shorter = make_model(tmp_path / "c", tiny_encoder, length=LENGTH - 1)
    run = make_ensemble(tmp_path / "mixed", [others[0], shorter])
    with pytest.raises(ConfigError, match="differently, and one program"):
        load_program(run)


@pytest.mark.slow
def test_norms_and_activations_become_one_node(tiny_encoder, texts, tmp_path, monkeypatch):
    run = make_model(tmp_path / "model", tiny_encoder, "xlm-roberta", "mean", "residual")
    bert_program = load_program(run, "float32")
    kinds = kinds_of(exported(bert_program, tmp_path))
    assert (kinds.count("LayerNormalization"), kinds.count("Softmax")) == (5 + 2, 2)
    assert kinds.count("Gelu") == 2 + 1  # by tanh in the encoder, by erf in the head
    assert not {"Erf", "Tanh", "Exp", "Sqrt"} & set(kinds)
    assert "ScatterND" not in kinds  # onnxruntime's loses a row now and then
    fused = onnx_scorer(tmp_path)(texts)
    monkeypatch.setattr(onnx_model, "find_fusion", lambda *_: None)
    assert {"Erf", "Tanh", "Exp", "Sqrt"} <= set(kinds_of(exported(bert_program, tmp_path)))
    np.testing.assert_allclose(onnx_scorer(tmp_path)(texts), fused, atol=CLOSE, rtol=0)


def kinds_of(folder):
    model = onnx.load(folder / MODEL)
    onnx.checker.check_model(model)
    return [node.op_type for node in model.graph.node]


def test_a_similar_pattern_is_not_fused():
    """Another constant, another axis, another order: not a GELU, not a softmax, not a norm."""
    x = jax.ShapeDtypeStruct((4, 6), np.float32)
    for near in (
        lambda x: x * 0.5 * (1 + jax.lax.erf(x * 0.7)),
        lambda x: jax.nn.softmax(x, axis=0),
        lambda x: x[:, ::-1] * 0.5 * (1 + jax.lax.erf(x * 2**-0.5)),
    ):
        program = trace(near, x)
        producers = fusions.producers_of(program)
        assert not any(fusions.find_fusion(equation, producers) for equation in program.equations)


def test_symbolic_sizes_are_computed_by_the_graph():
    graph = onnx_graph.Graph(frozenset())
    graph.sizes.update({ROWS: "rows", ANY_LENGTH: "length"})
    for size in (ROWS * 8 + 1, ROWS * ANY_LENGTH * 12, ANY_LENGTH, 0, 1, 250_002):
        name = onnx_graph.size_of(graph, size)
        known = {"rows": 5, "length": 7, **graph.constants}
        for node in graph.nodes.values():
            left, right = (known[name] for name in node.inputs)
            known[node.output] = left + right if node.op == "Add" else left * right
        expected = {ROWS * 8 + 1: 41, ROWS * ANY_LENGTH * 12: 420, ANY_LENGTH: 7}.get(size, size)
        assert known[name] == expected


def test_a_folder_records_its_differences_from_the_run(
    model, labelled, run_probs, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    arguments = ["x", "--run", str(model), "--to", "onnx", "--out", str(out), "--int8"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert export.main() == 2
    assert "--data FILE" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*arguments, "--data", str(labelled)])
    # Three labels of 33 texts, scattered around their thresholds: one more or less is a percent.
    monkeypatch.setattr(onnx_export, "MIN_EQUAL_DECISIONS", 0.9)
    assert export.main() == 0
    record = json.loads((out / "verification.json").read_text())
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    truth = np.array([[row["labels"][name] for name in LABELS] for row in rows], np.float32)
    exported_probs = onnx_scorer(out)([row["text"] for row in rows])
    thresholds = jaxclf.load(model).thresholds
    decided = [probs >= thresholds for probs in (run_probs, exported_probs)]
    scores = [float(np.nanmean(score_labels(truth, rows).f1)) for rows in decided]
    assert record["model"]["digest"] == jaxclf.load(model).digest
    assert record["jaxclf"] == jaxclf.__version__
    assert record["macro_f1"] == pytest.approx(
        {"run": scores[0], "exported": scores[1], "loss": scores[0] - scores[1]}
    )
    assert record["equal_decisions"] == (decided[0] == decided[1]).mean()
    assert record["largest_difference"] == np.abs(run_probs - exported_probs).max() > 0
    card = (out / "README.md").read_text()
    assert card.startswith("a card\n")
    assert "\n\n## As an ONNX graph" in card
    assert "in int8" in card
    files = "README.md jaxclf.json model.onnx tokenizer.json verification.json"
    assert {path.name for path in out.iterdir()} == set(files.split())
    assert f"loss {scores[0] - scores[1]:+.4f}" in capsys.readouterr().out


@pytest.mark.slow
def test_int8_is_close_and_small_and_independent_of_other_texts(
    bert_program, run_probs, texts, packed, tmp_path
):
    scorer = onnx_scorer(exported(bert_program, tmp_path, int8=True))
    exported_probs = scorer(texts)
    assert 0 < np.abs(exported_probs - run_probs).mean() < 0.01
    backwards = scorer(texts[::-1])[::-1]  # in other company
    # A text elsewhere in a row has other last digits in float32, and what lies half way between two
    # steps of eight bits may then be rounded to the other one: on some machines in one text of 33.
    # Scales that a text shared with its company would move all of them.
    moved = (np.abs(backwards - exported_probs) > CLOSE).any(axis=1)
    assert moved.sum() <= len(texts) // 10
    sizes = [(folder / MODEL).stat().st_size for folder in (packed, tmp_path)]
    assert sizes[1] < sizes[0] / 2
    graph = onnx.load(tmp_path / MODEL).graph
    # Query, key and value take the same bytes.
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 2 * 4
    weights = graph.initializer
    bytes_ = [tensor for tensor in weights if tensor.data_type == onnx.TensorProto.INT8]
    assert len(bytes_) == 2 * 6 + 1  # the products of two layers, the table of words
    assert all(np.prod(tensor.dims) <= 32 * 128 for tensor in weights if tensor not in bytes_)


@pytest.mark.parametrize("producer", ["Identity", "LayerNormalization", "Gelu"])
def test_an_int8_product_errs_by_rounding_only(producer):
    error, bound = product_error(producer)
    assert (error <= bound).all()
    assert error.max() > bound.min() / 100


def test_the_known_range_of_activations_reduces_the_error():
    for producer in ("LayerNormalization", "Gelu"):
        known, unknown = (product_error(producer, is_known)[0].mean() for is_known in (True, False))
        assert known < 0.85 * unknown  # part of the error is the weights' own


def product_error(producer, is_known=True):
    """(error, largest error that rounding explains) of a quantized product. Its left operand is a
    node's output with a few large channels."""
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(9, 64)).astype(np.float32)
    activations[4] = 0
    scale = np.where(np.arange(64) % 16, 1, 30).astype(np.float32)
    weights = rng.normal(size=(64, 24)).astype(np.float32)
    graph = onnx_graph.Graph(frozenset(["weights"]))
    graph.constants.update({"weights": weights, "scale": scale})
    more = ["scale"] if producer == "LayerNormalization" else []
    produced = onnx_graph.node(graph, producer, "activations", *more)
    operand = produced if is_known else onnx_graph.node(graph, "Identity", produced)
    value = onnx_graph.Value(operand, activations.shape)
    product = int8.quantized_product(graph, value, onnx_graph.Value("weights", (64, 24)))
    ports = [
        onnx_model.Port(name, np.float32, size)
        for name, size in (("activations", (9, 64)), ("x", (9, 64)), ("y", (9, 24)))
    ]
    outputs = {ports[1]: onnx_graph.Value(produced, activations.shape), ports[2]: product}
    model = onnx_model.to_proto(graph, ports[:1], outputs, {}, {})
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x, y = session.run(None, {"activations": activations})
    error = np.abs(y - x.astype(np.float64) @ weights)
    # Moved between the factors by at most 30 times, a step may be so much wider.
    wide = np.abs(weights).max(axis=0) / 254, np.abs(x).max(axis=1, keepdims=True) / 239
    bound = np.abs(x).sum(axis=1, keepdims=True) * wide[0] + wide[1] * np.abs(weights).sum(axis=0)
    return error, bound * 2 + 1e-5


def test_an_int8_table_has_a_scale_for_each_row():
    table = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    table *= 10.0 ** np.arange(-2, 3, dtype=np.float32)[:, None]
    table[0] = 0
    integers, scales = int8.quantize(table, axis=1)
    assert integers.dtype == np.int8
    assert np.abs(integers[1:]).max(axis=1).tolist() == [127] * 4
    error = np.abs(integers * scales[:, None] - table)
    assert (error <= scales[:, None] * 0.5001).all()
    assert np.isfinite(scales).all()


def test_a_wrong_graph_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setitem(ops.OPS, "tanh", ops.OPS["sin"])
    with pytest.raises(DataError, match=r"differ from the run's by up to .*, more than 1e-05"):
        to_onnx(model, tmp_path / "out")
    monkeypatch.delitem(ops.OPS, "tanh")
    with pytest.raises(ConfigError, match="`tanh`"):
        to_onnx(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_int8_with_other_decisions_is_not_written(model, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "MIN_EQUAL_DECISIONS", 1.01)
    with pytest.raises(DataError, match=r"in int8 .* of the decisions"):
        to_onnx(model, tmp_path / "out", int8=True, data=labelled)
    assert not list(tmp_path.iterdir())


def test_a_padded_folder_leaves_long_texts_out_of_the_comparison(model, texts, tmp_path):
    summary = to_onnx(model, tmp_path / "out", input="padded")
    record = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert record["beyond_one_window"] > 0
    assert "first window" in summary
    assert record["largest_difference"] < CLOSE


@pytest.mark.slow
def test_large_constants_lie_beside_the_graph(
    bert_program, run_probs, texts, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_export, "MAX_PROTOBUF", 1000)
    exported_probs = onnx_scorer(exported(bert_program, tmp_path))(texts)
    assert (tmp_path / "model.onnx.data").stat().st_size > (tmp_path / MODEL).stat().st_size
    np.testing.assert_allclose(exported_probs, run_probs, atol=CLOSE, rtol=0)


@pytest.mark.slow
def test_bfloat16_is_written_in_float32(tiny_encoder, run_probs, texts, tmp_path):
    run = make_model(tmp_path / "model", tiny_encoder, dtype="bfloat16")
    exported_probs = onnx_scorer(exported(load_program(run, "float32"), tmp_path))(texts)
    np.testing.assert_allclose(exported_probs, run_probs, atol=CLOSE, rtol=0)
