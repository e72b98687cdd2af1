"""Patterns of primitives that ONNX has as one node, found by tracing the functions that make them.

A pattern that is not found is written as its primitives: the same numbers, more slowly.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.exporters.onnx.jaxpr import Atom, Equation, Program, trace
from jaxclf.model.encoders.common import gelu, layer_norm

ANY = float("nan")  # in a pattern: whatever number stands there


class Fusion(NamedTuple):
    """pattern: (x, then so many `vectors` as wide as its last axis) -> like x.
    attributes: (the numbers that stood for ANY) -> the node's attributes."""

    op: str
    vectors: int
    pattern: Callable[..., Any]
    attributes: Callable[..., dict[str, Any]]


def _norm(x: jax.Array, scale: jax.Array, *bias: jax.Array) -> Any:
    params: dict[str, Any] = dict(zip(("scale", "bias"), (scale, *bias), strict=False))
    return layer_norm(ANY, jnp.dtype("float32"), "norm", bool(bias)).apply({"params": params}, x)


def _tanh_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


FUSIONS = (
    Fusion("LayerNormalization", 2, _norm, lambda eps: {"epsilon": eps}),
    Fusion("LayerNormalization", 1, _norm, lambda eps: {"epsilon": eps}),
    Fusion("Gelu", 0, gelu, lambda: {"approximate": "none"}),
    Fusion("Gelu", 0, _tanh_gelu, lambda: {"approximate": "tanh"}),
    Fusion("Softmax", 0, jax.nn.softmax, lambda: {"axis": -1}),
)


class Found(NamedTuple):
    """One node in place of the steps that lead to a step's output."""

    op: str
    inputs: tuple[Atom, ...]
    attributes: dict[str, Any]


def find(step: Equation, makers: Mapping[int, Equation]) -> Found | None:
    """The fusion that ends in this step. makers: the step that makes each variable."""
    made = step.made[0]
    if made.ndim < 2 or made.dtype != np.float32:
        return None
    for fusion in FUSIONS:
        if _traced(fusion, (2, 2)).steps[-1].primitive != step.primitive:
            continue
        pattern = _traced(fusion, made.shape)
        alike = _Alike({one: s for s in pattern.steps for one in s.outputs}, makers, {}, [])
        if _step_alike(alike, pattern.steps[-1], step):
            inputs = tuple(alike.values[one] for one in pattern.inputs)
            return Found(fusion.op, inputs, fusion.attributes(*alike.numbers))
    return None


@functools.cache
def _traced(fusion: Fusion, shape: tuple[int, ...]) -> Program:
    x, vector = (jax.ShapeDtypeStruct(one, np.float32) for one in (shape, shape[-1:]))
    return trace(fusion.pattern, x, *[vector] * fusion.vectors)


class _Alike(NamedTuple):
    """A comparison under way: who makes the pattern's and the program's variables, what the
    pattern's stand for, what stood for ANY."""

    wanted: Mapping[int, Equation]
    makers: Mapping[int, Equation]
    values: dict[int, Atom]
    numbers: list[float]


def _step_alike(alike: _Alike, wanted: Equation, step: Equation) -> bool:
    """Whether a step and all that leads to it are as in the pattern."""
    return (
        wanted.primitive == step.primitive
        and wanted.params == step.params
        and all(_atom_alike(alike, *both) for both in zip(wanted.inputs, step.inputs, strict=True))
    )


def _atom_alike(alike: _Alike, wanted: Atom, atom: Atom) -> bool:
    if isinstance(wanted, np.ndarray):
        if not isinstance(atom, np.ndarray) or wanted.shape != atom.shape:
            return False
        if np.isnan(wanted).any():
            alike.numbers.append(float(atom))
            return True
        return bool(np.array_equal(wanted, atom))
    if wanted in alike.values:
        return atom is alike.values[wanted] or (
            isinstance(atom, int) and atom == alike.values[wanted]
        )
    alike.values[wanted] = atom
    if wanted not in alike.wanted:
        return True  # an input of the pattern: whatever is there
    made = None if isinstance(atom, np.ndarray) else alike.makers.get(atom)
    return made is not None and _step_alike(alike, alike.wanted[wanted], made)
