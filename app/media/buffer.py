"""Bytes to be looked at: in memory, or mapped from a file."""

from __future__ import annotations

import mmap

from providers.base import Blob

# Read-only: length, slices, single bytes, `find`, `re`; a map has no `startswith` and no `count`.
Buffer = bytes | mmap.mmap


def view_of(blob: Blob) -> Buffer:
    """The bytes of any blob: ours need not copy them. Blocks."""
    view = getattr(blob, "view", blob.read)
    found: Buffer = view()
    return found
