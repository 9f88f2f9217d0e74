"""A directory of pictures: it passes the contract, survives what disks do, and keeps to its budget."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidSignature, NotFound
from app.storage import draft
from app.storage.base import StorageError
from app.storage.keys import is_key, place_of
from app.storage.local import CHUNK_BYTES, LocalStorage
from tests.storage.contract import (
    BAD_KEYS,
    NOW,
    PNG,
    SECRET,
    Clock,
    Kept,
    StorageContract,
    content,
    pieces,
    put,
    query,
    read,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> LocalStorage:
    return LocalStorage(tmp_path, [SECRET], clock)


@pytest.fixture
def named(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    """A store where files cannot be nameless, such as on NFS."""
    unsupported = OSError(95, "Operation not supported")

    def link(*_: object, **__: object) -> None:
        raise unsupported

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link)
        return LocalStorage(tmp_path, [SECRET], clock)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


class TestLocal(StorageContract):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> LocalStorage:
        return LocalStorage(tmp_path, [SECRET], clock)

    @pytest.fixture
    def kept(self, tmp_path: Path) -> Kept:
        return lambda: {path.name for path in files(tmp_path)}


class TestLocalWithNames(TestLocal):
    """As on a file system without nameless files."""

    @pytest.fixture
    def store(self, named: LocalStorage) -> LocalStorage:
        return named


class TestLocalWithABudget(TestLocal):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> LocalStorage:
        return LocalStorage(tmp_path, [SECRET], clock, budget_bytes=1 << 30)


def test_a_picture_is_a_file_for_us_alone(store: LocalStorage, tmp_path: Path) -> None:
    stored = asyncio.run(store.open(put(store)))
    assert stored.path is not None
    assert stored.path.read_bytes() == PNG
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600
    assert files(tmp_path) == [stored.path]


def test_a_restart_loses_nothing(store: LocalStorage, tmp_path: Path, clock: Clock) -> None:
    keys = [put(store), put(store, expires_at=None)]
    for path in files(tmp_path):
        os.utime(path, (0, 0))  # as a copy or a restore would
    again = LocalStorage(tmp_path, [SECRET], clock)
    for key, expires_at in zip(keys, (NOW + 3600, None), strict=True):
        assert read(again, key) == PNG
        assert asyncio.run(again.open(key)).expires_at == expires_at


def test_a_picture_that_shrank_is_an_error_not_a_short_picture(store: LocalStorage) -> None:
    async def run() -> None:
        key = await store.put(bytes(3 << 20), content_type="image/png", extension="png", expires_at=None)
        stored = await store.open(key)
        assert stored.path is not None
        stored.path.write_bytes(b"short")
        with pytest.raises(StorageError):
            [chunk async for chunk in stored.chunks(0, stored.size)]

    asyncio.run(run())


def test_open_files_are_closed_with_their_last_reader(store: LocalStorage, tmp_path: Path) -> None:
    def opened() -> list[str]:
        targets = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [target for target in targets if target.startswith(str(tmp_path))]

    async def run() -> None:
        key = await store.put(bytes(3 << 20), content_type="image/png", extension="png", expires_at=None)
        for _ in range(5):
            stored = await store.open(key)  # and not read, as for HEAD
            chunks = stored.chunks(0, stored.size)
            await anext(chunks)
            assert opened()
            await chunks.aclose()
            del stored, chunks
        async with asyncio.timeout(10):
            while opened():  # the thread that read last lets go in its own time
                await asyncio.sleep(0.01)

    asyncio.run(run())


# ---- whole or not at all


@pytest.mark.parametrize("call", ["os.fsync", "os.link", "os.open", "os.write"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_full_disk_leaves_nothing_and_recovers(
    store: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, stream: bool
) -> None:
    assert_a_full_disk_is_survived(store, tmp_path, monkeypatch, call, stream)


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "os.open", "os.write"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_full_disk_leaves_nothing_where_files_have_names(
    named: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, stream: bool
) -> None:
    assert_a_full_disk_is_survived(named, tmp_path, monkeypatch, call, stream)


def assert_a_full_disk_is_survived(
    store: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, stream: bool
) -> None:
    put(store)  # so that the folder is there
    before = files(root)
    true = getattr(os, call.removeprefix("os."))

    def full(*arguments: object, **named: object) -> object:
        if call == "os.write" and arguments[1] == b"\0":  # how an event loop wakes itself
            return true(*arguments, **named)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(call, full)
        with pytest.raises(StorageError):
            put(store, pieces(PNG) if stream else PNG)
    assert files(root) == before
    assert read(store, put(store)) == PNG


@pytest.mark.parametrize("way", ["link", "replace"])
def test_the_name_appears_only_after_the_bytes_are_on_disk(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    store: LocalStorage = request.getfixturevalue("store" if way == "link" else "named")
    order: list[str] = []
    fsync, name = os.fsync, getattr(os, way)

    def spy_fsync(descriptor: int) -> None:
        order.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def spy_name(source: object, target: object, **named: object) -> None:
        name(source, target, **named)
        order.append("name")
        assert [path.read_bytes() for path in files(tmp_path) if is_key(path.name)] == [PNG]

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, way, spy_name)
    put(store)
    assert [step for step in order if step != "fsync folder"] == ["fsync file", "name"]
    assert order.index("fsync folder") < order.index("name")  # the new folder, in its parent
    assert order[-1] == "fsync folder"


def test_a_folder_that_a_sweep_took_away_meanwhile_is_made_again(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def racing(source: str, target: str, *, dst_dir_fd: int) -> None:
        monkeypatch.setattr(os, "link", link)
        asyncio.run(store.delete_expired(NOW + 100_000))
        link(source, target, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", racing)
    assert read(store, put(store)) == PNG


def test_nameless_files_are_used_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draft.can_be_nameless(tmp_path)
    monkeypatch.delattr(os, "O_TMPFILE")  # as on a Mac
    assert not draft.can_be_nameless(tmp_path)
    assert files(tmp_path) == []


# ---- keys


@pytest.mark.parametrize("key", BAD_KEYS)
def test_what_is_no_key_of_ours_never_reaches_the_disk(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the disk was touched")

    for name in ("stat", "unlink", "open"):
        monkeypatch.setattr(Path, name, touched)
    monkeypatch.setattr(os, "open", touched)
    for attempt in (store.open, store.delete):
        with pytest.raises(NotFound):
            asyncio.run(attempt(key))


@given(st.text(max_size=60))
def test_no_text_leads_out_of_the_directory(text: str) -> None:
    root = Path("/nonexistent/root")
    try:
        path = root / place_of(text)
    except NotFound:
        return
    assert path.parent.parent == root


def test_secrets_can_be_changed_without_breaking_urls(tmp_path: Path, clock: Clock) -> None:
    old, new = b"o" * 32, b"n" * 32
    before = LocalStorage(tmp_path, [old], clock)
    key = put(before)
    from_before = query(before.sign(key, NOW + 600))
    between = LocalStorage(tmp_path, [new, old], clock)
    from_between = query(between.sign(key, NOW + 600))
    assert from_before != from_between
    between.verify(key, from_before)
    between.verify(key, from_between)
    after = LocalStorage(tmp_path, [new], clock)
    after.verify(key, from_between)
    with pytest.raises(InvalidSignature):
        after.verify(key, from_before)


@pytest.mark.parametrize("secrets", [[], [b""], [b"short"], [SECRET, b"short"]])
def test_a_weak_secret_stops_the_start(tmp_path: Path, clock: Clock, secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        LocalStorage(tmp_path, secrets, clock)


# ---- the sweep


def test_the_sweep_leaves_alone_what_is_not_ours(store: LocalStorage, tmp_path: Path) -> None:
    put(store, expires_at=NOW - 90_000)
    foreign = tmp_path / "5f000" / "notes.txt"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("not ours")
    (tmp_path / "lost+found").mkdir()
    assert asyncio.run(store.delete_expired(NOW)) == 1
    assert files(tmp_path) == [foreign]


def test_the_sweep_tidies_up_empty_folders(store: LocalStorage, tmp_path: Path) -> None:
    put(store, expires_at=NOW)
    assert asyncio.run(store.delete_expired(NOW + 2 * 3600)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert read(store, put(store)) == PNG


def test_the_sweep_takes_temporary_files_that_lost_their_writer(store: LocalStorage, tmp_path: Path) -> None:
    stale, fresh = tmp_path / "tmp" / "stale", tmp_path / "tmp" / "fresh"
    for path, age in ((stale, 3700), (fresh, 3500)):
        path.write_bytes(b"half")
        os.utime(path, (NOW - age, NOW - age))
    assert asyncio.run(store.delete_expired(NOW)) == 0
    assert files(tmp_path) == [fresh]


def test_one_bad_file_does_not_stop_the_sweep(
    store: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [put(store, expires_at=NOW - 7200) for _ in range(3)]
    unlink = Path.unlink

    def stubborn(path: Path, missing_ok: bool = False) -> None:
        if path.name == keys[1]:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stubborn)
    assert asyncio.run(store.delete_expired(NOW)) == 2
    assert [path.name for path in files(tmp_path)] == [keys[1]]
    assert keys[1] in caplog.text


# ---- the budget


def held(root: Path) -> int:
    return sum(path.stat().st_size for path in files(root))


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_put_beyond_the_budget(tmp_path: Path, clock: Clock, stream: bool) -> None:
    store = LocalStorage(tmp_path, [SECRET], clock, budget_bytes=10_000_000)
    keys = [put(store, bytes(3_000_000)) for _ in range(3)]
    with pytest.raises(StorageError, match=r"storage\.budget_bytes"):
        put(store, pieces(*[bytes(600_000)] * 5) if stream else bytes(3_000_000))
    assert {path.name for path in files(tmp_path)} == set(keys)
    assert len(read(store, put(store, bytes(1_000_000)))) == 1_000_000  # to the last byte
    asyncio.run(store.delete(keys[0]))
    put(store, bytes(3_000_000))


def test_the_budget_holds_for_puts_at_once(tmp_path: Path, clock: Clock) -> None:
    store = LocalStorage(tmp_path, [SECRET], clock, budget_bytes=10_000_000)

    async def run() -> list[str | BaseException]:
        puts = (
            store.put(
                bytes(1_500_000) if n % 2 else pieces(*[bytes(500_000)] * 3),
                content_type="image/png",
                extension="png",
                expires_at=NOW,
            )
            for n in range(20)
        )
        return await asyncio.gather(*puts, return_exceptions=True)

    made = [one for one in asyncio.run(run()) if isinstance(one, str)]
    assert {path.name for path in files(tmp_path)} == set(made)
    assert 0 < held(tmp_path) <= 10_000_000
    assert store.free_bytes() == 10_000_000 - held(tmp_path)


@pytest.mark.parametrize("stream", [False, True])
def test_a_put_that_is_given_up_gives_its_room_back(tmp_path: Path, clock: Clock, stream: bool) -> None:
    store = LocalStorage(tmp_path, [SECRET], clock, budget_bytes=100_000_000)

    async def run() -> None:
        for n in range(30):
            data = pieces(*[bytes(1 << 20)] * 3) if stream else bytes(3 << 20)
            putting = asyncio.create_task(store.put(data, content_type="image/png", extension="png", expires_at=NOW))
            await asyncio.sleep(n / 10_000)
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)

    asyncio.run(run())  # which waits for its threads
    assert all(path.stat().st_size == 3 << 20 for path in files(tmp_path))
    asyncio.run(store.delete_expired(NOW))
    assert store.free_bytes() == 100_000_000 - held(tmp_path)


def test_what_has_expired_makes_room(tmp_path: Path, clock: Clock) -> None:
    store = LocalStorage(tmp_path, [SECRET], clock, budget_bytes=10_000_000)
    for _ in range(3):
        put(store, bytes(3_000_000), expires_at=NOW + 10)
    clock.now = NOW + 100
    key = put(store, bytes(9_000_000))
    assert [path.name for path in files(tmp_path)] == [key]


def test_nothing_is_promised_that_is_left_for_what_was_bought(tmp_path: Path, clock: Clock) -> None:
    store = LocalStorage(tmp_path, [SECRET], clock, reserve_bytes=1 << 30, budget_bytes=10_000_000)
    assert store.free_bytes() == 9_500_000  # of a small budget, 5 %
    put(store, bytes(9_500_000))
    assert store.free_bytes() == 0
    put(store, bytes(400_000))  # it was bought before


def test_a_start_and_a_sweep_count_what_is_there(tmp_path: Path, clock: Clock) -> None:
    put(LocalStorage(tmp_path, [SECRET], clock), bytes(4_000_000))
    store = LocalStorage(tmp_path, [SECRET], clock, budget_bytes=10_000_000)
    assert store.free_bytes() == 6_000_000
    another = put(LocalStorage(tmp_path, [SECRET], clock), bytes(5_000_000))
    asyncio.run(store.delete_expired(NOW))
    assert store.free_bytes() == 1_000_000
    store.path(another).unlink()
    asyncio.run(store.delete_expired(NOW))
    assert store.free_bytes() == 6_000_000


def test_a_small_picture_is_read_in_one_go(store: LocalStorage) -> None:
    async def hops(size: int) -> int:
        key = await store.put(bytes(size), content_type="image/png", extension="png", expires_at=None)
        loop = asyncio.get_running_loop()
        asked: list[object] = []
        run = loop.run_in_executor
        loop.run_in_executor = lambda *call: (asked.append(call), run(*call))[1]  # type: ignore[method-assign,assignment]
        assert len(await content(store, key)) == size
        return len(asked)

    assert asyncio.run(hops(CHUNK_BYTES)) == 1
    assert asyncio.run(hops(CHUNK_BYTES + 1)) == 3
