"""What tests of adapters are built from: pictures, deadlines, failures, a look at what is left open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import os
import random
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from providers.base import Media, ProviderError, Ticket


class Bytes:
    """A `Blob` in memory."""

    in_memory = True

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self) -> bytes:
        return self._data

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data


def picture(size: tuple[int, int] = (64, 48), *, noise: bool = False) -> Media:
    """An input: small, or as large as incompressible pixels make it."""
    data = _png(size, noise)
    return Media(Bytes(data), "image/png", size[0], size[1], os.urandom(32).hex())


@functools.cache
def _png(size: tuple[int, int], noise: bool) -> bytes:
    if noise:
        image = Image.frombytes("RGB", size, random.Random(0).randbytes(size[0] * size[1] * 3))  # noqa: S311 - pixels
    else:
        image = Image.linear_gradient("L").resize(size).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def large_picture(above: int) -> Media:
    return picture((1000, above // 3000 + 20), noise=True)


def revived(ticket: Ticket) -> Ticket:
    """The ticket as a journal gives it back after a restart."""
    line = json.dumps({"provider": ticket.provider, "job": ticket.job, "data": dict(ticket.data)})
    assert len(line) < 4096, "a ticket is small"
    return Ticket(**json.loads(line))


async def failure_of(work: Awaitable[Any]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await work
    return caught.value


def until(seconds: float) -> float:
    """A deadline on the real clock."""
    return time.monotonic() + seconds


async def same_as(measure: Callable[[], Any], before: Any, seconds: float = 2.0) -> bool:
    """Whether it is soon what it was before."""
    end = until(seconds)
    while measure() != before:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True


def connections_to(port: int) -> int:
    """Sockets of this process whose other end is `port` on any host."""
    count = 0
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # the entry by which we read the folder is gone by now
            if stat.S_ISSOCK(entry.stat().st_mode):
                with socket.fromfd(int(entry.name), socket.AF_INET, socket.SOCK_STREAM) as one:
                    peer = one.getpeername()
                    count += isinstance(peer, tuple) and peer[1] == port
    return count
