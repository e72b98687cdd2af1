"""Export a trained model to ONNX: one graph from tokens to calibrated probabilities and decisions,
for every encoder, pool and head."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.decisions.predictions import with_unknown
from jaxclf.errors import ConfigError, DataError, import_extra
from jaxclf.exporters import verify
from jaxclf.exporters.onnx.graph import Graph, Value, expand, node
from jaxclf.exporters.onnx.jaxpr import LENGTH, ROWS, trace
from jaxclf.exporters.onnx.model import Port, to_proto, write
from jaxclf.exporters.onnx.scorer import MODEL, onnx_scorer
from jaxclf.exporters.program import Answer, InferenceProgram, Packed, load_program, named_params
from jaxclf.inference.load import load
from jaxclf.model.inference import TOKENS_PER_SLOT
from jaxclf.text.reader import read
from jaxclf.text.tokenizer.tokenize import tokenize

MAX_PROTOBUF = 2**31 - 2**24  # bytes of constants that fit into one file
MIN_EQUAL_DECISIONS = 0.99  # share of decisions that int8 must keep

# Encoders whose network depends on the number of tokens in a row.
FIXED_LENGTH = ("deberta", "deberta-v2", "modernbert")


class InputLayout(NamedTuple):
    """The input of a graph."""

    inputs: tuple[Port, ...]  # with the sizes that they are traced for
    slots: int  # texts in a run
    to_packed: Callable[..., Packed]  # inputs -> the network's input


def _packed_layout(program: InferenceProgram) -> InputLayout:
    length = program.data.max_length
    inputs = tuple(Port(name, np.int32, (ROWS, length)) for name in Packed._fields)
    return InputLayout(inputs, ROWS * _slots_per_row(program), Packed)


def _slots_per_row(program: InferenceProgram) -> int:
    return max(program.data.max_length // TOKENS_PER_SLOT, 1)


def _padded_layout(program: InferenceProgram) -> InputLayout:
    """Positions count real tokens, so padding can be on either side."""
    length = program.data.max_length if _has_fixed_length(program) else LENGTH

    def to_packed(ids: jax.Array, mask: jax.Array) -> Packed:
        segments = (mask > 0).astype(jnp.int32)
        positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)
        rows = jnp.arange(ROWS, dtype=jnp.int32)[:, None]
        return Packed(ids, positions, segments, jnp.where(segments > 0, rows, ROWS))

    inputs = tuple(Port(name, np.int64, (ROWS, length)) for name in ("input_ids", "attention_mask"))
    return InputLayout(inputs, ROWS, to_packed)


def _has_fixed_length(program: InferenceProgram) -> bool:
    return not set(program.model_types).isdisjoint(FIXED_LENGTH)


INPUT_LAYOUTS = {"packed": _packed_layout, "padded": _padded_layout}


def to_onnx(
    run: Path, out: Path, input: str = "packed", int8: bool = False, data: Path | None = None
) -> str:
    """Write a folder with an ONNX model of a finished run or an ensemble; returns a summary.

    input: `packed` or `padded`. int8: quantize products and tables; needs `data`. data: a labeled
        file, to measure the loss of F1.
    The export is checked against the run on the texts of `data`, or on sentences of all lengths.

    Raises ConfigError if `out` exists and is not empty, if the network has no translation, or if
    onnx or onnxruntime is missing; DataError if the export's answers differ.
    """
    import_extra("onnx", "onnx")
    import_extra("onnxruntime", "onnx")
    if int8 and data is None:
        raise ConfigError("--int8 changes F1: give a labeled file, --data FILE, to measure it")
    program = load_program(run, "float32")
    classifier = load(run)
    values = {
        "input": input,
        "int8": int8,
        "length": program.data.max_length,
        "slots": _slots_per_row(program),
        "is_fixed": _has_fixed_length(program),
    }
    examples = read(data, program.labels, **program.data.columns) if data else None
    texts = examples.texts if examples else verify.probe_texts(program.data.windows)
    with verify.new_folder(run, out, program.tokenizer, "onnx.md", values) as part:
        save(part / MODEL, program, input, int8)
        probs, exported = classifier.predict_proba(texts), onnx_scorer(part)(texts)
        is_compared = np.ones(len(texts), bool)
        if input == "padded":
            is_compared = _fits_one_window(program, texts)
            if not is_compared.any():
                raise DataError(f"{data}: no text fits one window, and a padded graph reads one")
        record = verify.compare(probs[is_compared], exported[is_compared], classifier.thresholds)
        if examples:
            labels = with_unknown(examples.labels, examples.label_mask)
            record |= verify.f1_loss(labels, probs, exported, classifier.thresholds)
        if int8:
            _check_decisions(record)
        else:
            record["tolerance"] = verify.check_tolerance(record, program.dtypes)
        record |= {
            "source": data.name if data else "sentences",
            "beyond_one_window": int((~is_compared).sum()),
        }
        verify.write_record(part, record)
    return _summary(out, record)


def _check_decisions(record: dict[str, Any]) -> None:
    if not record["equal_decisions"] >= MIN_EQUAL_DECISIONS:
        raise DataError(
            f"in int8 {record['equal_decisions']:.2%} of the decisions equal the run's, fewer than "
            f"{MIN_EQUAL_DECISIONS:.0%}; nothing is written. A CPU without VNNI can lose digits in "
            "int8 products"
        )


def _summary(out: Path, record: dict[str, Any]) -> str:
    lines = [
        f"{out}: {record['texts']:,} texts ({record['source']}), probabilities within "
        f"{record['largest_difference']:.2g} of the run's, {record['equal_decisions']:.3%} of the "
        "decisions equal"
    ]
    if "macro_f1" in record:
        f1 = record["macro_f1"]
        lines.append(
            f"macro F1 {f1['exported']:.4f}, of the run {f1['run']:.4f}: loss {f1['loss']:+.4f}"
        )
    if record["beyond_one_window"]:
        lines.append(
            f"{record['beyond_one_window']:,} texts are longer than one window and were not "
            "compared: a padded graph reads their first window"
        )
    return "\n".join(lines)


def _fits_one_window(program: InferenceProgram, texts: list[str] | tuple[str, ...]) -> np.ndarray:
    windows = program.data.windows._replace(max_windows=2)
    tokens = tokenize(program.tokenizer, texts, windows)
    return np.bincount(tokens.example_index) == 1


def save(file: Path, program: InferenceProgram, input: str, int8: bool) -> None:
    """Write the graph; constants too large for one file go into a file beside it."""
    onnx = import_extra("onnx", "onnx")
    model = _to_model(program, input, int8)
    is_large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > MAX_PROTOBUF
    location = {"location": file.name + ".data"} if is_large else {}
    onnx.save_model(model, file, save_as_external_data=is_large, **location)


def _to_model(program: InferenceProgram, input: str, int8: bool) -> Any:
    """The program as an onnx.ModelProto."""
    layout, classes = INPUT_LAYOUTS[input](program), len(program.labels)

    def answer(params: Any, inputs: Any) -> Answer:
        return program.answer(params, layout.to_packed(*inputs), layout.slots)

    inputs = [jax.ShapeDtypeStruct(port.shape, np.int32) for port in layout.inputs]
    traced = trace(answer, program.params, inputs)
    params = named_params(program.params)
    graph = Graph(frozenset(filter(_is_quantized, params)) if int8 else frozenset())
    graph.constants.update(params)
    first, sizes = layout.inputs[0], {layout.slots: "texts", ROWS: "rows", LENGTH: "length"}
    for axis, size in enumerate(first.shape):
        if size in sizes:
            graph.sizes[size] = node(graph, "Shape", first.name, start=axis, end=axis + 1)
    values = [Value(name, array.shape) for name, array in params.items()]
    for name, dtype, shape in layout.inputs:
        is_int32 = dtype == np.int32
        values.append(
            Value(name if is_int32 else node(graph, "Cast", name, to=np.dtype(np.int32)), shape)
        )
    by_text = (layout.slots, classes)
    types = ((np.float32, by_text), (np.float32, (classes,)), (np.bool_, by_text))
    ports = [Port(name, *type) for name, type in zip(Answer._fields, types, strict=True)]
    outputs = {
        port: expand(graph, value, port.shape)
        for port, value in zip(ports, write(graph, traced, values), strict=True)
    }
    length = first.shape[1]
    metadata = {
        "model": program.digest,
        "jaxclf": importlib.metadata.version("jaxclf"),
        "labels": list(program.labels),
        "input": input,
        "precision": "int8" if int8 else "float32",
        "encoders": list(program.model_types),
        "max_length": program.data.max_length,
        "max_windows": program.data.max_windows,
        "window_overlap": program.data.window_overlap,
        "slots_per_row": _slots_per_row(program),
        "length": None if length == LENGTH else length,
    }
    return to_proto(graph, layout.inputs, outputs, sizes, metadata)


def _is_quantized(name: str) -> bool:
    """Whether int8 quantizes a parameter: kernels of layers and the table of words."""
    is_layer_kernel = "/encoder/layer_" in name and name.endswith("/kernel")
    return is_layer_kernel or name.endswith("/embeddings/word/embedding")
