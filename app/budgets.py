"""What requests may hold at once. Refusing early is cheap; running out of memory takes every request down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class Memory:
    """Bytes held by all requests together. One for the whole process, used from one thread."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes; 0 = no limit."""
        self._limit = limit
        self._used = 0

    @property
    def limit(self) -> int:
        """Bytes; 0 = no limit."""
        return self._limit

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count `size` bytes until the end of the block. Raises Overloaded if they do not fit.

        What is larger than the whole budget gets it while nobody else holds any: else it would starve.
        """
        if self._limit and self._used and self._used + size > self._limit:
            raise Overloaded(
                "The gateway is at its memory budget. Try again in a moment.",
                detail=f"{size} bytes asked for, {self._used} of {self._limit} held",
                retry_after=1,
            )
        self._used += size
        try:
            yield
        finally:
            self._used -= size
