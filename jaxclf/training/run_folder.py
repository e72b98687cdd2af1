"""The run folder: created once, and resumed only with the same experiment."""

import importlib.metadata
import logging
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxclf.decisions.changes import KEYS, Change, find_changes
from jaxclf.decisions.provenance import PROVENANCE, Provenance, read_provenance, with_earlier
from jaxclf.errors import ConfigError, DataError, did_you_mean
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import iter_fields, override, to_dict
from jaxclf.files.json_file import read_json, write_json

log = logging.getLogger(__name__)

# Keys whose empty or zero value means: settled when the run starts.
SETTLED = ("encoder.revision", "data.max_length", "train.batch_size", "train.epochs")
DATA = "data.jsonl"  # of a run whose data came from Python


def open_run(out: Path, experiment: Experiment, resume: str) -> None:
    """Create the folder, or check that its run has this experiment.

    resume: "auto" or "never". Raises ConfigError.
    """
    check_version(out)
    path = out / "config.json"
    if path.is_file():
        if resume == "never":
            raise ConfigError(f"{out} exists; give another --out, or --resume auto")
        recorded = dict(iter_fields(catalog.load(str(path))))
        changed = [
            key
            for key, value in iter_fields(experiment)
            if recorded[key] != value and key != "train.track"  # it changes no result
        ]
        if changed:
            raise ConfigError(
                f"{out} contains a run of another experiment (different {', '.join(changed)}); "
                f"give another --out{_advise_start(out)}"
            )
    elif out.exists() and any(
        path.suffix != ".part" and path.name != DATA for path in out.iterdir()
    ):
        raise ConfigError(f"{out} is not empty and contains no run; give another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, to_dict(experiment))


def _advise_start(out: Path) -> str:
    """How to train on from the model of a finished run."""
    is_finished = (out / "report.json").is_file()
    return f", with train.init_from={out} to start from its model" * is_finished


def settle_provenance(
    out: Path, provenance: Provenance, allow_changes: Sequence[str]
) -> Provenance:
    """What to record of the data and the encoder: the run in `out` must have started with the same,
    except for the keys in `allow_changes`. Writes nothing.

    Raises ConfigError that names each difference, and for an unknown key.
    """
    for key in allow_changes:
        if key not in KEYS:
            raise ConfigError(f"--allow-change {key}{did_you_mean(key, KEYS)}")
    # config.json is written first: without checkpoints, the run was killed between the two.
    is_finished = (out / "report.json").is_file()
    is_new = not is_finished and not any((out / "checkpoints").glob("*"))
    if is_new and not (out / PROVENANCE).is_file():
        return provenance
    try:
        before = read_provenance(out)
        changes = find_changes(before.record, provenance.record)
    except DataError as error:
        before, changes = None, [Change(PROVENANCE, str(error), "readable", "not")]
    refused = [change for change in changes if change.key not in allow_changes]
    if refused:
        options = " ".join(dict.fromkeys(f"--allow-change {change.key}" for change in refused))
        effect = "its report is shown" if is_finished else "the weights are then fitted on both"
        raise ConfigError(
            f"{out}: {'the run is finished, and this' if is_finished else 'this'} changed since "
            "the run started:\n"
            + "\n".join(f"  {change}" for change in refused)
            + f"\nrestore it, give another --out{_advise_start(out)}, or add {options} ({effect})"
        )
    for change in changes:
        log.warning("allowed: %s", change)
    if before is not None and (not changes or is_finished):
        return before
    allowed = [change._asdict() for change in changes]
    if before is not None:
        provenance = with_earlier(provenance, before)
        allowed = [*before.record.get("allowed_changes", []), *allowed]
    return provenance._replace(record={**provenance.record, "allowed_changes": allowed})


def check_version(run: Path) -> None:
    """Raise ConfigError if version 0.1 wrote the run, whose keys and checkpoints were different."""
    config, environment = (
        content if path.is_file() and isinstance(content := read_json(path), dict) else {}
        for path in (run / "config.json", run / "environment.json")
    )
    version = str(environment.get("jaxclf", "0.1" if "regular" in config else ""))
    if version == "0.1" or version.startswith("0.1."):
        raise ConfigError(
            f"{run}: written by jaxclf {version}, which version "
            f"{importlib.metadata.version('jaxclf')} cannot resume or read; train again with "
            f"another --out, or install jaxclf {version}"
        )


def with_recorded_settings(out: Path, experiment: Experiment) -> Experiment:
    """Take over what the run in `out` settled at its start: the keys in SETTLED that the experiment
    leaves open, and smaller micro-batches that make up the same batch."""
    check_version(out)
    path = out / "config.json"
    if not path.is_file():
        return experiment
    recorded = catalog.load(str(path))
    values, recorded_values = dict(iter_fields(experiment)), dict(iter_fields(recorded))
    size, steps = recorded.train.batch_size, recorded.optim.gradient_accumulation_steps
    batch = experiment.train.batch_size * experiment.optim.gradient_accumulation_steps
    changes = {key: recorded_values[key] for key in SETTLED if not values[key]}
    is_halved = size < experiment.train.batch_size and size * steps == batch
    if is_halved or not batch:
        changes |= {"train.batch_size": size, "optim.gradient_accumulation_steps": steps}
    return override(experiment, changes)


def describe_environment() -> dict[str, Any]:
    """The versions and devices that a result may depend on."""
    device = jax.devices()[0]
    versions = {name: sys.modules[name].__version__ for name in ("jax", "flax", "optax", "numpy")}
    return {
        "jaxclf": importlib.metadata.version("jaxclf"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processes": jax.process_count(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        **versions,
    }
