"""How jax's primitives that move values without computing are written in ONNX: shapes, parts,
orders, counts.

A table of functions (graph, step, values) -> value, as `onnx_ops` has them.
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
from jaxclf.exporters.onnx.jaxpr import Equation, no_writer


def full_along(graph: Graph, value: Value, shape: Sequence[int], axes: Sequence[int]) -> Value:
    """The value at its full size along some axes."""
    wanted = [shape[axis] if axis in axes else size for axis, size in enumerate(value.shape)]
    return expand(graph, value, wanted)


def _broadcast(graph: Graph, step: Equation, value: Value) -> Value:
    """New axes of size 1, no more."""
    places, rank = step.params["broadcast_dimensions"], len(step.params["shape"])
    added = [axis for axis in range(rank) if axis not in places]
    if not added:
        return value
    shape = [1] * rank
    for place, size in zip(places, value.shape, strict=True):
        shape[place] = size
    return Value(node(graph, "Unsqueeze", value, integers(graph, *added)), tuple(shape))


def _reshape(graph: Graph, step: Equation, value: Value) -> Value:
    return reshape(graph, expand(graph, value, step.given[0].shape), step.params["new_sizes"])


def _squeeze(graph: Graph, step: Equation, value: Value) -> Value:
    gone = step.params["dimensions"]
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in gone)
    return Value(node(graph, "Squeeze", value, integers(graph, *gone)), shape)


def _transpose(graph: Graph, step: Equation, value: Value) -> Value:
    return permuted(graph, value, step.params["permutation"])


def permuted(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    if list(order) == sorted(order):
        return value
    name = node(graph, "Transpose", value, perm=list(order))
    return Value(name, tuple(value.shape[axis] for axis in order))


def _concatenate(graph: Graph, step: Equation, *values: Value) -> Value:
    whole = [expand(graph, one, given.shape) for one, given in zip(values, step.given, strict=True)]
    name = node(graph, "Concat", *whole, axis=step.params["dimension"])
    return Value(name, step.made[0].shape)


def _part(graph: Graph, value: Value, axis: int, first: int, end: int) -> Value:
    ends = [integers(graph, first).name, size_of(graph, end), integers(graph, axis).name]
    shape = [*value.shape[:axis], end - first, *value.shape[axis + 1 :]]
    return Value(node(graph, "Slice", value, *ends), tuple(shape))


def _slice(graph: Graph, step: Equation, value: Value) -> Value:
    firsts, ends = step.params["start_indices"], step.params["limit_indices"]
    if set(step.params["strides"] or [1]) != {1}:
        raise no_writer(f"a slice in strides of {step.params['strides']}")
    sizes = zip(firsts, ends, step.given[0].shape, strict=True)
    for axis, (first, end, size) in enumerate(sizes):
        if end - first < size and value.shape[axis] == size:
            value = _part(graph, value, axis, first, end)
    return value


def _split(graph: Graph, step: Equation, value: Value) -> list[Value]:
    axis, ends = step.params["axis"], np.cumsum(step.params["sizes"]).tolist()
    value = full_along(graph, value, step.given[0].shape, [axis])
    firsts = [0, *ends[:-1]]
    return [_part(graph, value, axis, *both) for both in zip(firsts, ends, strict=True)]


def _reverse(graph: Graph, step: Equation, value: Value) -> Value:
    axes = step.params["dimensions"]
    ends = [[number] * len(axes) for number in (-1, np.iinfo(np.int64).min)]
    told = [integers(graph, *one) for one in (*ends, axes, [-1] * len(axes))]
    return Value(node(graph, "Slice", value, *told), value.shape)


def _pad(graph: Graph, step: Equation, value: Value, filling: Value) -> Value:
    config = step.params["padding_config"]
    if any(between or min(low, high) < 0 for low, high, between in config):
        raise no_writer("padding that cuts, or lies between elements")
    value = expand(graph, value, step.given[0].shape)
    pads = integers(graph, *[low for low, _, _ in config], *[high for _, high, _ in config])
    return Value(node(graph, "Pad", value, pads, filling), step.made[0].shape)


def _iota(graph: Graph, step: Equation) -> Value:
    shape, axis = step.params["shape"], step.params["dimension"]
    numbers = counted(graph, shape[axis], step.params["dtype"])
    return reshape(graph, numbers, [n if place == axis else 1 for place, n in enumerate(shape)])


def counted(graph: Graph, size: int, dtype: Any) -> Value:
    """0, 1, … below a size."""
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
}
