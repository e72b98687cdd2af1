"""Learning-rate schedules: (peak, warmup, steps) -> optax schedule; all rise linearly from 0 over
the warm-up."""

from typing import Annotated

import optax

from jaxclf.types import Bound


def constant(peak: float, warmup: int, steps: int) -> optax.Schedule:
    """The peak rate to the end."""
    return _after_warmup(peak, warmup, optax.constant_schedule(peak))


def linear(
    peak: float, warmup: int, steps: int, *, end_factor: Annotated[float, Bound(0, 2)] = 0.0
) -> optax.Schedule:
    """A straight fall to `end_factor` times the peak."""
    return _after_warmup(
        peak, warmup, optax.linear_schedule(peak, end_factor * peak, steps - warmup)
    )


def cosine(
    peak: float, warmup: int, steps: int, *, end_factor: Annotated[float, Bound(0, 2)] = 0.0
) -> optax.Schedule:
    """Half a cosine down to `end_factor` times the peak (Loshchilov and Hutter 2017, arXiv
    1608.03983)."""
    fall = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=end_factor)
    return _after_warmup(peak, warmup, fall)


def cosine_restarts(
    peak: float,
    warmup: int,
    steps: int,
    *,
    cycles: Annotated[int, Bound(1, 2**20)] = 3,
    decay: Annotated[float, Bound(0, 2)] = 1.0,
) -> optax.Schedule:
    """`cycles` cosine falls of equal length, each from `decay` times the peak before (SGDR, arXiv
    1608.03983)."""
    bounds = [warmup + (steps - warmup) * cycle // cycles for cycle in range(cycles + 1)]
    falls = [
        optax.cosine_decay_schedule(peak * decay**cycle, max(bounds[cycle + 1] - bounds[cycle], 1))
        for cycle in range(cycles)
    ]
    return _after_warmup(
        peak, warmup, optax.join_schedules(falls, [b - warmup for b in bounds[1:-1]])
    )


def _after_warmup(peak: float, warmup: int, then: optax.Schedule) -> optax.Schedule:
    # From 1 / (warmup + 1): the first update is never idle.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, then], [warmup])


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
}
