"""Several devices and processes: the rows of a batch are sharded, the state is replicated.

Every process runs the same loop in step with the others. Process 0 does all I/O and evaluation and
broadcasts the results. The processes need the same data, but no shared disk.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxclf import errors
from jaxclf.errors import ConfigError, DataError, JaxclfError, StoppedError
from jaxclf.types import Batch

BY_ROW, REPLICATED = PartitionSpec("data"), PartitionSpec()
CONNECT_TIMEOUT, SHUTDOWN_TIMEOUT = 300, 60  # seconds that processes wait for each other


def initialize(
    process_id: int | None, num_processes: int | None, coordinator_address: str | None
) -> None:
    """Join the processes of one run; call it before any computation. All None: a single process.

    process_id: 0 to num_processes - 1. coordinator_address: "ADDRESS:PORT" of process 0, as the
        others reach it.
    Raises ConfigError for invalid values and if not all processes connect in time.
    """
    if process_id is num_processes is coordinator_address is None:
        return
    if process_id is None or num_processes is None or coordinator_address is None:
        raise ConfigError("--process-id, --num-processes and --coordinator-address go together")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process-id {process_id}: not in 0 to {num_processes - 1} "
            f"(--num-processes {num_processes})"
        )
    if not re.fullmatch(r"\S+:\d+", coordinator_address):
        raise ConfigError(
            f"--coordinator-address {coordinator_address!r}: expected ADDRESS:PORT of process 0"
        )
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=CONNECT_TIMEOUT,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
        )
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"the {num_processes} processes could not connect to {coordinator_address}: {error}"
        ) from None


def is_primary() -> bool:
    """Whether this process does the I/O and the evaluation."""
    return jax.process_index() == 0


def sharding_for(spec: PartitionSpec) -> NamedSharding | None:
    """The sharding over all devices of all processes; None with a single device."""
    if jax.device_count() == 1:
        return None
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), spec)


def shard_batch(batch: Batch) -> Batch:
    """Spread a batch's rows over all devices and replicate its arrays per example.

    Empty rows are appended where the rows do not divide evenly.
    """
    by_row, replicated = sharding_for(BY_ROW), sharding_for(REPLICATED)
    if by_row is None or replicated is None:
        return batch
    slots, missing_rows = len(batch.weight), -len(batch.ids) % jax.device_count()
    padding_value = {"ids": 0, "positions": 0, "segments": 0, "examples": slots}

    def put(name: str, array: np.ndarray) -> jax.Array:
        if name not in padding_value:
            return _put(array, replicated)
        padding = ((0, missing_rows), (0, 0))
        return _put(np.pad(array, padding, constant_values=padding_value[name]), by_row)

    return Batch(**{name: put(name, array) for name, array in batch._asdict().items()})


def replicate(tree: Any) -> Any:
    """Copy process 0's arrays to every device."""
    replicated = sharding_for(REPLICATED)
    if replicated is None:
        return tree
    if jax.process_count() > 1:
        tree = multihost_utils.broadcast_one_to_all(tree)
    return jax.tree.map(lambda leaf: _put(np.asarray(leaf), replicated), tree)


def to_local(tree: Any) -> Any:
    """The copy of replicated arrays that lies on the first device of this process."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def broadcast_from_primary(function: Callable[[], Any]) -> Any:
    """Call a function in process 0 and return its result in all processes.

    The result must be a JSON value. An error of process 0 is raised in all processes.
    """
    if jax.process_count() == 1:
        return function()
    result, error = None, None
    if is_primary():
        try:
            result = function()
        except (JaxclfError, StoppedError) as raised:
            error = [type(raised).__name__, *raised.args]
        except OSError as raised:
            error = ["StorageError", f"{raised.filename or 'disk'}: {raised.strerror or raised}"]
    message = np.frombuffer(json.dumps([result, error]).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    message = message if is_primary() else np.zeros(size, np.uint8)
    result, error = json.loads(bytes(multihost_utils.broadcast_one_to_all(message)))
    if error is not None:
        raise getattr(errors, error[0])(*error[1:])
    return result


def max_anywhere(number: int) -> int:
    """The largest number of all processes."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def check_same(value: Any) -> None:
    """Raise DataError if the processes have different JSON values."""
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    if differing := np.flatnonzero((digests != digests[0]).any(axis=1)).tolist():
        raise DataError(
            f"process {differing[0]} has a different experiment or different data than process 0; "
            "start all processes with the same command and the same files"
        )
