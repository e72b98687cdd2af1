"""The neighbours of an experiment: each with one choice put back to the baseline's."""

from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import iter_fields, override

FULL, BASELINE = "full", "baseline"
# The neighbour that needs no training of its own: the full runs, decided at 0.5 for every label.
THRESHOLD = "threshold=fixed"

# What a neighbour may put back, by its dotted key. Everything else is budget, and equal for all.
CHOICES = ("pool", "head", "loss", "sampler", "optim.schedule")


def ablations(experiment: Experiment, baseline: Experiment) -> dict[str, Experiment]:
    """Name -> experiment to train: the full one, one for each choice in which it differs from the
    baseline, and the baseline's choices all at once."""
    ours, plain = dict(iter_fields(experiment)), dict(iter_fields(baseline))
    differing = {key: plain[key] for key in CHOICES if ours[key] != plain[key]}
    found = {FULL: experiment}
    for key, value in differing.items():
        found[f"{key}={value.name}"] = override(experiment, {key: value})
    found[BASELINE] = override(experiment, differing)
    return found
