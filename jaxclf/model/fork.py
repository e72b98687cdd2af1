"""JAX does not survive a fork: its threads are not in the child, which would wait for them."""

import os

from jaxclf.errors import ConfigError

_process: list[int] = []  # that used a network first; a forked child inherits it


def raise_after_fork() -> None:
    """Raise ConfigError in a child that was forked from a process that has called this function."""
    if not _process:
        _process.append(os.getpid())
    if _process[0] != os.getpid():
        raise ConfigError(
            "this process was forked from one that used jaxclf, and would hang; use jaxclf in the "
            "workers alone, or start them with multiprocessing.get_context('spawn')"
        )
