"""Matrix products and tables in int8: weights by channel, activations by row at run time.

Every row has its own scale. So the result of a text does not depend on the texts beside it, and an
outlier affects only its row. The node before the product determines the range. After a layer norm,
part of the size of large channels moves into the weights (SmoothQuant, Xiao et al. 2023, arXiv
2211.10438, with the norm's scale and bias instead of data). After a GELU few values are below 0.
"""

import numpy as np
from jaxtyping import Float32, Int8

from jaxclf.exporters.onnx.graph import Graph, Value, constant, integers, node

ZERO_POINT, GELU_ZERO_POINT = 128, 16  # the byte that stands for 0
DEVIATIONS = 3  # standard deviations taken as the size of a normed channel
MIN_SCALE = np.float32(1e-30)  # of a row of zeros
DOMAIN = "com.microsoft"  # onnxruntime's operators beyond ONNX


def quantize(
    weights: Float32[np.ndarray, "inputs outputs"], axis: int
) -> tuple[Int8[np.ndarray, "inputs outputs"], Float32[np.ndarray, " channels"]]:
    """(integers, scales) with `weights ~ integers * scales`; elements along `axis` share a
    scale."""
    largest = np.abs(weights).max(axis=axis, keepdims=True)
    scales = np.maximum(largest / np.float32(127), MIN_SCALE)
    return np.rint(weights / scales).astype(np.int8), scales.reshape(-1)


def quantized_product(graph: Graph, left: Value, right: Value) -> Value:
    """Float [rows, inputs] times a constant [inputs, outputs]."""
    weights, producer = graph.constants[right.name], graph.nodes.get(left.name)
    name, zero_point = left.name, ZERO_POINT
    if producer is not None and producer.op == "LayerNormalization":
        scale, *bias = (graph.constants[input_name] for input_name in producer.inputs[1:])
        # Independent of the weights, so query, key and value share one quantized input.
        size = DEVIATIONS * np.abs(scale) + sum(np.abs(values) for values in bias)
        smoothing = np.sqrt(size + MIN_SCALE).astype(np.float32)
        weights = weights * smoothing[:, None]
        name = node(graph, "Mul", name, constant(graph, 1 / smoothing))
    elif producer is not None and producer.op == "Gelu":
        zero_point = GELU_ZERO_POINT
    integer_weights, scales = quantize(weights, axis=0)
    arguments = (integer_weights, np.float32(1), scales, np.uint8(zero_point))
    rows, row_scales = _quantize_rows(graph, name, zero_point)
    product = node(
        graph,
        "MatMulIntegerToFloat",
        rows,
        *[constant(graph, argument) for argument in arguments],
        domain=DOMAIN,
    )
    return Value(node(graph, "Mul", product, row_scales), (left.shape[0], right.shape[1]))


def _quantize_rows(graph: Graph, name: str, zero_point: int) -> tuple[str, str]:
    """(bytes [rows, inputs], scales [rows, 1]) of a float tensor, computed by the graph."""
    last_axis = integers(graph, 1)
    if zero_point == ZERO_POINT:
        largest = node(graph, "ReduceMax", node(graph, "Abs", name), last_axis)
        scales = node(graph, "Mul", largest, constant(graph, np.float32(1 / 127)))
    else:
        extremes = [node(graph, f"Reduce{end}", name, last_axis) for end in ("Max", "Min")]
        steps = [constant(graph, np.float32(1 / n)) for n in (255 - zero_point, -zero_point)]
        pairs = zip(extremes, steps, strict=True)
        scales = node(graph, "Max", *[node(graph, "Mul", extreme, step) for extreme, step in pairs])
    scales = node(graph, "Max", scales, constant(graph, MIN_SCALE))
    flat = node(graph, "Squeeze", scales, last_axis)
    zeros = node(graph, "Expand", constant(graph, np.uint8(zero_point)), node(graph, "Shape", flat))
    return node(graph, "QuantizeLinear", name, flat, zeros, axis=0), scales


def quantized_rows(graph: Graph, table: Value, indices: str) -> str:
    """Rows of a constant [rows, width], as floats."""
    integer_table, scales = quantize(graph.constants[table.name], axis=1)
    rows, row_scales = (
        node(graph, "Gather", constant(graph, array), indices, axis=0)
        for array in (integer_table, scales[:, None])
    )
    return node(graph, "Mul", node(graph, "Cast", rows, to=np.dtype(np.float32)), row_scales)
