"""Damage what runs and jobs leave on the disk, and check what the next command makes of it.

    python -m experiments.benchmarks.corrupt
    python -m experiments.benchmarks.corrupt --damages 40 --seed 1

Each damage is done to a fresh copy of what was interrupted or finished: a flipped bit, a cut,
zeroed bytes, a deletion or a stray file. Then it is resumed or loaded, in this process:

checkpoints, manifests  of the training loop. In place of a network it iterates a chaotic map, so
                        that a state, batch or score that differs changes the final numbers
provenance              of a run of a tiny encoder
model                   of that run
journal                 and unfinished output of a `predict` with that model

Fine is

refused    an error of jaxclf that names what is damaged; all that was good is still there
recovered  the numbers of the undamaged run, and a message that names what is damaged
other      the numbers of another epoch, with a message that names the lost checkpoint of the best
unread     a stray that nothing reads and that is still there; the numbers are the same

Everything else is a failure: another exception, no message, other numbers, a good checkpoint that
is gone. Prints a table, and exits with 1 after a failure.
"""

import argparse
import collections
import contextlib
import json
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import jaxclf
from experiments.benchmarks.readme_commands import make_encoder
from jaxclf.errors import JaxclfError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.files.atomic import sha256
from jaxclf.inference import score_file
from jaxclf.inference.classifier import Classifier
from jaxclf.training import checkpoint
from jaxclf.training.loop import Epochs, init_state, run_loop
from jaxclf.training.manifest import Metrics
from jaxclf.training.run import train
from jaxclf.training.step import StepMetrics
from jaxclf.types import Batch, State

ROOT = Path(__file__).parent.parent.parent
FINE = ("refused", "recovered", "other", "unread")
STRAYS = (".DS_Store", ".nfs0000000001", "notes.txt", "12 copy.json", "link", "folder")
TEXTS = ["I slept badly again.", "What a lovely day!", "Nobody listens to me."]


class Originals(NamedTuple):
    """The undamaged folders, and what they lead to."""

    folder: Path  # holds loop/, interrupted/, finished/ and job/
    experiment: Experiment
    numbers: dict[str, Any]  # area -> the numbers of an undamaged copy


class Damage(NamedTuple):
    path: Path  # relative to the folder
    kind: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--damages", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = collections.Counter()
    for area, damage, verdict, message in try_damages(args.damages, args.seed):
        counts[area, verdict] += 1
        if verdict not in FINE or args.damages <= 40:
            print(f"{verdict:<10}{damage.kind:<7}{damage.path}\n    {message}", flush=True)
    failed = args.damages - sum(counts[area, verdict] for area in AREAS for verdict in FINE)
    print(f"{'':<12}" + "".join(f"{verdict:>11}" for verdict in (*FINE, "FAILED")))
    for area in AREAS:
        print(f"{area:<12}" + "".join(f"{counts[area, v]:>11}" for v in (*FINE, "FAILED")))
    print(f"{args.damages} damages, {failed} failures")
    return 1 if failed else 0


def try_damages(count: int, seed: int) -> Iterator[tuple[str, Damage, str, str]]:
    """(area, damage, verdict, messages) of damages in turn of the areas."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary, collect_messages() as messages:
        originals = make_originals(Path(temporary) / "originals")
        for number in range(count):
            area = list(AREAS)[number % len(AREAS)]
            copy = Path(temporary) / "copy"
            shutil.copytree(originals.folder, copy, symlinks=True)
            damage = do_damage(copy, AREAS[area].paths(copy), rng)
            messages.clear()
            verdict = judge(area, originals, copy, damage, messages)
            shutil.rmtree(copy)
            yield area, damage, verdict, "\n    ".join(messages)


@contextlib.contextmanager
def collect_messages() -> Iterator[list[str]]:
    """The messages of jaxclf, as a list that grows."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger("jaxclf")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def judge(area: str, originals: Originals, copy: Path, damage: Damage, messages: list[str]) -> str:
    """The verdict on what happens with a damaged copy; appends the error to the messages."""
    before = good_files(copy, damage)
    numbers = None
    try:
        numbers = AREAS[area].attempt(copy, originals.experiment)
    except JaxclfError as error:
        messages.append(f"exit code {error.exit_code}: {error}")
    except Exception as error:  # a traceback for the user
        messages.append(f"{type(error).__name__}: {error}")
        return "FAILED"
    is_same = numbers == originals.numbers[area]
    is_stray = damage.kind == "stray"
    path = copy / damage.path
    is_inside = len(damage.path.parts) > 3  # a checkpoint's folder, deleted when it is outdated
    if is_stray and not is_inside and not (path.exists() or path.is_symlink()):
        return "FAILED"
    if not is_named(damage, messages):
        return "unread" if is_stray and is_same else "FAILED"
    if numbers is None:
        is_kept = before.items() <= good_files(copy, damage).items()
        return "refused" if is_kept and not is_stray else "FAILED"
    if is_same:
        return "recovered"
    return "other" if any("of the best epoch" in message for message in messages) else "FAILED"


