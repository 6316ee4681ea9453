"""Free memory back to the system. glibc alone keeps what was freed, hundreds of MB after a few large requests."""

import ctypes
import functools
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 2**17


def give_back_large_blocks() -> None:
    """For the whole process: blocks from 128 KiB on are the system's as soon as they are freed.

    That is glibc's own limit at first. It would raise it to 32 MiB once such a block was freed, and no call gives back
    what lies at the end of a thread's heap.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def give_back_memory() -> None:
    """Smaller blocks that are free, whose pages are whole. Takes about a millisecond for each 100 MB."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """None with another C library, whose allocator cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
