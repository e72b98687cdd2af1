"""The run folder: begun once, gone on with only by the experiment it was begun for."""

import platform
import sys
from pathlib import Path
from typing import Any

import jax

from jaxclf import __version__
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment, iter_fields, override, to_dict
from jaxclf.files.json_file import write_json


def open_run(out: Path, experiment: Experiment, resume: str) -> None:
    """Make the folder, or see that the run in it is of this very experiment."""
    path = out / "config.json"
    if path.is_file():
        if resume == "never":
            raise ConfigError(f"{out} exists; give another --out, or --resume auto to go on")
        found = dict(iter_fields(catalog.load(str(path))))
        changed = [key for key, value in iter_fields(experiment) if found[key] != value]
        if changed:
            raise ConfigError(
                f"{out} holds a run of another experiment (differs in {', '.join(changed)}); "
                "give another --out"
            )
    elif out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no run; give another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, to_dict(experiment))


def as_started(out: Path, experiment: Experiment) -> Experiment:
    """The experiment as the run in `out` was begun: with that encoder's commit where none is asked
    for, and with the smaller micro-batches that had to do, where they make up the batch asked
    for."""
    path = out / "config.json"
    if not path.is_file():
        return experiment
    found = catalog.load(str(path))
    if not experiment.encoder.revision:
        experiment = override(experiment, {"encoder.revision": found.encoder.revision})
    (size, accumulate), (asked, asked_accumulate) = (
        (one.train.batch_size, one.optim.gradient_accumulation_steps) for one in (found, experiment)
    )
    if size < asked and size * accumulate == asked * asked_accumulate:
        changes = {"train.batch_size": size, "optim.gradient_accumulation_steps": accumulate}
        experiment = override(experiment, changes)
    return experiment


def environment() -> dict[str, Any]:
    """What else a result may depend on."""
    device = jax.devices()[0]
    versions = {name: sys.modules[name].__version__ for name in ("jax", "flax", "optax", "numpy")}
    return {
        "jaxclf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hosts": jax.process_count(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        **versions,
    }
