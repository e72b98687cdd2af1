"""An ONNX graph as plain values: nodes, constants, and sizes that are known only when it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxclf.exporters.onnx.jaxpr import LENGTH, ROWS

SMALL = 4096  # constants of at most this many elements are shared if equal


class Node(NamedTuple):
    """attributes: as onnx.helper.make_node takes them; a numpy dtype stands for ONNX's type."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Value(NamedTuple):
    """A tensor of the graph. An axis with repeated values may have size 1: most ops broadcast, and
    `expand` repeats the values for the rest."""

    name: str
    shape: tuple[int, ...]


# Writes one primitive: (graph, equation, input values) -> its output, or a list of outputs.
Op = Callable[..., Value | list[Value]]


@dataclass(frozen=True)
class Graph:
    """A graph under construction."""

    int8: frozenset[str] = frozenset()  # names of constants to quantize
    nodes: dict[str, Node] = field(default_factory=dict)  # by output, in order
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[int, str] = field(default_factory=dict)  # -> the int64 tensor [1] that holds it
    names: dict[Any, str] = field(default_factory=dict)  # by content: small constants and nodes


def node(graph: Graph, op: str, *inputs: str | Value, **attributes: Any) -> str:
    """Append a node unless an equal one exists, and return the name of its output."""
    names = tuple(value.name if isinstance(value, Value) else value for value in inputs)
    key = (op, names, repr(sorted(attributes.items())))
    output = graph.names.setdefault(key, f"v{len(graph.nodes)}")
    graph.nodes.setdefault(output, Node(op, names, output, attributes))
    return output


def constant(graph: Graph, array: Any) -> Value:
    """A constant; an integer that depends on a symbolic size is computed by the graph."""
    array = np.asarray(array)
    if array.ndim == 0 and array.dtype.kind == "i" and _symbolic(int(array)):
        size = node(graph, "Squeeze", size_of(graph, int(array)))
        return Value(node(graph, "Cast", size, to=array.dtype), ())
    key = (array.dtype, array.shape, array.tobytes()) if array.size <= SMALL else len(graph.names)
    name = graph.names.setdefault(key, f"c{len(graph.names)}")
    graph.constants[name] = array
    return Value(name, array.shape)


def integers(graph: Graph, *numbers: int | np.integer) -> Value:
    """An int64 constant [numbers]."""
    return constant(graph, np.array(numbers, np.int64))


def _symbolic(size: int) -> tuple[int, list[int], int] | None:
    """(factor, primes, offset) of a size `factor * product(primes) + offset`, where the primes are
    ROWS and LENGTH; None for a constant size."""
    for offset in (0, 1):  # a pool has one bin more than slots
        factor, primes = size - offset, []
        for prime in (ROWS, LENGTH):
            while factor and factor % prime == 0:
                factor //= prime
                primes.append(prime)
        if primes:
            return factor, primes, offset
    return None


def size_of(graph: Graph, size: int) -> str:
    """The name of an int64 tensor [1] that holds the size."""
    symbolic = _symbolic(size)
    if symbolic is None:
        return integers(graph, size).name
    if size not in graph.sizes:
        factor, primes, offset = symbolic
        name = integers(graph, factor).name
        for prime in primes:
            name = node(graph, "Mul", name, graph.sizes[prime])
        graph.sizes[size] = node(graph, "Add", name, integers(graph, offset))
    return graph.sizes[size]


def sizes_of(graph: Graph, shape: Sequence[int]) -> str:
    """The name of an int64 tensor that holds a shape."""
    if not any(_symbolic(size) for size in shape):
        return integers(graph, *shape).name
    return node(graph, "Concat", *[size_of(graph, size) for size in shape], axis=0)


def expand(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    """The value with every axis at its full size."""
    if value.shape == tuple(shape):
        return value
    return Value(node(graph, "Expand", value, sizes_of(graph, shape)), tuple(shape))


def reshape(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    """A value of full size in another shape."""
    if value.shape == tuple(shape):
        return value
    is_symbolic = [bool(_symbolic(size)) for size in shape]
    if sum(is_symbolic) == 1:  # ONNX infers one size, given as -1
        sizes = [-1 if unknown else n for unknown, n in zip(is_symbolic, shape, strict=True)]
        target = integers(graph, *sizes)
    else:
        target = sizes_of(graph, shape)
    return Value(node(graph, "Reshape", value, target), tuple(shape))
