"""Label Parquet files on several machines with Ray Data, in chunks as `jaxclf predict` does."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.inference.score_file import CHUNK_ROWS

if TYPE_CHECKING:
    import pyarrow

COLUMNS = ("id", "text")  # the columns that are read


def score_parquet(
    run: str | Path,
    source: str,
    target: str,
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
    chunk_size: int = CHUNK_ROWS,
) -> str:
    """Label every row of Parquet files, in order, and write Parquet files to the folder `target`.

    source: a file or folder with columns `id` and `text`. The workers read run and source and write
        target, so all machines need the same paths.
    workers: processes, each with its own model. cpus, gpus: what Ray reserves for each. On CPUs a
        worker uses all cores of its machine: start one per machine with the number of cores as
        `cpus`.
    chunk_size: rows scored at once.

    The files have the columns `id`, `labels` (predicted) and `probability_NAME` for each label.
    Returns Ray's statistics. Raises ConfigError if Ray is missing or the target exists, since Ray
    would add files to it. A bad row raises Ray's own error; the target then holds some rows.
    """
    try:
        # Ray is an extra, which the type checker does not have.
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("ray is not installed: pip install 'jaxclf[ray]'") from None
    from pyarrow import fs

    uri = target if "://" in target else Path(target).resolve().as_uri()
    filesystem, path = fs.FileSystem.from_uri(uri)
    if filesystem.get_file_info(path).type != fs.FileType.NotFound:
        raise ConfigError(f"{target} exists; give another target")
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    # One block per chunk: as it is read, a file of 100 MB is a single block.
    rows = ray.data.read_parquet(source, columns=list(COLUMNS))
    scored = rows.repartition(target_num_rows_per_block=chunk_size).map_batches(
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


class Worker:
    """A worker's process, which Ray requires as a class: loads the model once."""

    def __init__(self, run: str):
        self.classifier = load(run)

    def __call__(self, rows: "pyarrow.Table") -> "pyarrow.Table":
        return score_table(self.classifier, rows)


def score_table(classifier: Classifier, rows: "pyarrow.Table") -> "pyarrow.Table":
    """Score one chunk: columns `id` and `text` -> `id`, `labels` and probabilities.

    Raises DataError for a missing column, and for a row without a text, named by its id.
    """
    import pyarrow

    for name in COLUMNS:
        if name not in rows.column_names:
            raise DataError(f"no column {name!r} in the Parquet files")
    ids, texts = rows.column("id"), rows.column("text").to_pylist()
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"id {ids[index].as_py()!r}: no text; remove the row")
    probs = classifier.predict_proba(texts)
    decisions = decide(probs, classifier.thresholds)
    names = np.array(classifier.labels, object)
    strings = pyarrow.list_(pyarrow.string())
    predicted = pyarrow.array([names[row].tolist() for row in decisions], strings)
    columns = zip(classifier.labels, probs.T, strict=True)
    probabilities = {f"probability_{name}": pyarrow.array(column) for name, column in columns}
    return pyarrow.table({"id": ids, "labels": predicted, **probabilities})
