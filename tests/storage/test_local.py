"""A directory of pictures: whole or not there, found by nobody who was not told, gone when it is time."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Expired, InvalidSignature, NotFound
from app.storage.base import Storage, StorageError
from app.storage.local import CHUNK_BYTES, LocalStorage
from app.storage.secret import load_or_create_secret

NOW = 1_764_000_123.0
SECRET = b"0" * 32
PNG = b"\x89PNG" + bytes(range(256)) * 20


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> LocalStorage:
    return LocalStorage(tmp_path, [SECRET], clock)


def put(store: Storage, data: bytes | AsyncIterator[bytes] = PNG, expires_at: float | None = NOW + 3600) -> str:
    return asyncio.run(store.put(data, content_type="image/png", extension="png", expires_at=expires_at))


def read(store: Storage, key: str, start: int = 0, end: int | None = None) -> bytes:
    async def run() -> bytes:
        stored = await store.open(key)
        return b"".join([chunk async for chunk in stored.chunks(start, stored.size if end is None else end)])

    return asyncio.run(run())


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def query(url: str) -> str:
    return url.partition("?")[2]


# --- keeping ---


def test_what_was_put_can_be_read(store: LocalStorage, tmp_path: Path) -> None:
    key = put(store)
    stored = asyncio.run(store.open(key))
    assert (stored.size, stored.content_type, stored.expires_at) == (len(PNG), "image/png", NOW + 3600)
    assert read(store, key) == PNG
    assert read(store, key, 3, 10) == PNG[3:10]
    assert stored.path is not None
    assert stored.path.read_bytes() == PNG
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600
    assert files(tmp_path) == [stored.path]


def test_large_pictures_come_in_pieces(store: LocalStorage) -> None:
    data = os.urandom(CHUNK_BYTES * 2 + 17)

    async def run() -> list[int]:
        key = await store.put(data, content_type="image/png", extension="png", expires_at=None)
        stored = await store.open(key)
        return [len(chunk) async for chunk in stored.chunks(5, stored.size)]

    assert asyncio.run(run()) == [CHUNK_BYTES, CHUNK_BYTES, 12]


@pytest.mark.parametrize(
    ("extension", "content_type"),
    [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("webp", "image/webp"),
        ("gif", "image/gif"),
        ("avif", "image/avif"),
    ],
)
def test_the_extension_says_the_type(store: LocalStorage, extension: str, content_type: str) -> None:
    key = asyncio.run(store.put(PNG, content_type=content_type, extension=extension, expires_at=None))
    assert re.fullmatch(rf"[0-9a-f]{{40}}\.{extension}", key)
    assert asyncio.run(store.open(key)).content_type == content_type


@pytest.mark.parametrize(
    ("extension", "content_type"),
    [("html", "text/html"), ("svg", "image/svg+xml"), ("png", "image/jpeg"), ("", ""), ("../png", "image/png")],
)
def test_nothing_but_pictures_is_kept(store: LocalStorage, tmp_path: Path, extension: str, content_type: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        asyncio.run(store.put(PNG, content_type=content_type, extension=extension, expires_at=None))
    assert files(tmp_path) == []


def test_keys_are_random(store: LocalStorage) -> None:
    keys = {put(store)[8:40] for _ in range(50)}
    assert len(keys) == 50
    assert all(len(bytes.fromhex(key)) * 8 == 128 for key in keys)


def test_a_restart_loses_nothing(store: LocalStorage, tmp_path: Path, clock: Clock) -> None:
    keys = [put(store), put(store, expires_at=None)]
    for path in files(tmp_path):
        os.utime(path, (0, 0))  # as a copy or a restore would
    again = LocalStorage(tmp_path, [SECRET], clock)
    for key, expires_at in zip(keys, (NOW + 3600, None), strict=True):
        assert read(again, key) == PNG
        assert asyncio.run(again.open(key)).expires_at == expires_at


def test_what_has_expired_is_not_there_even_before_a_sweep(store: LocalStorage, clock: Clock) -> None:
    key = put(store, expires_at=NOW + 10)
    clock.now = NOW + 70
    assert read(store, key) == PNG  # the clock may be wrong by a minute
    clock.now = NOW + 71
    with pytest.raises(NotFound):
        asyncio.run(store.open(key))


def test_deleting_is_final_and_repeatable(store: LocalStorage, tmp_path: Path) -> None:
    key = put(store)
    for _ in range(2):
        asyncio.run(store.delete(key))
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        asyncio.run(store.open(key))


def test_a_picture_deleted_after_it_was_opened_is_not_found(store: LocalStorage) -> None:
    async def run() -> None:
        key = await store.put(PNG, content_type="image/png", extension="png", expires_at=None)
        stored = await store.open(key)
        await store.delete(key)
        with pytest.raises(NotFound):
            await anext(stored.chunks(0, stored.size))

    asyncio.run(run())


def test_a_picture_that_shrank_is_an_error_not_a_short_picture(store: LocalStorage) -> None:
    async def run() -> None:
        key = await store.put(PNG, content_type="image/png", extension="png", expires_at=None)
        stored = await store.open(key)
        assert stored.path is not None
        stored.path.write_bytes(b"short")
        with pytest.raises(StorageError):
            [chunk async for chunk in stored.chunks(0, stored.size)]

    asyncio.run(run())


def test_many_puts_at_once(store: LocalStorage, tmp_path: Path) -> None:
    async def run() -> None:
        pictures = [bytes([n]) * (n * 1000 + 1) for n in range(60)]
        keys = await asyncio.gather(
            *(
                store.put(picture, content_type="image/png", extension="png", expires_at=NOW + n * 600)
                for n, picture in enumerate(pictures)
            )
        )
        assert len(set(keys)) == 60
        for key, picture in zip(keys, pictures, strict=True):
            stored = await store.open(key)
            assert b"".join([chunk async for chunk in stored.chunks(0, stored.size)]) == picture

    asyncio.run(run())
    assert len(files(tmp_path)) == 60


def test_free_space_is_known(store: LocalStorage) -> None:
    assert store.free_bytes() > 0


# --- whole or not at all ---


async def pieces(*parts: bytes, fail: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if fail is not None:
        raise fail


def test_a_stream_is_kept_like_bytes(store: LocalStorage) -> None:
    assert read(store, put(store, pieces(b"a" * 100_000, b"", b"b" * 100_000))) == b"a" * 100_000 + b"b" * 100_000


def test_a_stream_that_breaks_leaves_nothing(store: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="upstream"):
        put(store, pieces(b"a" * 1_000_000, fail=RuntimeError("upstream")))
    assert files(tmp_path) == []


def test_a_put_that_is_cancelled_leaves_nothing(store: LocalStorage, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"a" * 1000
            await asyncio.sleep(0.001)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.put(endless(), content_type="image/png", extension="png", expires_at=None)

    asyncio.run(run())
    assert files(tmp_path) == []


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "os.open"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_full_disk_leaves_nothing_and_recovers(
    store: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, stream: bool
) -> None:
    put(store)  # so that the folder is there
    before = files(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(call, full)
        with pytest.raises(StorageError):
            put(store, pieces(PNG) if stream else PNG)
    assert files(tmp_path) == before
    assert read(store, put(store)) == PNG


def test_the_name_appears_only_after_the_bytes_are_on_disk(
    store: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        order.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def spy_replace(source: str, target: Path) -> None:
        replace(source, target)
        order.append("rename")
        assert Path(target).read_bytes() == PNG

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    put(store)
    assert order == ["fsync file", "rename", "fsync folder", "fsync folder"]  # the new folder's parent as well


# --- keys ---

BAD_KEYS = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "tmp/x",
    "0" * 40,
    "0" * 40 + ".html",
    "0" * 40 + ".png.html",
    "0" * 40 + ".png\n",
    "0" * 40 + ".png\x00",
    "0" * 40 + ".PNG",
    "0" * 39 + ".png",
    "0" * 41 + ".png",
    "A" * 40 + ".png",
    "g" * 40 + ".png",
    "٠" * 40 + ".png",
    "../" + "0" * 40 + ".png",
    "0" * 40 + ".png/",
    "0" * 40 + ".png/..",
    "0" * 8 + "../" + "0" * 29 + ".png",
    "x" * 5000,
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_what_is_no_key_of_ours_never_reaches_the_disk(
    store: LocalStorage, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the disk was touched")

    for name in ("stat", "unlink", "open"):
        monkeypatch.setattr(Path, name, touched)
    for attempt in (store.open, store.delete):
        with pytest.raises(NotFound):
            asyncio.run(attempt(key))
    with pytest.raises(NotFound):
        store.sign(key, NOW)
    with pytest.raises(NotFound):
        store.verify(key, "exp=1&sig=" + "A" * 43)


@given(st.text(max_size=60))
def test_no_text_leads_out_of_the_directory(text: str) -> None:
    root = Path("/nonexistent/root")
    store = LocalStorage.__new__(LocalStorage)
    store._root = root
    try:
        path = store._path(text)
    except NotFound:
        return
    assert path.parent.parent == root


# --- signatures ---


def test_a_signed_url_is_valid_until_it_expires(store: LocalStorage, clock: Clock) -> None:
    key = put(store)
    url = store.sign(key, NOW + 600)
    assert re.fullmatch(rf"/files/{key}\?exp=\d+&sig=[A-Za-z0-9_-]{{43}}", url)
    assert store.verify(key, query(url)) == NOW + 600
    clock.now = NOW + 660
    assert store.verify(key, query(url)) == NOW + 600  # 60 s of grace
    clock.now = NOW + 661
    with pytest.raises(Expired) as caught:
        store.verify(key, query(url))
    assert (caught.value.status, caught.value.code) == (410, "expired")


def test_a_clock_that_steps_back_does_not_matter(store: LocalStorage, clock: Clock) -> None:
    key = put(store)
    url = store.sign(key, NOW + 600)
    clock.now = NOW - 3600
    store.verify(key, query(url))


def test_any_changed_byte_breaks_the_signature(store: LocalStorage) -> None:
    key = put(store)
    signed = query(store.sign(key, NOW + 600))
    for position in range(len(signed)):
        for replacement in "0A_-=&%. \n\x00é":
            forged = signed[:position] + replacement + signed[position + 1 :]
            if forged != signed:
                with pytest.raises(InvalidSignature):
                    store.verify(key, forged)
    last = signed[-1]  # two bits of the last letter carry nothing: its neighbours decode to the same bytes
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if other != last:
            with pytest.raises(InvalidSignature):
                store.verify(key, signed[:-1] + other)
    for position in range(40):
        forged_key = key[:position] + ("1" if key[position] == "0" else "0") + key[position + 1 :]
        with pytest.raises(InvalidSignature):
            store.verify(forged_key, signed)
    with pytest.raises(InvalidSignature):
        store.verify(key.replace(".png", ".gif"), signed)


def test_any_other_form_of_the_query_is_refused(store: LocalStorage) -> None:
    key = put(store)
    signed = query(store.sign(key, NOW + 600))
    exp, sig = (parse_qs(signed)[name][0] for name in ("exp", "sig"))
    for forged in (
        "",
        f"exp={exp}",
        f"sig={sig}",
        f"sig={sig}&exp={exp}",
        f"{signed}&sig={sig}",
        f"{signed}&exp={exp}",
        f"exp={exp}&{signed}",
        f"{signed}&x=1",
        f"{signed}&",
        f"&{signed}",
        f"exp=0{exp}&sig={sig}",
        f"exp=+{exp}&sig={sig}",
        f"exp={exp}.0&sig={sig}",
        f"exp={int(exp) + 1}&sig={sig}",
        f"exp={'9' * 5000}&sig={sig}",
        f"exp={exp}&sig={sig}=",
        f"exp={exp}&sig=%{ord(sig[0]):02x}{sig[1:]}",
        f"exp={exp}&sig={sig.swapcase()}",
        f"EXP={exp}&SIG={sig}",
        signed.translate({ord(digit): ord("٠") + int(digit) for digit in "0123456789"}),
    ):
        with pytest.raises(InvalidSignature) as caught:
            store.verify(key, forged)
        assert (caught.value.status, caught.value.code) == (403, "invalid_signature")


def test_a_forged_expiry_is_a_forgery_and_not_an_expiry(store: LocalStorage) -> None:
    key = put(store)
    with pytest.raises(InvalidSignature):
        store.verify(key, "exp=1&sig=" + "A" * 43)


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


def test_a_url_is_relative_and_has_no_word_of_a_caller(store: LocalStorage) -> None:
    parts = urlsplit(store.sign(put(store), NOW + 0.4))
    assert (parts.scheme, parts.netloc) == ("", "")
    assert parse_qs(parts.query)["exp"] == [str(int(NOW) + 1)]  # never shorter than promised


# --- the sweep ---


def test_the_sweep_takes_what_has_expired_and_nothing_else(store: LocalStorage, tmp_path: Path) -> None:
    due = [put(store, expires_at=NOW + seconds) for seconds in (-90_000, -7200, -3600, -61.5)]
    stays = [put(store, expires_at=NOW + seconds) for seconds in (-59, 0, 1, 3600, 90_000)] + [
        put(store, expires_at=None)
    ]
    foreign = tmp_path / "5f000" / "notes.txt"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("not ours")
    (tmp_path / "lost+found").mkdir()
    assert asyncio.run(store.delete_expired(NOW)) == len(due)
    assert {path.name for path in files(tmp_path)} == {*stays, "notes.txt"}
    assert asyncio.run(store.delete_expired(NOW)) == 0


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


def test_puts_and_sweeps_do_not_get_in_each_others_way(store: LocalStorage, tmp_path: Path) -> None:
    async def run() -> None:
        async def putter(n: int) -> None:
            for _ in range(10):
                key = await store.put(PNG, content_type="image/png", extension="png", expires_at=NOW + n * 100)
                assert (await store.open(key)).size == len(PNG)

        async def sweeper() -> None:
            for _ in range(20):
                await store.delete_expired(NOW)

        await asyncio.gather(*(putter(n) for n in range(6)), sweeper())

    asyncio.run(run())
    assert len(files(tmp_path)) == 60


# --- the secret's file ---


def test_a_secret_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    secret = load_or_create_secret(path)
    assert len(secret) == 32
    assert load_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files(tmp_path) == [path]


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    async def run() -> set[bytes]:
        path = tmp_path / "secret"
        return set(await asyncio.gather(*(asyncio.to_thread(load_or_create_secret, path) for _ in range(16))))

    assert len(asyncio.run(run())) == 1
    assert files(tmp_path) == [tmp_path / "secret"]


def test_a_secret_can_be_made_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    secret = load_or_create_secret(tmp_path / "secret")
    assert load_or_create_secret(tmp_path / "secret") == secret
    assert files(tmp_path) == [tmp_path / "secret"]


@pytest.mark.parametrize("content", ["", "not hexadecimal", "abcd", "ä" * 64])
def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match="secret"):
        load_or_create_secret(path)
    assert path.read_text("utf-8") == content  # never replaced: it would break every URL that is out