def is_named(damage: Damage, messages: list[str]) -> bool:
    """Whether a message names the damaged file, or the checkpoint that it belongs to."""
    names = [damage.path.name]
    if "checkpoints" in damage.path.parts and len(damage.path.parts) > 2:
        step = damage.path.parts[2]
        names += [f"checkpoint {step} ", f"checkpoints/{step}"]
    return any(name in message for name in names for message in messages)


def good_files(copy: Path, damage: Damage) -> dict[str, str]:
    """SHA-256 of the files of all checkpoints but the damaged, of the model and of the job."""
    paths = [*copy.glob("*/checkpoints/**/*"), *copy.glob("*/integrity/*.json")]
    paths += [*copy.glob("finished/model/*"), *copy.glob("job/*.part"), *copy.glob("job/*.json")]
    damaged = copy / damage.path
    return {
        str(path): sha256(path)
        for path in paths
        if path.is_file() and path != damaged and damaged not in path.parents
    }


def do_damage(copy: Path, paths: list[Path], rng: random.Random) -> Damage:
    """Damage one of the paths, or put a stray beside it."""
    path = rng.choice(paths)
    kind = rng.choice(["flip", "flip", "cut", "zero", "delete", "stray"])
    if kind == "stray":
        path = path.parent / rng.choice(STRAYS)
        if path.name == "link":
            path.symlink_to("nowhere")
        elif path.name == "folder":
            path.mkdir()
        else:
            path.write_text("{}")
    elif kind == "delete":
        path = rng.choice([path, path, path.parent]) if path.parent.parent != copy else path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        content = path.read_bytes()
        while (changed := change_bytes(content, kind, rng)) == content and any(content):
            continue
        path.write_bytes(changed)
    return Damage(path.relative_to(copy), kind)


def change_bytes(content: bytes, kind: str, rng: random.Random) -> bytes:
    changed = bytearray(content)
    at = rng.randrange(len(content))
    if kind == "flip":
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del changed[at:]
    else:
        size = min(len(content) - at, rng.choice([1, 16, 512]))
        changed[at : at + size] = bytes(size)
    return bytes(changed)


