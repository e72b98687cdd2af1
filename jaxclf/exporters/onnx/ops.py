"""How each jax primitive is written in ONNX: a table of functions (graph, step, values) -> value.

Values come with axes of size 1 where they would only repeat themselves (`onnx_graph.Value`): where
ONNX broadcasts they stay so, elsewhere `full` spreads them.
"""

import numpy as np

from jaxclf.exporters.onnx.graph import (
    Graph,
    Op,
    Value,
    broadcast_shape,
    constant,
    expand,
    integers,
    node,
)
from jaxclf.exporters.onnx.int8 import quantized_product, quantized_rows
from jaxclf.exporters.onnx.jaxpr import Equation, no_writer
from jaxclf.exporters.onnx.shape_ops import SHAPE_OPS, counted, full_along, permuted


def _elementwise(op: str) -> Op:
    def write(graph: Graph, step: Equation, *values: Value) -> Value:
        return Value(node(graph, op, *values), broadcast_shape(*(value.shape for value in values)))

    return write


def _same(graph: Graph, step: Equation, value: Value) -> Value:
    return value


def _square(graph: Graph, step: Equation, value: Value) -> Value:
    return Value(node(graph, "Mul", value, value), value.shape)


def _power(graph: Graph, step: Equation, value: Value) -> Value:
    power = constant(graph, np.float32(step.params["y"]))
    return Value(node(graph, "Pow", value, power), value.shape)


def _rsqrt(graph: Graph, step: Equation, value: Value) -> Value:
    return Value(node(graph, "Reciprocal", node(graph, "Sqrt", value)), value.shape)


def _select(graph: Graph, step: Equation, which: Value, no: Value, yes: Value) -> Value:
    shape = broadcast_shape(which.shape, no.shape, yes.shape)
    return Value(node(graph, "Where", which, yes, no), shape)


def _cast(graph: Graph, step: Equation, value: Value) -> Value:
    if step.given[0].dtype == step.made[0].dtype:
        return value
    return Value(node(graph, "Cast", value, to=np.dtype(step.made[0].dtype)), value.shape)


def _reduce(op: str) -> Op:
    def write(graph: Graph, step: Equation, value: Value) -> Value:
        axes = step.params["axes"]
        value = full_along(graph, value, step.given[0].shape, axes)
        name = node(graph, op, value, integers(graph, *axes), keepdims=0)
        return Value(name, tuple(size for axis, size in enumerate(value.shape) if axis not in axes))

    return write


def _cumulative_sum(graph: Graph, step: Equation, value: Value) -> Value:
    axis = constant(graph, np.int64(step.params["axis"]))
    value = expand(graph, value, step.given[0].shape)
    return Value(node(graph, "CumSum", value, axis), value.shape)


def _product(graph: Graph, step: Equation, left: Value, right: Value) -> Value:
    """A sum over one axis of each. The result has the batch axes first, then the others of the
    left, then that of the right."""
    (left_sum, right_sum), (left_batch, right_batch) = step.params["dimension_numbers"]
    shapes = [given.shape for given in step.given]
    left_rest = [axis for axis in range(len(shapes[0])) if axis not in (*left_sum, *left_batch)]
    right_rest = [axis for axis in range(len(shapes[1])) if axis not in (*right_sum, *right_batch)]
    if len(left_sum) != 1 or len(right_rest) != 1 or not left_rest:
        raise no_writer(f"a product of shapes {shapes}")
    left = full_along(graph, left, shapes[0], left_sum)
    right = full_along(graph, right, shapes[1], right_sum)
    left = permuted(graph, left, [*left_batch, *left_rest, *left_sum])
    if right.name in graph.eight_bit:
        return quantized_product(graph, left, right)
    right = permuted(graph, right, [*right_batch, *right_sum, *right_rest])
    if right_batch and len(left_rest) > 1:
        new = [len(right_batch) + index for index in range(len(left_rest) - 1)]
        shape = (*right.shape[:-2], *[1] * len(new), *right.shape[-2:])
        right = Value(node(graph, "Unsqueeze", right, integers(graph, *new)), shape)
    shape = broadcast_shape(left.shape[:-2], right.shape[:-2])
    return Value(node(graph, "MatMul", left, right), (*shape, left.shape[-2], right.shape[-1]))


def _gather(graph: Graph, step: Equation, table: Value, indices: Value) -> Value:
    """Rows of a table."""
    numbers, shape = step.params["dimension_numbers"], step.given[0].shape
    if numbers.start_index_map != (0,) or step.params["slice_sizes"] != (1, *shape[1:]):
        raise no_writer(f"a gather by {numbers}")
    table = full_along(graph, table, shape, [0])
    places = node(graph, "Squeeze", indices, integers(graph, -1))
    if table.name in graph.eight_bit:
        rows = quantized_rows(graph, table, places)
    else:
        rows = node(graph, "Gather", table, places, axis=0)
    return Value(rows, (*indices.shape[:-1], *table.shape[1:]))


def _add_rows(graph: Graph, step: Equation, target: Value, places: Value, updates: Value) -> Value:
    """As a product with the table of which row goes where: onnxruntime's ScatterND adds from
    several threads at once, and now and then loses a row (its issue 23396)."""
    _check_rows(step)
    bins = counted(graph, step.given[0].shape[0], step.given[1].dtype)
    bins = node(graph, "Unsqueeze", bins, integers(graph, 1))
    flat = node(graph, "Squeeze", places, integers(graph, -1))
    there = node(graph, "Cast", node(graph, "Equal", bins, flat), to=np.dtype(np.float32))
    added = node(graph, "MatMul", there, expand(graph, updates, step.given[2].shape))
    return Value(node(graph, "Add", target, added), step.made[0].shape)


def _highest_rows(
    graph: Graph, step: Equation, target: Value, places: Value, updates: Value
) -> Value:
    """Elements of one column after another, in one thread."""
    _check_rows(step)
    target, updates = (
        expand(graph, value, given.shape)
        for value, given in ((target, step.given[0]), (updates, step.given[2]))
    )
    if len(updates.shape) == 1:
        places = Value(node(graph, "Squeeze", places, integers(graph, -1)), places.shape[:1])
    places = expand(graph, places, updates.shape)
    name = node(graph, "ScatterElements", target, places, updates, axis=0, reduction="max")
    return Value(name, target.shape)


def _check_rows(step: Equation) -> None:
    numbers, rank = step.params["dimension_numbers"], len(step.given[2].shape)
    plain = numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == (0,)
    if not plain or rank > 2:
        raise no_writer(f"a scatter by {numbers}")


ELEMENTWISE = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "sin": "Sin",
    "sub": "Sub",
    "tanh": "Tanh",
}

OPS: dict[str, Op] = {
    **{name: _elementwise(op) for name, op in ELEMENTWISE.items()},
    **SHAPE_OPS,
    "convert_element_type": _cast,
    "cumsum": _cumulative_sum,
    "dot_general": _product,
    "gather": _gather,
    "integer_pow": _power,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_sum": _reduce("ReduceSum"),
    "rsqrt": _rsqrt,
    "scatter-add": _add_rows,
    "scatter-max": _highest_rows,
    "select_n": _select,
    "square": _square,
    "stop_gradient": _same,
}
