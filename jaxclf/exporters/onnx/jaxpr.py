"""A jax function as a flat list of primitives: traced, calls inlined, variables numbered.

Two sizes are known only when the graph runs: rows, and tokens in a row. The function is traced with
two primes in their place, larger than any size of a network; `graph.size_of` factors them out of
the sizes that depend on them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from jaxclf.errors import ConfigError

ROWS, LENGTH = 1_000_003, 999_983

Atom = int | np.ndarray  # the number of a variable, or a constant

# Primitives that only call the jaxpr they hold, and the parameter that holds it.
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


class Equation(NamedTuple):
    """One primitive. in_avals, out_avals: shape and dtype of each input and output."""

    primitive: str
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    in_avals: tuple[Any, ...]
    outputs: tuple[int, ...]
    out_avals: tuple[Any, ...]


class Program(NamedTuple):
    """A traced function. inputs: the variables 0, 1, … that are its arguments."""

    inputs: tuple[int, ...]
    equations: list[Equation]
    outputs: tuple[Atom, ...]


def unsupported(feature: str) -> ConfigError:
    return ConfigError(f"--to onnx: this network has {feature}, which has no translation to ONNX")


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """Trace a function of arrays or shapes; the leaves of trees are inputs in their order."""
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = tuple(range(len(closed.jaxpr.invars)))
    equations: list[Equation] = []
    outputs = _inline(closed, inputs, equations, iter(range(len(inputs), 2**62)))
    return Program(inputs, equations, tuple(outputs))


def _inline(
    closed: Any, inputs: Sequence[Atom], equations: list[Equation], numbers: Iterator[int]
) -> list[Atom]:
    """Append the primitives of a closed jaxpr, and return its outputs. numbers: of variables not
    used yet."""
    atoms: dict[Any, Atom] = dict(zip(closed.jaxpr.invars, inputs, strict=True))
    atoms.update(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))

    def read(variable: Any) -> Atom:
        if not isinstance(variable, Literal):
            return atoms[variable]
        aval: Any = variable.aval
        return np.asarray(variable.val, aval.dtype)

    for eqn in closed.jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        arguments = tuple(read(variable) for variable in eqn.invars)
        if name in CALLS:
            outputs = _inline(params[CALLS[name]], arguments, equations, numbers)
        else:
            outputs = [next(numbers) for _ in eqn.outvars]
            in_avals = tuple(variable.aval for variable in eqn.invars)
            out_avals = tuple(variable.aval for variable in eqn.outvars)
            equations.append(Equation(name, params, arguments, in_avals, tuple(outputs), out_avals))
        atoms.update(zip(eqn.outvars, outputs, strict=True))
    return [read(variable) for variable in closed.jaxpr.outvars]
