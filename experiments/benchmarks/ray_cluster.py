"""Score on a Ray cluster of two nodes on this machine: the rows, order and probabilities are those
of a single process.

    python -m experiments.benchmarks.ray_cluster --run runs/ekman/members/goemotions_ekman-seed0 --data data/goemotions/ekman/test.jsonl

Two workers on one machine are not faster. It needs the extra [ray].
"""  # noqa: E501

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

# Ray is an extra, which the type checker does not have.
import ray  # pyright: ignore[reportMissingImports]
from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

from jaxclf.inference.load import load
from jaxclf.inference.ray_data import score_parquet

NUM_FILES = 4  # of the input


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--data", type=Path, required=True, help="a JSONL file with ids and texts")
    parser.add_argument("--rows", type=int, help="only the first rows; default: all")
    args = parser.parse_args()

    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.rows]
    rows = pyarrow.Table.from_pylist([json.loads(line) for line in lines]).select(["id", "text"])
    # A node has a core for its worker and one for reading and writing.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address)
    print(f"{len(ray.nodes())} nodes")
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "texts", Path(scratch) / "scored"
        source.mkdir()
        size = -(-len(rows) // NUM_FILES)
        for file in range(NUM_FILES):
            part = rows.slice(file * size, size)
            pyarrow.parquet.write_table(part, source / f"{file}.parquet")
        chunk_size = max(len(rows) // 16, 1)
        statistics = score_parquet(
            args.run.resolve(), str(source), str(target), workers=2, chunk_size=chunk_size
        )
        scored = pyarrow.parquet.read_table(target)
    ray.shutdown()
    cluster.shutdown()

    classifier = load(args.run)
    expected = classifier.predict_proba(rows.column("text").to_pylist())
    columns = [scored.column(f"probability_{name}").to_numpy() for name in classifier.labels]
    is_in_order = scored.column("id").equals(rows.column("id"))
    difference = np.abs(expected - np.stack(columns, axis=1)).max()
    (worker,) = [part for part in statistics.split("\n\n") if "MapBatches(Worker)" in part]
    print(next(line for line in worker.splitlines() if "Tasks per node" in line))
    print(f"{len(scored):,} rows, in order: {is_in_order}, probabilities within {difference:.1e}")


if __name__ == "__main__":
    main()
