"""An ONNX graph as plain values: nodes, constants, and sizes that only the run knows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclf.exporters.onnx.jaxpr import LENGTH, ROWS

Size = tuple[int, ...]
SMALL = 4096  # constants of no more elements are looked up by their values


class Node(NamedTuple):
    """attributes: as onnx.helper.make_node takes them; a numpy dtype stands for ONNX's own."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Value(NamedTuple):
    """A tensor of the graph. An axis along which it would only repeat itself may have size 1:
    most that takes it broadcasts, and `full` does for the rest."""

    name: str
    shape: Size


# (graph, step, values) -> what one primitive of a program makes of them.
Op = Callable[..., Value | list[Value]]


class Graph(NamedTuple):
    """nodes: by their output, in order. sizes: number of elements -> the int64 tensor [1] that
    holds it. known: small constants by their values, outputs by the nodes that make them.
    eight_bit: constants to be quantized."""

    nodes: dict[str, Node]
    constants: dict[str, np.ndarray]
    sizes: dict[int, str]
    known: dict[Any, str]
    eight_bit: frozenset[str]


def empty_graph(eight_bit: frozenset[str]) -> Graph:
    return Graph({}, {}, {}, {}, eight_bit)


def node(graph: Graph, op: str, *inputs: str | Value, **attributes: Any) -> str:
    """Append a node, where there is none like it yet; the name of its output."""
    names = tuple(one.name if isinstance(one, Value) else one for one in inputs)
    key = (op, names, repr(sorted(attributes.items())))
    output = graph.known.setdefault(key, f"v{len(graph.nodes)}")
    graph.nodes.setdefault(output, Node(op, names, output, attributes))
    return output


def constant(graph: Graph, array: Any) -> Value:
    """A constant. A whole number that is a size which only the run knows is asked of it."""
    array = np.asarray(array)
    if array.ndim == 0 and array.dtype.kind == "i" and _parts(int(array)):
        size = node(graph, "Squeeze", size_of(graph, int(array)))
        return Value(node(graph, "Cast", size, to=array.dtype), ())
    key = (array.dtype, array.shape, array.tobytes()) if array.size <= SMALL else len(graph.known)
    name = graph.known.setdefault(key, f"c{len(graph.known)}")
    graph.constants[name] = array
    return Value(name, array.shape)


def integers(graph: Graph, *numbers: int | np.integer) -> Value:
    """An int64 constant [numbers]."""
    return constant(graph, np.array(numbers, np.int64))


class Parts(NamedTuple):
    """A size as `factor * ROWS**rows * LENGTH**lengths + rest`."""

    factor: int
    rows: int
    lengths: int
    rest: int


def _parts(size: int) -> Parts | None:
    """None for a size that is known."""
    for rest in (0, 1):  # a pool has one bin more than slots
        factor, powers = size - rest, [0, 0]
        for index, prime in enumerate((ROWS, LENGTH)):
            while factor and factor % prime == 0:
                factor, powers[index] = factor // prime, powers[index] + 1
        if any(powers):
            return Parts(factor, powers[0], powers[1], rest)
    return None


def size_of(graph: Graph, size: int) -> str:
    """The name of an int64 tensor [1] that holds the size."""
    found = _parts(size)
    if found is None:
        return integers(graph, size).name
    if size not in graph.sizes:
        name = integers(graph, found.factor).name
        for prime in [ROWS] * found.rows + [LENGTH] * found.lengths:
            name = node(graph, "Mul", name, graph.sizes[prime])
        graph.sizes[size] = node(graph, "Add", name, integers(graph, found.rest))
    return graph.sizes[size]


def sizes_of(graph: Graph, shape: Sequence[int]) -> str:
    """The name of an int64 tensor that holds a shape."""
    if not any(_parts(size) for size in shape):
        return integers(graph, *shape).name
    return node(graph, "Concat", *[size_of(graph, size) for size in shape], axis=0)


def broadcast_shape(*shapes: Size) -> Size:
    """The shape that they broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def expand(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    """The value with every axis at its full size."""
    if value.shape == tuple(shape):
        return value
    return Value(node(graph, "Expand", value, sizes_of(graph, shape)), tuple(shape))


def reshape(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    """A value of full size in another shape."""
    if value.shape == tuple(shape):
        return value
    unknown = [bool(_parts(size)) for size in shape]
    if sum(unknown) == 1:  # ONNX finds one by itself
        told = integers(graph, *[-1 if yes else s for yes, s in zip(unknown, shape, strict=True)])
    else:
        told = sizes_of(graph, shape)
    return Value(node(graph, "Reshape", value, told), tuple(shape))
