"""Find patterns of primitives that ONNX has as one node, by tracing the functions that make them.

If a pattern is not found, its primitives are written: the result is equal, but slower.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.exporters.onnx.jaxpr import Atom, Equation, Program, trace
from jaxclf.model.encoders.common import gelu, layer_norm

ANY = float("nan")  # matches any number in a pattern


class Fusion(NamedTuple):
    """One node for a pattern of primitives."""

    op: str
    vectors: int  # as wide as x's last axis
    pattern: Callable[..., Any]  # (x, *vectors) -> an array shaped like x
    attributes: Callable[..., dict[str, Any]]  # (the numbers matched by ANY) -> the node's


def _norm(x: jax.Array, scale: jax.Array, *bias: jax.Array) -> Any:
    params: dict[str, Any] = dict(zip(("scale", "bias"), (scale, *bias), strict=False))
    return layer_norm(ANY, jnp.dtype("float32"), "norm", bool(bias)).apply({"params": params}, x)


TANH_GELU = functools.partial(jax.nn.gelu, approximate=True)
FUSIONS = (
    Fusion("LayerNormalization", 2, _norm, lambda eps: {"epsilon": eps}),
    Fusion("LayerNormalization", 1, _norm, lambda eps: {"epsilon": eps}),
    Fusion("Gelu", 0, gelu, lambda: {"approximate": "none"}),
    Fusion("Gelu", 0, TANH_GELU, lambda: {"approximate": "tanh"}),
    Fusion("Softmax", 0, jax.nn.softmax, lambda: {"axis": -1}),
)


class FusedNode(NamedTuple):
    """One node that replaces the equations that lead to an output."""

    op: str
    inputs: list[Atom]
    attributes: dict[str, Any]


def find_fusion(equation: Equation, producers: Mapping[int, Equation]) -> FusedNode | None:
    """The fusion that ends in an equation. producers: the equation that computes each variable."""
    aval = equation.out_avals[0]
    if aval.ndim < 2 or aval.dtype != np.float32:
        return None
    for fusion in FUSIONS:
        if _traced(fusion, (2, 2)).equations[-1].primitive != equation.primitive:
            continue
        pattern = _traced(fusion, aval.shape)
        if match := _match(pattern, equation, producers):
            atoms, numbers = match
            inputs = [atoms[variable] for variable in pattern.inputs]
            return FusedNode(fusion.op, inputs, fusion.attributes(*numbers))
    return None


def producers_of(program: Program) -> dict[int, Equation]:
    """The equation that computes each variable of a program."""
    return {output: equation for equation in program.equations for output in equation.outputs}


@functools.cache
def _traced(fusion: Fusion, shape: tuple[int, ...]) -> Program:
    x, vector = (jax.ShapeDtypeStruct(sizes, np.float32) for sizes in (shape, shape[-1:]))
    return trace(fusion.pattern, x, *[vector] * fusion.vectors)


def _match(
    pattern: Program, last: Equation, producers: Mapping[int, Equation]
) -> tuple[dict[int, Atom], list[float]] | None:
    """Compare a pattern with an equation and all that lead to it: (variable of the pattern -> atom
    of the program, numbers matched by ANY), or None if they differ."""
    pattern_producers = producers_of(pattern)
    atoms: dict[int, Atom] = {}
    numbers: list[float] = []

    def equations_match(expected: Equation, equation: Equation) -> bool:
        return (
            expected.primitive == equation.primitive
            and expected.params == equation.params
            and all(map(atoms_match, expected.inputs, equation.inputs))
        )

    def atoms_match(expected: Atom, atom: Atom) -> bool:
        if isinstance(expected, np.ndarray):
            if not isinstance(atom, np.ndarray) or expected.shape != atom.shape:
                return False
            if np.isnan(expected).any():
                numbers.append(float(atom))
                return True
            return bool(np.array_equal(expected, atom))
        if expected in atoms:
            known = atoms[expected]
            return atom is known or (isinstance(atom, int) and atom == known)
        atoms[expected] = atom
        if expected not in pattern_producers:
            return True  # an input of the pattern matches any atom
        producer = None if isinstance(atom, np.ndarray) else producers.get(atom)
        return producer is not None and equations_match(pattern_producers[expected], producer)

    return (atoms, numbers) if equations_match(pattern.equations[-1], last) else None
