"""Ids that nobody guesses, and that follow one another in time.

The first 48 bits are milliseconds since 1970, the rest is random, as in UUIDv7 (RFC 9562, 5.7). Rows that are entered
together so lie together in every index on an id: a random one falls each time onto another page of the database, which
has to be read, logged and written for it alone. The last digits are the random ones, as W3C asks of a trace's id.
"""

from __future__ import annotations

import os
import time

_RANDOM = 10  # bytes of an id
_BLOCK = 200 * _RANDOM


class Ids:
    """Draws them, for one thread. Random bytes come in blocks: a call to the system gives the interpreter's lock away,
    and then waits until the thread that writes the database lets go of it."""

    def __init__(self) -> None:
        self._bytes = b""

    def request(self) -> str:
        """req_ and 32 digits, of which 80 bits are random."""
        return f"req_{self.job()}"

    def job(self) -> str:
        """Of a job's row: 32 digits, of which 80 bits are random."""
        if not self._bytes:
            self._bytes = os.urandom(_BLOCK)
        taken, self._bytes = self._bytes[:_RANDOM], self._bytes[_RANDOM:]
        return f"{time.time_ns() // 1_000_000:012x}{taken.hex()}"
