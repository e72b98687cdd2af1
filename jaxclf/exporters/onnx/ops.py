"""Write each jax primitive in ONNX: a table of functions (graph, equation, values) -> value.

A value may have size 1 along an axis that it would repeat (`graph.Value`). Ops that broadcast keep
the size 1; before all other ops `expand` repeats the value.
"""

import numpy as np
from jax.lax import broadcast_shapes

from jaxclf.exporters.onnx.graph import (
    Graph,
    Op,
    Value,
    constant,
    expand,
    integers,
    node,
)
from jaxclf.exporters.onnx.int8 import quantized_product, quantized_rows
from jaxclf.exporters.onnx.jaxpr import Equation, unsupported
from jaxclf.exporters.onnx.shape_ops import SHAPE_OPS, arange, expand_axes, transpose


def _elementwise(op: str) -> Op:
    def write(graph: Graph, equation: Equation, *values: Value) -> Value:
        return Value(node(graph, op, *values), broadcast_shapes(*(value.shape for value in values)))

    return write


def _square(graph: Graph, equation: Equation, value: Value) -> Value:
    return Value(node(graph, "Mul", value, value), value.shape)


def _power(graph: Graph, equation: Equation, value: Value) -> Value:
    power = constant(graph, np.float32(equation.params["y"]))
    return Value(node(graph, "Pow", value, power), value.shape)


def _rsqrt(graph: Graph, equation: Equation, value: Value) -> Value:
    return Value(node(graph, "Reciprocal", node(graph, "Sqrt", value)), value.shape)


def _select(graph: Graph, equation: Equation, condition: Value, no: Value, yes: Value) -> Value:
    shape = broadcast_shapes(condition.shape, no.shape, yes.shape)
    return Value(node(graph, "Where", condition, yes, no), shape)


def _cast(graph: Graph, equation: Equation, value: Value) -> Value:
    if equation.in_avals[0].dtype == equation.out_avals[0].dtype:
        return value
    return Value(node(graph, "Cast", value, to=np.dtype(equation.out_avals[0].dtype)), value.shape)


def _reduce(op: str) -> Op:
    def write(graph: Graph, equation: Equation, value: Value) -> Value:
        axes = equation.params["axes"]
        value = expand_axes(graph, value, equation.in_avals[0].shape, axes)
        name = node(graph, op, value, integers(graph, *axes), keepdims=0)
        return Value(name, tuple(size for axis, size in enumerate(value.shape) if axis not in axes))

    return write


def _cumulative_sum(graph: Graph, equation: Equation, value: Value) -> Value:
    axis = constant(graph, np.int64(equation.params["axis"]))
    value = expand(graph, value, equation.in_avals[0].shape)
    return Value(node(graph, "CumSum", value, axis), value.shape)


def _product(graph: Graph, equation: Equation, left: Value, right: Value) -> Value:
    """A matrix product: the batch axes, then the other axes of the left operand, then the other
    axis of the right one."""
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    shapes = [aval.shape for aval in equation.in_avals]
    left_rest = [axis for axis in range(len(shapes[0])) if axis not in (*left_sum, *left_batch)]
    right_rest = [axis for axis in range(len(shapes[1])) if axis not in (*right_sum, *right_batch)]
    if len(left_sum) != 1 or len(right_rest) != 1 or not left_rest:
        raise unsupported(f"a product of shapes {shapes}")
    left = expand_axes(graph, left, shapes[0], left_sum)
    right = expand_axes(graph, right, shapes[1], right_sum)
    left = transpose(graph, left, [*left_batch, *left_rest, *left_sum])
    if right.name in graph.int8:
        return quantized_product(graph, left, right)
    right = transpose(graph, right, [*right_batch, *right_sum, *right_rest])
    if right_batch and len(left_rest) > 1:
        new = [len(right_batch) + index for index in range(len(left_rest) - 1)]
        shape = (*right.shape[:-2], *[1] * len(new), *right.shape[-2:])
        right = Value(node(graph, "Unsqueeze", right, integers(graph, *new)), shape)
    shape = broadcast_shapes(left.shape[:-2], right.shape[:-2])
    return Value(node(graph, "MatMul", left, right), (*shape, left.shape[-2], right.shape[-1]))


def _gather(graph: Graph, equation: Equation, table: Value, indices: Value) -> Value:
    """Rows of a table by their indices."""
    numbers, shape = equation.params["dimension_numbers"], equation.in_avals[0].shape
    if numbers.start_index_map != (0,) or equation.params["slice_sizes"] != (1, *shape[1:]):
        raise unsupported(f"a gather with {numbers}")
    table = expand_axes(graph, table, shape, [0])
    row_indices = node(graph, "Squeeze", indices, integers(graph, -1))
    if table.name in graph.int8:
        rows = quantized_rows(graph, table, row_indices)
    else:
        rows = node(graph, "Gather", table, row_indices, axis=0)
    return Value(rows, (*indices.shape[:-1], *table.shape[1:]))


def _scatter_add(
    graph: Graph, equation: Equation, target: Value, indices: Value, updates: Value
) -> Value:
    """Add rows as a product with a one-hot matrix: onnxruntime's ScatterND adds from several
    threads at once and can lose a row (its issue 23396)."""
    _check_scatter(equation)
    bins = arange(graph, equation.in_avals[0].shape[0], equation.in_avals[1].dtype)
    bins = node(graph, "Unsqueeze", bins, integers(graph, 1))
    flat = node(graph, "Squeeze", indices, integers(graph, -1))
    one_hot = node(graph, "Cast", node(graph, "Equal", bins, flat), to=np.dtype(np.float32))
    added = node(graph, "MatMul", one_hot, expand(graph, updates, equation.in_avals[2].shape))
    return Value(node(graph, "Add", target, added), equation.out_avals[0].shape)


def _scatter_max(
    graph: Graph, equation: Equation, target: Value, indices: Value, updates: Value
) -> Value:
    _check_scatter(equation)
    target = expand(graph, target, equation.in_avals[0].shape)
    updates = expand(graph, updates, equation.in_avals[2].shape)
    if len(updates.shape) == 1:
        indices = Value(node(graph, "Squeeze", indices, integers(graph, -1)), indices.shape[:1])
    indices = expand(graph, indices, updates.shape)
    name = node(graph, "ScatterElements", target, indices, updates, axis=0, reduction="max")
    return Value(name, target.shape)


def _check_scatter(equation: Equation) -> None:
    numbers, rank = equation.params["dimension_numbers"], len(equation.in_avals[2].shape)
    is_by_row = numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == (0,)
    if not is_by_row or rank > 2:
        raise unsupported(f"a scatter with {numbers}")


SAME_NAME = "abs add and cos div erf exp log max min mul neg sin sub tanh".split()

OPS: dict[str, Op] = {
    **{name: _elementwise(name.capitalize()) for name in SAME_NAME},
    **SHAPE_OPS,
    "eq": _elementwise("Equal"),
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "le": _elementwise("LessOrEqual"),
    "logistic": _elementwise("Sigmoid"),
    "lt": _elementwise("Less"),
    "convert_element_type": _cast,
    "cumsum": _cumulative_sum,
    "dot_general": _product,
    "gather": _gather,
    "integer_pow": _power,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_sum": _reduce("ReduceSum"),
    "rsqrt": _rsqrt,
    "scatter-add": _scatter_add,
    "scatter-max": _scatter_max,
    "select_n": _select,
    "square": _square,
    "stop_gradient": _cast,  # to its own dtype
}
