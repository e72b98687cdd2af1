"""Scoring on a Ray cluster of two nodes, both on this machine: the same rows, order and
probabilities as without it.

    python experiments/benchmarks/ray_cluster.py --run DIR --data data/goemotions/ekman/test.jsonl

It shows that the work is shared and its result the same; two workers on one machine are no faster.
`pip install -e '.[ray]'`.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

# An extra that a check of types does without.
import ray  # pyright: ignore[reportMissingImports]
from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

from jaxclf.inference.load import load
from jaxclf.inference.ray_data import score_parquet

FILES = 4  # of the input, so that there is something to share


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
        size = -(-len(rows) // FILES)
        for file in range(FILES):
            part = rows.slice(file * size, size)
            pyarrow.parquet.write_table(part, source / f"{file}.parquet")
        window = max(len(rows) // 16, 1)
        account = score_parquet(
            args.run.resolve(), str(source), str(target), workers=2, window=window
        )
        scored = pyarrow.parquet.read_table(target)
    ray.shutdown()
    cluster.shutdown()

    classifier = load(args.run)
    here = classifier.predict_proba(rows.column("text").to_pylist())
    there = [scored.column(f"probability_{name}").to_numpy() for name in classifier.labels]
    in_order = scored.column("id").equals(rows.column("id"))
    apart = np.abs(here - np.stack(there, axis=1)).max()
    (done,) = [part for part in account.split("\n\n") if "MapBatches(Worker)" in part]
    print(next(line for line in done.splitlines() if "Tasks per node" in line))
    print(f"{len(scored):,} rows, in order: {in_order}, probabilities within {apart:.1e}")


if __name__ == "__main__":
    main()
