"""Give a trained model to onnxruntime: one graph from tokens to calibrated probabilities and
decisions, whatever the encoder, pool and head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.decisions.predictions import with_unknown
from jaxclf.errors import ConfigError, DataError
from jaxclf.exporters.onnx.graph import Value, empty_graph, expand, node
from jaxclf.exporters.onnx.jaxpr import LENGTH, ROWS, trace
from jaxclf.exporters.onnx.model import Port, import_onnx, to_proto, write
from jaxclf.exporters.onnx.scorer import MODEL, import_onnxruntime, onnx_scorer
from jaxclf.exporters.program import Answer, InferenceProgram, Packed, load_program
from jaxclf.exporters.verify import (
    check_tolerance,
    compare,
    loss_of_f1,
    new_folder,
    probe_texts,
    write_record,
)
from jaxclf.inference.load import load
from jaxclf.model.inference import TOKENS_PER_SLOT
from jaxclf.text.reader import read
from jaxclf.text.tokenizer.tokenize import tokenize

LARGEST = 2**31 - 2**24  # bytes of constants that fit into a protobuf file with all the rest
EQUAL = 0.99  # share of decisions that eight bits must leave as they are

# Encoders whose network is not the same for every number of tokens in a row.
OF_ONE_LENGTH = ("deberta", "deberta-v2", "modernbert")


class InputLayout(NamedTuple):
    """What a graph is given. inputs: with the sizes that it is traced for. slots: texts in a run.
    packed: inputs -> what the network reads. told: the same for a person."""

    inputs: tuple[Port, ...]
    slots: int
    packed: Callable[..., Packed]
    told: str


def _packed_form(whole: InferenceProgram) -> InputLayout:
    length = whole.data.max_length
    inputs = tuple(Port(name, np.int32, (ROWS, length)) for name in Packed._fields)
    slots = _slots_per_row(whole)
    return InputLayout(inputs, ROWS * slots, Packed, PACKED.format(length=length, slots=slots))


def _slots_per_row(whole: InferenceProgram) -> int:
    return max(whole.data.max_length // TOKENS_PER_SLOT, 1)


def _padded_form(whole: InferenceProgram) -> InputLayout:
    """Positions count the tokens that are there, so padding may lie on either side."""
    longest = whole.data.max_length
    length = longest if set(whole.kinds) & set(OF_ONE_LENGTH) else LENGTH

    def packed(ids: jax.Array, mask: jax.Array) -> Packed:
        there = (mask > 0).astype(jnp.int32)
        positions = jnp.maximum(jnp.cumsum(there, axis=1) - 1, 0)
        rows = jnp.arange(ROWS, dtype=jnp.int32)[:, None]
        return Packed(ids, positions, there, jnp.where(there > 0, rows, ROWS))

    inputs = tuple(Port(name, np.int64, (ROWS, length)) for name in ("input_ids", "attention_mask"))
    cut = f"padded to {longest}" if length == longest else f"of at most {longest}"
    return InputLayout(inputs, ROWS, packed, PADDED.format(cut=cut))


INPUT_LAYOUTS = {"packed": _packed_form, "padded": _padded_form}

PACKED = """inputs `ids`, `positions`, `segments`, `examples`, int32 `[rows, {length}]`. Texts
share rows: `segments` tells them apart (0 is padding), `positions` start at 0 in each, `examples`
is the row of the answer that a token belongs to (for padding one beyond the last). The answer has
{slots} times as many rows as the input, and those that no token belongs to mean nothing.
`jaxclf.exporters.onnx.scorer.onnx_scorer(folder)` fills all this and gives texts their
probabilities."""

PADDED = """inputs `input_ids` and `attention_mask`, int64 `[rows, length]`, one text to a row {cut}
tokens, as `tokenizer.json` gives them. Of a longer text only the first window is read, where jaxclf
itself reads more and pools them."""

EIGHT_BITS = """ in eight bits (on an x86 CPU without VNNI sums may saturate: score a labelled file
there before use)"""

CARD = """## As an ONNX graph

`model.onnx`{kind} for onnxruntime: {told}

