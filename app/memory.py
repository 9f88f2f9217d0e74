"""How this process handles its memory: set once, before it serves.

A request moves pictures of a megabyte or two. glibc takes each such buffer from the kernel and gives it back, zeroed
page by page, every time: a sixth of a request's CPU (`bench/RESULTS.md`). Buffers are kept for the next request
instead, up to a bound; what lies above the bound goes back.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

_KEPT_BYTES = 48 << 20
_FROM_HEAP_BYTES = 32 << 20  # the most that glibc allows; larger buffers go back to the kernel at once, as ever
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)


def settle() -> None:
    """Keep freed memory for the next request, and the collector away from what lives for ever."""
    if (mallopt := _of_libc("mallopt")) is not None:
        mallopt(_MMAP_THRESHOLD, _FROM_HEAP_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 2)  # threads that only copy and hash need no heaps of their own
    gc.collect()
    gc.freeze()


def trim() -> None:
    """Give back what was freed in the midst of what is kept: after a busy hour it can be a lot. Blocks for some
    milliseconds, without the interpreter's lock."""
    if (malloc_trim := _of_libc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of glibc's; None where there is none (musl, macOS)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
