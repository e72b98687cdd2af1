"""Parquet on several machines: Ray Data, each worker of which scores windows as `predict` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.inference.score_file import WINDOW_ROWS

if TYPE_CHECKING:
    import pyarrow

KEPT = ("id", "text")  # the columns that are read


def score_parquet(
    run: str | Path,
    source: str,
    target: str,
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
    window: int = WINDOW_ROWS,
) -> str:
    """Label every row of Parquet files, in their order, as Parquet files in the folder `target`;
    Ray's account of who did what.

    source: a file or a folder, with columns `id` and `text`. run, source and target are read and
        written by the workers, and must be the same to all of them.
    workers: processes, each with a model of its own; cpus, gpus: what Ray keeps for one. On a CPU
        one takes all the cores of its machine: let it be one a machine, with the cores as `cpus`.
    window: rows scored at once.

    The files have `id`, `labels` (those given) and a column `probability_` for each label. Raises
    ConfigError where Ray is missing, and where the target exists: Ray would add its files to those.
    What is wrong with a row stands in Ray's own error; the target then holds some of the rows.
    """
    try:
        # An extra that a check of types does without.
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("no ray: pip install 'jaxclf[ray]'") from None
    _refuse_existing(target)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    # In blocks of a window each: as they are read, a file of 100 MB is a single one.
    rows = ray.data.read_parquet(source, columns=list(KEPT))
    scored = rows.repartition(target_num_rows_per_block=window).map_batches(
        Worker,
        fn_constructor_args=(str(run),),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    scored.write_parquet(target)
    return scored.stats()


def _refuse_existing(target: str) -> None:
    from pyarrow import fs

    where = target if "://" in target else Path(target).resolve().as_uri()
    filesystem, path = fs.FileSystem.from_uri(where)
    if filesystem.get_file_info(path).type != fs.FileType.NotFound:
        raise ConfigError(f"{target} exists; give another target")


class Worker:
    """The process of a worker, which Ray wants as a class: its model, loaded once."""

    def __init__(self, run: str):
        self.classifier = load(run)

    def __call__(self, rows: "pyarrow.Table") -> "pyarrow.Table":
        return score_table(self.classifier, rows)


def score_table(classifier: Classifier, rows: "pyarrow.Table") -> "pyarrow.Table":
    """One window: columns `id` and `text` -> `id`, `labels` and the probabilities. Raises DataError
    for a column that is missing, and with the id of a row without a text."""
    import pyarrow

    for name in KEPT:
        if name not in rows.column_names:
            raise DataError(f"no column {name!r} in the Parquet files")
    ids, texts = rows.column("id"), rows.column("text").to_pylist()
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"id {ids[index].as_py()!r}: no text; remove the row")
    probs = classifier.predict_proba(texts)
    given = decide(probs, classifier.thresholds)
    names = np.array(classifier.labels, object)
    strings = pyarrow.list_(pyarrow.string())
    columns: dict[str, Any] = {
        "id": ids,
        "labels": pyarrow.array([names[row].tolist() for row in given], strings),
    }
    for name, column in zip(classifier.labels, probs.T, strict=True):
        columns[f"probability_{name}"] = pyarrow.array(column)
    return pyarrow.table(columns)
