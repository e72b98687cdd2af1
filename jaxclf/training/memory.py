"""Ask glibc to keep freed memory, for a process that trains on a CPU."""

import ctypes
import sys

# From malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Call before the first computation; does nothing where there is no glibc.

    XLA allocates a step's buffers anew each step. glibc gives those over 32 MB back to the kernel
    at once, and touching fresh pages then costs a tenth of a training step. A setting of the whole
    process: for commands, not for a library.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2**26)
        mallopt(ARENA_MAX, 1)
