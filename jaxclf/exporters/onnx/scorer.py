"""Score texts with an exported ONNX model through onnxruntime."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxclf.errors import import_extra
from jaxclf.model.inference import TOKENS, Scored, gather, prediction_shape
from jaxclf.text.packing import fill, plan
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Batch, Shape, Tokens, Windows

MODEL = "model.onnx"

Probs = Float32[np.ndarray, "texts classes"]
Run = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs by name -> probabilities


class GraphMetadata(NamedTuple):
    """The metadata of a model that describe its input."""

    input: str
    labels: tuple[str, ...]
    max_length: int
    max_windows: int
    window_overlap: int
    slots_per_row: int
    length: int | None  # tokens that every row must have; None: any number


def onnx_scorer(folder: Path, threads: int = 0) -> Callable[[Sequence[str]], Probs]:
    """Open a folder with an ONNX model; returns a function (texts -> probabilities).

    A packed model reads all windows of a long text, a padded model the first.
    threads: the threads of onnxruntime; 0: all cores.
    Raises ConfigError if onnxruntime is not installed.
    """
    ort = import_extra("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(str(folder / MODEL), options, providers=providers)
    values = session.get_modelmeta().custom_metadata_map
    meta = GraphMetadata(**{name: json.loads(values[name]) for name in GraphMetadata._fields})
    tokenizer = load_tokenizer(folder)
    is_packed = meta.input == "packed"
    max_windows = meta.max_windows if is_packed else 1
    windows = Windows(meta.max_length, max_windows, meta.window_overlap)
    score_tokens = _score_packed if is_packed else _score_padded

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(["probabilities"], inputs)[0]

    def score(texts: Sequence[str]) -> Probs:
        tokens = tokenize(tokenizer, tuple(texts), windows)
        scored = score_tokens(run, tokens, meta, len(texts))
        return gather(scored, len(texts), len(meta.labels))

    return score


def _score_packed(run: Run, tokens: Tokens, meta: GraphMetadata, count: int) -> Iterator[Scored]:
    """As `inference.score`, but the last batch has only the rows that it needs."""
    rows = prediction_shape(Windows(meta.max_length, meta.max_windows, meta.window_overlap)).rows
    shape = Shape(rows, meta.max_length, rows * meta.slots_per_row)
    blank = np.zeros((count, 0), np.float32)
    for placement in plan(tokens, range(count), shape):
        used = len(placement.examples)
        needed = max(int(placement.rows.max()) + 1, -(-used // meta.slots_per_row))
        batch = fill(tokens, blank, blank, placement, shape)
        is_padding = batch.examples == shape.slots
        examples = np.where(is_padding, needed * meta.slots_per_row, batch.examples)
        fields = zip(Batch._fields, [*batch[:3], examples.astype(np.int32)], strict=False)
        inputs = {name: values[:needed] for name, values in fields}
        yield Scored(placement.examples, run(inputs)[:used])


def _score_padded(run: Run, tokens: Tokens, meta: GraphMetadata, count: int) -> Iterator[Scored]:
    """Batches of texts of similar length, of about as many tokens as a packed batch."""
    sizes = np.diff(tokens.starts)
    order = np.argsort(-sizes, kind="stable")
    first = 0
    while first < count:
        length = meta.length or int(sizes[order[first]])
        batch = order[first : first + max(TOKENS // length, 1)]
        first += len(batch)
        ids, mask = (np.zeros((len(batch), length), np.int64) for _ in range(2))
        for row, text in enumerate(batch):
            start, size = tokens.starts[text], sizes[text]
            ids[row, :size] = tokens.ids[start : start + size]
            mask[row, :size] = 1
        yield Scored(batch, run({"input_ids": ids, "attention_mask": mask}))
