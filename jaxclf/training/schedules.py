"""Learning-rate schedules: (peak, warmup, steps) -> optax schedule.

All rise linearly to the peak over the warmup. Steps are optimizer updates.
"""

from typing import Annotated

import optax

from jaxclf.types import Bound

EndFactor = Annotated[float, Bound(0, 2)]


def constant(peak: float, warmup: int, steps: int) -> optax.Schedule:
    """The peak until the end."""
    return _after_warmup(peak, warmup, optax.constant_schedule(peak))


def linear(peak: float, warmup: int, steps: int, *, end_factor: EndFactor = 0.0) -> optax.Schedule:
    """A linear decay to `end_factor` times the peak."""
    decay = optax.linear_schedule(peak, end_factor * peak, steps - warmup)
    return _after_warmup(peak, warmup, decay)


def cosine(peak: float, warmup: int, steps: int, *, end_factor: EndFactor = 0.0) -> optax.Schedule:
    """A cosine decay to `end_factor` times the peak (Loshchilov and Hutter 2017, arXiv
    1608.03983)."""
    decay = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=end_factor)
    return _after_warmup(peak, warmup, decay)


def cosine_restarts(
    peak: float,
    warmup: int,
    steps: int,
    *,
    cycles: Annotated[int, Bound(1, 2**20)] = 3,
    decay: Annotated[float, Bound(0, 2)] = 1.0,
) -> optax.Schedule:
    """`cycles` cosine decays of equal length (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983).

    decay: the peak of a cycle as a fraction of the previous one.
    """
    bounds = [warmup + (steps - warmup) * cycle // cycles for cycle in range(cycles + 1)]
    schedules = [
        optax.cosine_decay_schedule(peak * decay**cycle, max(bounds[cycle + 1] - bounds[cycle], 1))
        for cycle in range(cycles)
    ]
    restarts = [bound - warmup for bound in bounds[1:-1]]
    return _after_warmup(peak, warmup, optax.join_schedules(schedules, restarts))


def _after_warmup(peak: float, warmup: int, schedule: optax.Schedule) -> optax.Schedule:
    # From 1 / (warmup + 1): the learning rate of the first update is above 0.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, schedule], [warmup])


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
}
