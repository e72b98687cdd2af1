"""Several devices and hosts: a batch's rows lie over all of them, parameters on each.

Every host runs the same loop, in step with the others. What is not arithmetic, the first one does:
it reads checkpoints, evaluates, writes, and tells the others what follows. They need the same data
and no common disk.
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
from jaxclf.errors import ConfigError, DataError, JaxclfError
from jaxclf.types import Batch

ROWS, EVERYWHERE = PartitionSpec("data"), PartitionSpec()
TO_JOIN, TO_LEAVE = 300, 60  # seconds that hosts wait for one another


def initialize(host: str, coordinator: str) -> None:
    """Become host I of N, from 0; to be called before anything is computed.

    host: "I/N". coordinator: "ADDRESS:PORT" of the first host, at which the others find it.
    Raises ConfigError for what is not of that form, and where they do not all come.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", host)
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(f"--host {host!r}: give I/N, the first of two as 0/2, the second as 1/2")
    if not re.fullmatch(r"\S+:\d+", coordinator):
        raise ConfigError(f"--coordinator {coordinator!r}: give the first host's ADDRESS:PORT")
    try:
        jax.distributed.initialize(
            coordinator,
            int(found[2]),
            int(found[1]),
            initialization_timeout=TO_JOIN,
            shutdown_timeout_seconds=TO_LEAVE,
        )
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"{found[2]} hosts do not meet at {coordinator}: {error}") from None


def is_primary() -> bool:
    """Whether this host is the one that reads and writes."""
    return jax.process_index() == 0


def sharding_for(where: PartitionSpec) -> NamedSharding | None:
    """Over all devices of all hosts; None where there is but one device."""
    if jax.device_count() == 1:
        return None
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), where)


def shard_batch(batch: Batch) -> Batch:
    """The batch with its rows over all devices, where need be with empty rows below them; what is
    of its examples lies everywhere."""
    by_row, everywhere = sharding_for(ROWS), sharding_for(EVERYWHERE)
    if by_row is None or everywhere is None:
        return batch
    slots, more = len(batch.weight), -len(batch.ids) % jax.device_count()
    empty = {"ids": 0, "positions": 0, "segments": 0, "examples": slots}

    def put(name: str, part: np.ndarray) -> jax.Array:
        if name not in empty:
            return _put(part, everywhere)
        return _put(np.pad(part, ((0, more), (0, 0)), constant_values=empty[name]), by_row)

    return Batch(**{name: put(name, part) for name, part in batch._asdict().items()})


def replicate(tree: Any) -> Any:
    """The first host's arrays, on every device."""
    everywhere = sharding_for(EVERYWHERE)
    if everywhere is None:
        return tree
    if jax.process_count() > 1:
        tree = multihost_utils.broadcast_one_to_all(tree)
    return jax.tree.map(lambda leaf: _put(np.asarray(leaf), everywhere), tree)


def to_local(tree: Any) -> Any:
    """What lies everywhere, on one device of this host."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _put(whole: np.ndarray, where: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])


def broadcast_from_primary(decide: Callable[[], Any]) -> Any:
    """What the first host decides or has done, on all: anything that JSON holds, or the error it
    raises."""
    if jax.process_count() == 1:
        return decide()
    answer, error = None, None
    if is_primary():
        try:
            answer = decide()
        except JaxclfError as raised:
            error = [type(raised).__name__, *raised.args]
        except OSError as raised:
            error = ["StorageError", f"{raised.filename or 'disk'}: {raised.strerror or raised}"]
    said = np.frombuffer(json.dumps([answer, error]).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    said = said if is_primary() else np.zeros(size, np.uint8)
    answer, error = json.loads(bytes(multihost_utils.broadcast_one_to_all(said)))
    if error is not None:
        raise getattr(errors, error[0])(*error[1:])
    return answer


def any_of(flag: bool) -> bool:
    """Whether it holds on some host."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


def check_same(value: Any) -> None:
    """DataError where hosts hold different values."""
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    each = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    if other := np.flatnonzero((each != each[0]).any(axis=1)).tolist():
        raise DataError(
            f"host {other[0]} has other data or another experiment than the first host; give all "
            "the same command and the same files"
        )