def make_originals(folder: Path) -> Originals:
    """A finished run, a run that was interrupted in its second evaluation, and a `predict` that was
    interrupted after two of four chunks."""
    folder.mkdir()
    data = folder.parent / "data"
    data.mkdir()
    for split, count in (("train", 96), ("val", 48), ("test", 48)):
        content = (ROOT / "data" / f"{split}_data.json").read_text(encoding="utf-8")
        rows = json.loads(content)[:count]
        (data / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    make_encoder(data / "encoder", [row["text"] for row in rows])
    changes = {f"data.{split}": str(data / f"{split}.json") for split in ("train", "val", "test")}
    changes |= {"encoder.name": str(data / "encoder"), "data.max_length": 32, "train.epochs": 2}
    changes |= {"train.checkpoint_every": 1, "optim.lr": 3e-3, "train.batch_size": 32}
    experiment = override(catalog.load("focal_attention"), changes)
    train(experiment, folder / "finished")
    scores = iter(range(100))

    def interrupt(score: float, done: float) -> None:
        if next(scores) == 1:
            raise InterruptedError

    with contextlib.suppress(InterruptedError):
        train(experiment, folder / "interrupted", report_score=interrupt)
    (folder / "loop").mkdir()
    with contextlib.suppress(InterruptedError):
        resume_loop(folder, evaluations=1)
    (folder / "job").mkdir()
    shutil.copy(data / "val.json", folder / "job" / "rows.json")
    score_file.CHUNK_ROWS = 12
    interrupt_job(folder)
    copy = folder.parent / "copy"
    numbers = {}
    for area, values in AREAS.items():
        shutil.copytree(folder, copy)
        numbers[area] = values.attempt(copy, experiment)
        shutil.rmtree(copy)
    return Originals(folder, experiment, numbers)


def interrupt_job(copy: Path) -> None:
    """Label two chunks of the rows and end as a kill does."""
    calls, predict = iter(range(100)), Classifier.predict_proba

    def interrupt(classifier: Classifier, texts: list[str]) -> Any:
        if next(calls) == 2:
            raise InterruptedError
        return predict(classifier, texts)

    with (
        contextlib.suppress(InterruptedError),
        mock.patch.object(Classifier, "predict_proba", interrupt),
    ):
        resume_job(copy)


def resume_loop(copy: Path, experiment: Experiment | None = None, evaluations: int = 9) -> Any:
    """Resume the training loop; it is interrupted when the evaluations are used up. Returns the
    numbers of all epochs and the parameters of the best, to the last bit."""
    run = copy / "loop"
    state, progress = init_state({"x": jnp.linspace(0.1, 0.9, 64)}, (), np.zeros(2, np.uint32))
    abstract = checkpoint.abstract_state(state)
    if latest := checkpoint.latest_checkpoint(run):
        state, progress = checkpoint.restore(run, latest, abstract), latest.progress

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for index in range(first, 6):
            tokens = np.full((2, 3), 100 * epoch + index, np.int32)
            labels = np.zeros((2, 1), np.float32)
            yield Batch(tokens, tokens, tokens, tokens, labels, labels, np.ones(2, np.float32))

    def evaluate(params: dict, epoch: int) -> Metrics:
        if len(calls) == evaluations:
            raise InterruptedError
        calls.append(params)
        return {"score": float(params["x"].mean())}

    calls: list[dict] = []
    epochs = Epochs([6, 6, 6], batches)
    progress = run_loop(run, state, progress, map_step, lambda step: 0.1, epochs, evaluate, 0, 2)
    best = checkpoint.restore(run, checkpoint.epoch_checkpoints(run)[0], abstract)
    return repr((progress, np.asarray(best.params["x"]).tobytes()))


@jax.jit
def map_step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
    """x -> 3.9 x (1 - x), plus a term of the batch."""
    x = state.params["x"]
    x = (3.9 * x * (1 - x) + 1e-4 * batch.ids.mean()) % 1
    return State(state.step + 1, {"x": x}, (), state.key), StepMetrics(x.mean(), x.mean())


def resume_run(copy: Path, experiment: Experiment) -> Any:
    return repr(train(experiment, copy / "interrupted", score_test=False))


def load_model(copy: Path, experiment: Experiment | None = None) -> Any:
    return jaxclf.load(copy / "finished").predict_proba(TEXTS).tobytes()


def resume_job(copy: Path, experiment: Experiment | None = None) -> Any:
    job = copy / "job"
    classifier = jaxclf.load(copy / "finished")
    score_file.predict_file(classifier, job / "rows.json", job / "answers.csv")
    return (job / "answers.csv").read_bytes()


class Area(NamedTuple):
    paths: Callable[[Path], list[Path]]  # what may be damaged
    attempt: Callable[[Path, Experiment], Any]  # what the user does next; returns numbers


def files_of(*patterns: str) -> Callable[[Path], list[Path]]:
    return lambda copy: sorted(
        path
        for pattern in patterns
        for path in copy.glob(pattern)
        if path.is_file() and path.stat().st_size and path.name != "README.md"
    )


AREAS = {
    "checkpoints": Area(files_of("loop/checkpoints/**/*"), resume_loop),
    "manifests": Area(files_of("loop/integrity/*"), resume_loop),
    "model": Area(files_of("finished/model/*"), load_model),
    "provenance": Area(files_of("interrupted/provenance.json"), resume_run),
    "journal": Area(files_of("job/answers.csv.*"), resume_job),
}


if __name__ == "__main__":
    sys.exit(main())
