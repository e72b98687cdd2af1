"""A jax function as a list of primitives: traced, calls unfolded, variables numbered.

Two sizes are known only where the graph runs: rows, and tokens in a row. The function is traced
with two primes in their place, larger than any size of a network; `onnx_graph.size_of` finds them
again in whatever sizes they made.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from jaxclf.errors import ConfigError

ROWS, LENGTH = 1_000_003, 999_983

Atom = int | np.ndarray  # the number of a variable, or a constant

# Primitives that do no more than call what they hold, under that name.
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


class Equation(NamedTuple):
    """One primitive. given, made: shape and dtype of each of its inputs and outputs."""

    primitive: str
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    given: tuple[Any, ...]
    outputs: tuple[int, ...]
    made: tuple[Any, ...]


class Program(NamedTuple):
    """inputs: the variables 0, 1, … that the function is given."""

    inputs: tuple[int, ...]
    steps: list[Equation]
    outputs: tuple[Atom, ...]


def no_writer(what: str) -> ConfigError:
    return ConfigError(f"--to onnx: this network has {what}, which is not written to ONNX here")


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """The program of a function of arrays or shapes; leaves of trees are inputs in their order."""
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = tuple(range(len(closed.jaxpr.invars)))
    steps: list[Equation] = []
    outputs = _unfold(closed, inputs, steps, iter(range(len(inputs), 2**62)))
    return Program(inputs, steps, tuple(outputs))


def _unfold(closed: Any, given: Sequence[Atom], steps: list[Equation], fresh: Any) -> list[Atom]:
    """Append a closed jaxpr's primitives to the steps; its outputs."""
    values: dict[Any, Atom] = dict(zip(closed.jaxpr.invars, given, strict=True))
    values.update(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))

    def read(atom: Any) -> Atom:
        if not isinstance(atom, Literal):
            return values[atom]
        kind: Any = atom.aval
        return np.asarray(atom.val, kind.dtype)

    for equation in closed.jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inputs = tuple(read(atom) for atom in equation.invars)
        if name in CALLS:
            outputs = _unfold(params[CALLS[name]], inputs, steps, fresh)
        else:
            outputs = [next(fresh) for _ in equation.outvars]
            given_types = tuple(atom.aval for atom in equation.invars)
            made_types = tuple(atom.aval for atom in equation.outvars)
            steps.append(Equation(name, params, inputs, given_types, tuple(outputs), made_types))
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]
