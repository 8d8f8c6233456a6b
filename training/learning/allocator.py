"""What the C library does with memory that a step has freed."""

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> bool:
    """Have glibc keep what this process frees, and processes that it forks; whether it does. There is no way back: what
    a validation on larger images took stays as well.

    By itself it gives large blocks back to the system at once, so that a training step on a CPU has all of its
    activations mapped and cleared anew, page by page: of a strided FCN's step that was a quarter (`LOG.md`).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_MAX, 0))
