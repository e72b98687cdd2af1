"""Products and tables in eight bits: weights by channel, activations by row as they come.

A row has a scale of its own, so that what a text gets does not depend on the texts beside it, and
an outlier costs its own row alone. What is known of activations from the node that made them is
used: behind a layer norm some channels are large, and part of their size is moved into the weights
(SmoothQuant, Xiao et al. 2023, arXiv 2211.10438; from the norm's own scale and bias, which needs
no data); behind a GELU hardly anything lies below 0.
"""

import numpy as np
from jaxtyping import Float32, Int8

from jaxclf.exporters.onnx.graph import Graph, Value, constant, integers, node

MIDDLE, LOW = 128, 16  # the byte that stands for 0, and behind a GELU
DEVIATIONS = 3  # of a normed channel that count as its size
LEAST = np.float32(1e-30)  # a row of zeros has a scale too
OWN = "com.microsoft"  # onnxruntime's operators beyond ONNX's


def quantize(
    weights: Float32[np.ndarray, "inputs outputs"], axis: int
) -> tuple[Int8[np.ndarray, "inputs outputs"], Float32[np.ndarray, " channels"]]:
    """(whole numbers, scales) with `weights ~ whole * scale`: one scale for all that lies along
    the axis."""
    largest = np.abs(weights).max(axis=axis, keepdims=True)
    scales = np.maximum(largest / np.float32(127), LEAST)
    return np.rint(weights / scales).astype(np.int8), scales.reshape(-1)


def quantized_product(graph: Graph, left: Value, right: Value) -> Value:
    """Float [rows, inputs] times a constant [inputs, outputs]."""
    weights, maker = graph.constants[right.name], graph.nodes.get(left.name)
    taken, zero = left.name, MIDDLE
    if maker is not None and maker.op == "LayerNormalization":
        scale, *bias = (graph.constants[name] for name in maker.inputs[1:])
        # Of the norm alone: query, key and value then take the same bytes.
        size = DEVIATIONS * np.abs(scale) + sum(np.abs(one) for one in bias)
        moved = np.sqrt(size + LEAST).astype(np.float32)
        weights = weights * moved[:, None]
        taken = node(graph, "Mul", taken, constant(graph, 1 / moved))
    elif maker is not None and maker.op == "Gelu":
        zero = LOW
    whole, scales = quantize(weights, axis=0)
    told = [constant(graph, one) for one in (whole, np.float32(1), scales, np.uint8(zero))]
    rows, row_scales = _by_row(graph, taken, zero)
    product = node(graph, "MatMulIntegerToFloat", rows, *told, domain=OWN)
    return Value(node(graph, "Mul", product, row_scales), (left.shape[0], right.shape[1]))


def _by_row(graph: Graph, name: str, zero: int) -> tuple[str, str]:
    """(bytes, scales [rows, 1]) of a float [rows, inputs]."""
    last = integers(graph, 1)
    if zero == MIDDLE:
        largest = node(graph, "ReduceMax", node(graph, "Abs", name), last)
        scales = node(graph, "Mul", largest, constant(graph, np.float32(1 / 127)))
    else:
        ends = [node(graph, f"Reduce{end}", name, last) for end in ("Max", "Min")]
        rooms = [constant(graph, np.float32(1 / room)) for room in (255 - zero, -zero)]
        needed = [node(graph, "Mul", end, room) for end, room in zip(ends, rooms, strict=True)]
        scales = node(graph, "Max", *needed)
    scales = node(graph, "Max", scales, constant(graph, LEAST))
    flat = node(graph, "Squeeze", scales, last)
    zeros = node(graph, "Expand", constant(graph, np.uint8(zero)), node(graph, "Shape", flat))
    return node(graph, "QuantizeLinear", name, flat, zeros, axis=0), scales


def quantized_rows(graph: Graph, table: Value, places: str) -> str:
    """Rows of a constant [rows, width] as floats."""
    whole, scales = quantize(graph.constants[table.name], axis=1)
    found = [
        node(graph, "Gather", constant(graph, part), places, axis=0)
        for part in (whole, scales[:, None])
    ]
    return node(graph, "Mul", node(graph, "Cast", found[0], to=np.dtype(np.float32)), found[1])
