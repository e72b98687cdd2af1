"""A folder with an ONNX model -> (texts -> probabilities), through onnxruntime."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxclf.errors import ConfigError
from jaxclf.model.inference import TOKENS, Scored, gather, prediction_shape
from jaxclf.text.packing import fill, plan
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Shape, Tokens, Windows

MODEL = "model.onnx"

Probs = Float32[np.ndarray, "texts classes"]


class GraphMetadata(NamedTuple):
    """What a model's metadata say of its input."""

    input: str
    labels: tuple[str, ...]
    max_length: int
    max_windows: int
    window_overlap: int
    slots_per_row: int
    length: int | None  # tokens that every row must have; None: any number


def onnx_scorer(folder: Path, threads: int = 0) -> Callable[[Sequence[str]], Probs]:
    """The function that gives texts the model's probabilities, in their order.

    A packed model reads a long text in windows, as `Classifier` does; a padded one reads the first.
    threads: of onnxruntime; 0: one for each core.
    Raises ConfigError without onnxruntime.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(str(folder / MODEL), options, providers=providers)
    values = session.get_modelmeta().custom_metadata_map
    told = GraphMetadata(**{name: json.loads(values[name]) for name in GraphMetadata._fields})
    tokenizer = load_tokenizer(folder)
    read = told.max_windows if told.input == "packed" else 1
    windows = Windows(told.max_length, read, told.window_overlap)

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(["probabilities"], arrays)[0]

    def score(texts: Sequence[str]) -> Probs:
        tokens = tokenize(tokenizer, tuple(texts), windows)
        scored = _packed if told.input == "packed" else _padded
        return gather(scored(run, tokens, told, len(texts)), len(texts), len(told.labels))

    return score


Run = Callable[[dict[str, np.ndarray]], np.ndarray]


def _packed(run: Run, tokens: Tokens, told: GraphMetadata, count: int) -> Iterator[Scored]:
    """As `inference.score`; the last batch has no more rows than it needs."""
    rows = prediction_shape(Windows(told.max_length, told.max_windows, told.window_overlap)).rows
    shape = Shape(rows, told.max_length, rows * told.slots_per_row)
    blank = np.zeros((count, 0), np.float32)
    for placement in plan(tokens, range(count), shape):
        used = len(placement.examples)
        needed = max(int(placement.rows.max()) + 1, -(-used // told.slots_per_row))
        batch = fill(tokens, blank, blank, placement, shape)
        empty = batch.examples == shape.slots
        examples = np.where(empty, needed * told.slots_per_row, batch.examples).astype(np.int32)
        names = ("ids", "positions", "segments")
        arrays = {name: getattr(batch, name)[:needed] for name in names}
        probs = run({**arrays, "examples": examples[:needed]})
        yield Scored(placement.examples, probs[:used])


def _padded(run: Run, tokens: Tokens, told: GraphMetadata, count: int) -> Iterator[Scored]:
    """Texts of like length together, about as many tokens at a time as packed."""
    sizes = np.diff(tokens.starts)
    order = np.argsort(-sizes, kind="stable")
    first = 0
    while first < count:
        length = told.length or int(sizes[order[first]])
        chosen = order[first : first + max(TOKENS // length, 1)]
        first += len(chosen)
        ids, mask = (np.zeros((len(chosen), length), np.int64) for _ in range(2))
        for row, text in enumerate(chosen):
            start, size = tokens.starts[text], sizes[text]
            ids[row, :size] = tokens.ids[start : start + size]
            mask[row, :size] = 1
        yield Scored(chosen, run({"input_ids": ids, "attention_mask": mask}))


def import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ConfigError("no onnxruntime: pip install 'jaxclf[onnx]'") from None
    return onnxruntime
