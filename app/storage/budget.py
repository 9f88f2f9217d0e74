"""How much a directory may hold: a running total, so that no write has to look at the whole disk."""

from __future__ import annotations

import threading


class Budget:
    """Bytes that are kept, and bytes that are being written, against a limit. Used from several threads.

    It knows of what passes through this process; what others do to the directory it learns when somebody counts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept = 0
        self._writing = 0
        self._since: int | None = None  # what was kept since somebody began to count

    def left(self) -> int:
        """How much may still be put."""
        with self._lock:
            return max(0, self._limit - self._kept - self._writing)

    def claim(self, size: int) -> bool:
        """Room for bytes that will be written; False: there is none."""
        with self._lock:
            if self._kept + self._writing + size > self._limit:
                return False
            self._writing += size
            return True

    def settle(self, size: int, *, kept: bool) -> None:
        """Claimed bytes are kept, or were not written after all."""
        with self._lock:
            self._writing -= size
            if kept:
                self._kept += size
                if self._since is not None:
                    self._since += size

    def free(self, size: int) -> None:
        """Kept bytes are gone."""
        with self._lock:
            self._kept = max(0, self._kept - size)

    def begin_count(self) -> None:
        """Somebody goes through the directory."""
        with self._lock:
            self._since = 0

    def end_count(self, total: int) -> None:
        """What was found. What was kept meanwhile may be in it twice: rather too much, until the next count."""
        with self._lock:
            self._kept = total + (self._since or 0)
            self._since = None
