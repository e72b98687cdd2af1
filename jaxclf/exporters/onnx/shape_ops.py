"""Write jax's primitives that move values without computing: shapes, slices, transposes, iota.

`SHAPE_OPS` is a table like `ops.OPS`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxclf.exporters.onnx.graph import (
    Graph,
    Op,
    Value,
    constant,
    expand,
    integers,
    node,
    reshape,
    size_of,
)
from jaxclf.exporters.onnx.jaxpr import Equation, unsupported


def expand_axes(graph: Graph, value: Value, shape: Sequence[int], axes: Sequence[int]) -> Value:
    """The value at its full size along some axes."""
    sizes = [shape[axis] if axis in axes else size for axis, size in enumerate(value.shape)]
    return expand(graph, value, sizes)


def _broadcast(graph: Graph, equation: Equation, value: Value) -> Value:
    """New axes have size 1; nothing is repeated."""
    kept_axes, rank = equation.params["broadcast_dimensions"], len(equation.params["shape"])
    added = [axis for axis in range(rank) if axis not in kept_axes]
    if not added:
        return value
    shape = [1] * rank
    for axis, size in zip(kept_axes, value.shape, strict=True):
        shape[axis] = size
    return Value(node(graph, "Unsqueeze", value, integers(graph, *added)), tuple(shape))


def _reshape(graph: Graph, equation: Equation, value: Value) -> Value:
    return reshape(
        graph, expand(graph, value, equation.in_avals[0].shape), equation.params["new_sizes"]
    )


def _squeeze(graph: Graph, equation: Equation, value: Value) -> Value:
    squeezed = equation.params["dimensions"]
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in squeezed)
    return Value(node(graph, "Squeeze", value, integers(graph, *squeezed)), shape)


def _transpose(graph: Graph, equation: Equation, value: Value) -> Value:
    return transpose(graph, value, equation.params["permutation"])


def transpose(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    if list(order) == sorted(order):
        return value
    name = node(graph, "Transpose", value, perm=list(order))
    return Value(name, tuple(value.shape[axis] for axis in order))


def _concatenate(graph: Graph, equation: Equation, *values: Value) -> Value:
    pairs = zip(values, equation.in_avals, strict=True)
    parts = [expand(graph, value, aval.shape) for value, aval in pairs]
    name = node(graph, "Concat", *parts, axis=equation.params["dimension"])
    return Value(name, equation.out_avals[0].shape)


def _slice_axis(graph: Graph, value: Value, axis: int, first: int, end: int) -> Value:
    ends = [integers(graph, first).name, size_of(graph, end), integers(graph, axis).name]
    shape = [*value.shape[:axis], end - first, *value.shape[axis + 1 :]]
    return Value(node(graph, "Slice", value, *ends), tuple(shape))


def _slice(graph: Graph, equation: Equation, value: Value) -> Value:
    firsts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    if set(equation.params["strides"] or [1]) != {1}:
        raise unsupported(f"a slice with strides {equation.params['strides']}")
    sizes = zip(firsts, ends, equation.in_avals[0].shape, strict=True)
    for axis, (first, end, size) in enumerate(sizes):
        if end - first < size and value.shape[axis] == size:
            value = _slice_axis(graph, value, axis, first, end)
    return value


def _split(graph: Graph, equation: Equation, value: Value) -> list[Value]:
    axis, ends = equation.params["axis"], np.cumsum(equation.params["sizes"]).tolist()
    value = expand_axes(graph, value, equation.in_avals[0].shape, [axis])
    firsts = [0, *ends[:-1]]
    return [_slice_axis(graph, value, axis, *bounds) for bounds in zip(firsts, ends, strict=True)]


def _unstack(graph: Graph, equation: Equation, value: Value) -> list[Value]:
    axis = equation.params["axis"]
    value = expand_axes(graph, value, equation.in_avals[0].shape, [axis])
    shape = (*value.shape[:axis], *value.shape[axis + 1 :])
    indices = [constant(graph, np.int64(index)) for index in range(value.shape[axis])]
    return [Value(node(graph, "Gather", value, index, axis=axis), shape) for index in indices]


def _reverse(graph: Graph, equation: Equation, value: Value) -> Value:
    axes = equation.params["dimensions"]
    start, end, step = -1, np.iinfo(np.int64).min, -1
    bounds = ([start] * len(axes), [end] * len(axes), axes, [step] * len(axes))
    arguments = [integers(graph, *numbers) for numbers in bounds]
    return Value(node(graph, "Slice", value, *arguments), value.shape)


def _pad(graph: Graph, equation: Equation, value: Value, padding: Value) -> Value:
    config = equation.params["padding_config"]
    if any(interior or min(low, high) < 0 for low, high, interior in config):
        raise unsupported("negative or interior padding")
    value = expand(graph, value, equation.in_avals[0].shape)
    pads = integers(graph, *[low for low, _, _ in config], *[high for _, high, _ in config])
    return Value(node(graph, "Pad", value, pads, padding), equation.out_avals[0].shape)


def _iota(graph: Graph, equation: Equation) -> Value:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    numbers = arange(graph, shape[axis], equation.params["dtype"])
    sizes = [size if index == axis else 1 for index, size in enumerate(shape)]
    return reshape(graph, numbers, sizes)


def arange(graph: Graph, size: int, dtype: Any) -> Value:
    """The integers 0, 1, … below a size."""
    end = node(graph, "Squeeze", size_of(graph, size))
    start, delta = constant(graph, np.int64(0)), constant(graph, np.int64(1))
    numbers = node(graph, "Range", start, end, delta)
    return Value(node(graph, "Cast", numbers, to=np.dtype(dtype)), (size,))


SHAPE_OPS: dict[str, Op] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "iota": _iota,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "unstack": _unstack,
}
