"""Blobs and the spool that makes them."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import mmap
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Overloaded
from app.media.blob import FileBlob, MemoryBlob, Room, SplicedBlob, Spool
from app.media.buffer import view_of
from providers.base import Blob


async def gathered(blob: Blob) -> bytes:
    return b"".join([piece async for piece in blob.chunks()])


async def spooled(chunks: list[bytes], threshold: int, directory: Path | None = None) -> tuple[Blob, str]:
    spool = Spool(threshold, directory)
    for chunk in chunks:
        spool.write(chunk)
        await spool.drain()
    return spool.finish()


def open_files() -> int:
    """Not sockets and pipes: what other tests have left running in threads opens and closes its own."""
    gc.collect()
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith("/")
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300)), st.integers(0, 2000))
def test_what_goes_in_comes_out(chunks: list[bytes], threshold: int) -> None:
    whole = b"".join(chunks)
    blob, digest = asyncio.run(spooled(chunks, threshold))
    assert blob.read() == whole
    assert blob.size == len(whole)
    assert digest == hashlib.sha256(whole).hexdigest()
    assert asyncio.run(gathered(blob)) == whole
    assert blob.in_memory == (len(whole) <= threshold)


@pytest.mark.parametrize(
    ("size", "kind"), [(0, MemoryBlob), (1000, MemoryBlob), (1001, FileBlob), (5_000_000, FileBlob)]
)
def test_the_threshold_decides_where_bytes_live(tmp_path: Path, size: int, kind: type) -> None:
    data = os.urandom(size)
    blob, _ = asyncio.run(spooled([data[at : at + 65_536] for at in range(0, size, 65_536)], 1000, tmp_path))
    assert isinstance(blob, kind)
    assert blob.read() == data
    assert asyncio.run(gathered(blob)) == data
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_file_is_written_while_the_rest_still_comes() -> None:
    async def scene() -> None:
        spool = Spool(1000)
        for _ in range(8):
            spool.write(b"x" * 400_000)
            await spool.drain()
            assert spool._pending_size < 1_500_000
        assert spool._filed > 1_000_000
        assert spool.size == 3_200_000
        assert spool.finish()[0].size == 3_200_000

    asyncio.run(scene())


def test_views_are_copied_since_their_buffer_may_change() -> None:
    buffer = bytearray(b"abc")
    spool = Spool(10)
    spool.write(memoryview(buffer))
    buffer[:] = b"xyz"
    assert spool.head == b"abc"
    assert spool.finish()[0].read() == b"abc"


def test_the_first_64_bytes_are_kept() -> None:
    spool = Spool(1)
    for byte in range(100):
        spool.write(bytes((byte,)))
    assert spool.head == bytes(range(64))


def test_files_are_closed_when_nobody_holds_them() -> None:
    before = open_files()
    blob, _ = asyncio.run(spooled([b"x" * 2_000_000], 0))
    assert open_files() == before + 1
    assert isinstance(blob, FileBlob)
    blob.close()
    with pytest.raises(ValueError, match="closed"):
        blob.read()
    assert open_files() == before


def test_large_files_are_closed_too_wherever_they_are_let_go() -> None:
    before = open_files()
    blob, _ = asyncio.run(spooled([b"x" * 1_000_000] * 6, 0))
    assert open_files() == before + 1
    blob.close()
    end = time.monotonic() + 10
    while open_files() != before:
        assert time.monotonic() < end, "it was never closed"
        time.sleep(0.001)


def test_a_file_is_hashed_by_the_thread_that_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    real = hashlib.sha256

    class Watched:
        """A hash that notes where large pieces come from."""

        def __init__(self) -> None:
            self._hash = real()

        def update(self, piece: bytes) -> None:
            seen.add(threading.get_ident())
            self._hash.update(piece)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    monkeypatch.setattr(hashlib, "sha256", Watched)
    data = [os.urandom(600_000) for _ in range(8)]
    _, digest = asyncio.run(spooled(data, 0))
    assert digest == real(b"".join(data)).hexdigest()
    assert seen
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("threshold", [0, 99_999, 100_000, 100_001, 700_000, 2_000_000])
def test_the_digest_is_that_of_the_bytes_wherever_they_went(threshold: int) -> None:
    data = [os.urandom(100_000) for _ in range(15)]
    blob, digest = asyncio.run(spooled(data, threshold))
    assert blob.read() == b"".join(data)
    assert digest == hashlib.sha256(b"".join(data)).hexdigest()


def test_a_discarded_spool_leaves_nothing() -> None:
    before = open_files()

    async def scene() -> None:
        spool = Spool(0)
        spool.write(b"x" * 2_000_000)
        await spool.drain()
        spool.discard()
        assert spool.size == 0

    asyncio.run(scene())
    assert open_files() == before


def test_many_read_one_file_at_once() -> None:
    data = os.urandom(3_000_000)

    async def scene() -> None:
        blob, _ = await spooled([data], 0)
        assert await asyncio.gather(*(gathered(blob) for _ in range(5))) == [data] * 5

    asyncio.run(scene())


def test_no_room_on_disk_is_overloaded(tmp_path: Path) -> None:
    with pytest.raises(Overloaded):
        asyncio.run(spooled([b"x" * 2_000_000], 0, tmp_path / "missing"))


def test_a_view_shows_a_spooled_file_without_copying_it(tmp_path: Path) -> None:
    blob, _ = asyncio.run(spooled([b"0123456789" * 10], threshold=10, directory=tmp_path))
    assert isinstance(blob, FileBlob)
    view = blob.view()
    blob.close()
    assert isinstance(view, mmap.mmap)
    assert len(view) == 100
    assert view[40:45] == b"01234"
    assert view.find(b"9") == 9


def test_a_view_of_bytes_in_memory_is_the_bytes() -> None:
    data = b"abc"
    assert MemoryBlob(data).view() is data


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=40) | st.tuples(st.integers(0, 300), st.integers(0, 300))))
def test_a_spliced_blob_is_its_parts_in_a_row(data: bytes, plan: list[bytes | tuple[int, int]]) -> None:
    parts = [
        part if isinstance(part, bytes) else slice(min(*part, len(data)), min(max(part), len(data))) for part in plan
    ]
    whole = b"".join(data[part] if isinstance(part, slice) else part for part in parts)
    for threshold in (1000, 0):
        source, _ = asyncio.run(spooled([data], threshold))
        blob = SplicedBlob(source, parts)
        assert (blob.size, blob.in_memory) == (len(whole), source.in_memory)
        assert (blob.read(), blob.view()) == (whole, whole)
        assert asyncio.run(gathered(blob)) == whole


def test_a_large_spliced_blob_comes_in_pieces(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    source, _ = asyncio.run(spooled([data], 0, tmp_path))
    parts = [slice(0, 1_400_000), b"between", slice(1_500_000, 1_500_001), slice(2_000_000, 3_000_000)]

    async def scene() -> list[bytes]:
        return [piece async for piece in SplicedBlob(source, parts).chunks()]

    pieces = asyncio.run(scene())
    assert b"".join(pieces) == data[:1_400_000] + b"between" + data[1_500_000:1_500_001] + data[2_000_000:]
    assert {len(piece) for piece in pieces[:-1]} == {512 * 1024}


def test_a_spliced_blob_outlives_what_it_was_cut_from() -> None:
    before = open_files()
    source, _ = asyncio.run(spooled([b"0123456789"], 0))
    blob = SplicedBlob(source, [slice(2, 5)])
    assert isinstance(source, FileBlob)
    source.close()
    assert blob.read() == b"234"
    blob.close()
    with pytest.raises(ValueError, match="closed"):
        blob.read()
    assert open_files() == before


def test_any_blob_can_be_looked_at() -> None:
    class Strange:
        size, in_memory = 3, True

        def read(self) -> bytes:
            return b"abc"

    assert view_of(Strange()) == b"abc"  # type: ignore[arg-type]
    assert isinstance(view_of(asyncio.run(spooled([b"abc"], 0))[0]), mmap.mmap)


def filled(room: Room, size: int, directory: Path) -> Spool:
    spool = Spool(1_000_000, directory, room=room)
    for _ in range(0, size, 50_000):
        spool.write(bytes(50_000))
    return spool


def test_what_is_in_memory_is_taken_from_the_room_for_as_long_as_it_lives(tmp_path: Path) -> None:
    room = Room(1_500_000)
    spool = filled(room, 300_000, tmp_path)
    assert room.left == 500_000
    blob, _ = spool.finish()
    assert blob.in_memory
    assert room.left == 1_200_000
    del blob
    gc.collect()
    assert room.left == 1_500_000


def test_without_room_even_a_small_upload_goes_to_disk(tmp_path: Path) -> None:
    room = Room(1_500_000)
    first, second = filled(room, 300_000, tmp_path), filled(room, 300_000, tmp_path)
    blob, _ = second.finish()
    assert not blob.in_memory
    assert len(blob.read()) == 300_000
    first.discard()
    assert room.left == 1_500_000


def test_what_is_small_needs_no_room_and_what_is_large_gives_it_back(tmp_path: Path) -> None:
    room = Room(1_500_000)
    small, _ = filled(room, 50_000, tmp_path).finish()
    large, _ = filled(room, 1_200_000, tmp_path).finish()
    assert (small.in_memory, large.in_memory) == (True, False)
    assert room.left == 1_500_000