Outputs: `probabilities` float32 and `decisions` bool, a row for each text, and `thresholds`
float32, by which they are decided. The model's metadata `labels` has the names of the columns;
`verification.json` says how far its answers were from jaxclf's own.
"""


def to_onnx(
    run: Path, out: Path, input: str = "packed", int8: bool = False, data: Path | None = None
) -> str:
    """Write a folder with an ONNX model of a finished run or an ensemble; what was found, in words.

    input: `packed` or `padded`. int8: products and tables in eight bits. data: a labelled
        file, on which the loss of F1 is measured; int8 wants it.
    Its answers are held to the run's own, on the texts of `data` or on sentences of all lengths.

    Raises ConfigError where `out` exists and is not empty, for a network that has no writer, and
    without onnx and onnxruntime; DataError where the answers are not the run's.
    """
    import_onnx()
    import_onnxruntime()
    if int8 and data is None:
        raise ConfigError("--int8 loses some F1: give a labelled file, --data FILE, to measure it")
    whole = load_program(run, "float32")
    classifier = load(run)
    given = INPUT_LAYOUTS[input](whole)
    told = CARD.format(kind=EIGHT_BITS if int8 else "", told=given.told)
    examples = read(data, whole.labels) if data else None
    texts = examples.texts if examples else probe_texts(whole.data.windows)
    with new_folder(run, out, whole.tokenizer, told) as part:
        save(part / MODEL, whole, input, int8)
        own, theirs = classifier.predict_proba(texts), onnx_scorer(part)(texts)
        kept = np.ones(len(texts), bool) if input == "packed" else _of_one_window(whole, texts)
        if not kept.any():
            raise DataError(f"{data}: no text fits into one row, all that a padded graph reads")
        record = compare(own[kept], theirs[kept], classifier.thresholds)
        if examples:
            labels = with_unknown(examples.labels, examples.label_mask)
            record |= loss_of_f1(labels, own, theirs, classifier.thresholds)
        if int8:
            _hold_decisions(record)
        else:
            record["tolerance"] = check_tolerance(record, whole.dtypes)
        record |= {
            "source": data.name if data else "sentences",
            "beyond_one_window": int((~kept).sum()),
        }
        write_record(part, record)
    return _in_words(out, record)


def _hold_decisions(record: dict[str, Any]) -> None:
    if not record["equal_decisions"] >= EQUAL:
        raise DataError(
            f"in eight bits {record['equal_decisions']:.2%} of the decisions are the run's, fewer "
            f"than {EQUAL:.0%}; nothing is written. A CPU without VNNI may lose digits in such "
            "products"
        )


def _in_words(out: Path, record: dict[str, Any]) -> str:
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
            f"{record['beyond_one_window']:,} texts are longer than a row and were left out of the "
            "comparison: of those a padded graph reads the first window"
        )
    return "\n".join(lines)


def _of_one_window(whole: InferenceProgram, texts: tuple[str, ...] | list[str]) -> np.ndarray:
    windows = whole.data.windows._replace(max_windows=2)
    tokens = tokenize(whole.tokenizer, texts, windows)
    return np.bincount(tokens.example_index) == 1


def save(file: Path, whole: InferenceProgram, input: str, int8: bool) -> None:
    """Write the graph, with constants in a file beside it where they are too large for one."""
    onnx = import_onnx()
    model = _proto(whole, input, int8)
    large = sum(len(one.raw_data) for one in model.graph.initializer) > LARGEST
    beside = {"location": file.name + ".data"} if large else {}
    onnx.save_model(model, file, save_as_external_data=large, **beside)


def _proto(whole: InferenceProgram, input: str, int8: bool) -> Any:
    given, classes = INPUT_LAYOUTS[input](whole), len(whole.labels)

    def answer(params: Any, inputs: Any) -> Answer:
        return whole.answer(params, given.packed(*inputs), given.slots)

    params = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), whole.params)
    inputs = [jax.ShapeDtypeStruct(port.shape, np.int32) for port in given.inputs]
    program = trace(answer, params, inputs)
    leaves = jax.tree.leaves_with_path(whole.params)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    graph = empty_graph(frozenset(filter(_fits_bytes, named)) if int8 else frozenset())
    graph.constants.update(named)
    first, sizes = given.inputs[0], {given.slots: "texts", ROWS: "rows", LENGTH: "length"}
    for axis, size in enumerate(first.shape):
        if size in sizes:
            graph.sizes[size] = node(graph, "Shape", first.name, start=axis, end=axis + 1)
    values = [Value(name, array.shape) for name, array in named.items()]
    for port in given.inputs:
        name = port.name
        if port.dtype != np.int32:
            name = node(graph, "Cast", name, to=np.dtype(np.int32))
        values.append(Value(name, port.shape))
    made = write(graph, program, values)
    shapes = Answer((given.slots, classes), (classes,), (given.slots, classes))
    dtypes = Answer(np.float32, np.float32, np.bool_)
    outputs = {
        Port(name, dtype, shape): expand(graph, value, shape)
        for name, dtype, shape, value in zip(Answer._fields, dtypes, shapes, made, strict=True)
    }
    return to_proto(graph, given.inputs, outputs, sizes, _metadata(whole, input, given, int8))


def _fits_bytes(name: str) -> bool:
    """The products of the layers and the table of words; what is small stays as it is."""
    layer = "/encoder/layer_" in name and name.endswith("/kernel")
    return layer or name.endswith("/embeddings/word/embedding")


def _metadata(
    whole: InferenceProgram, input: str, given: InputLayout, int8: bool
) -> dict[str, str]:
    length = given.inputs[0].shape[1]
    told = {
        "labels": list(whole.labels),
        "input": input,
        "precision": "int8" if int8 else "float32",
        "encoders": list(whole.kinds),
        "max_length": whole.data.max_length,
        "max_windows": whole.data.max_windows,
        "window_overlap": whole.data.window_overlap,
        "slots_per_row": _slots_per_row(whole),
        "length": None if length == LENGTH else length,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}
