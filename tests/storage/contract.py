"""What every store has to do. A store passes when a class with these tests and its own `store` does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from app.errors import Expired, InvalidSignature, NotFound
from app.storage.base import Storage

NOW = 1_764_000_123.0
SECRET = b"0" * 32
PNG = b"\x89PNG" + bytes(range(256)) * 20
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


Kept = Callable[[], set[str]]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def put(store: Storage, data: bytes | AsyncIterator[bytes] = PNG, expires_at: float | None = NOW + 3600) -> str:
    return asyncio.run(store.put(data, content_type="image/png", extension="png", expires_at=expires_at))


async def content(store: Storage, key: str, start: int = 0, end: int | None = None) -> bytes:
    stored = await store.open(key)
    return b"".join([chunk async for chunk in stored.chunks(start, stored.size if end is None else end)])


def read(store: Storage, key: str, start: int = 0, end: int | None = None) -> bytes:
    return asyncio.run(content(store, key, start, end))


async def pieces(*parts: bytes, fail: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if fail is not None:
        raise fail


def query(url: str) -> str:
    return url.partition("?")[2]


class StorageContract:
    """Needs the fixtures `store`, and `kept`: the keys that are really there."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    # ---- keeping

    def test_what_was_put_can_be_read(self, store: Storage, kept: Kept) -> None:
        key = put(store)
        stored = asyncio.run(store.open(key))
        assert (stored.size, stored.content_type, stored.expires_at) == (len(PNG), "image/png", NOW + 3600)
        assert (stored.key, stored.etag) == (key, f'"{key[:40]}"')
        assert read(store, key) == PNG
        assert kept() == {key}

    @pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 4 << 20, (8 << 20) + 1, 30 << 20])
    @pytest.mark.parametrize("stream", [False, True])
    def test_every_size_is_kept(self, store: Storage, kept: Kept, size: int, stream: bool) -> None:
        data = os.urandom(size)
        key = put(store, pieces(*(data[at : at + 700_000] for at in range(0, size, 700_000))) if stream else data)
        assert read(store, key) == data
        assert kept() == {key}

    @pytest.mark.parametrize("size", [5124, 9_000_000])
    def test_any_part_can_be_read(self, store: Storage, size: int) -> None:
        data = os.urandom(size)
        key = put(store, data)
        for start, end in ((0, 1), (3, 10), (0, size), (size - 1, size), (size // 2, size), (1, size - 1), (5, 5)):
            assert read(store, key, start, end) == data[start:end]

    def test_large_pictures_come_in_pieces(self, store: Storage) -> None:
        async def run() -> list[int]:
            key = await store.put(bytes(30 << 20), content_type="image/png", extension="png", expires_at=None)
            stored = await store.open(key)
            return [len(chunk) async for chunk in stored.chunks(5, stored.size)]

        sizes = asyncio.run(run())
        assert sum(sizes) == (30 << 20) - 5
        assert max(sizes) <= 4 << 20

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
    def test_the_extension_says_the_type(self, store: Storage, extension: str, content_type: str) -> None:
        key = asyncio.run(store.put(PNG, content_type=content_type, extension=extension, expires_at=None))
        assert re.fullmatch(rf"[0-9a-f]{{40}}\.{extension}", key)
        assert asyncio.run(store.open(key)).content_type == content_type

    @pytest.mark.parametrize(
        ("extension", "content_type"),
        [("html", "text/html"), ("svg", "image/svg+xml"), ("png", "image/jpeg"), ("", ""), ("../png", "image/png")],
    )
    def test_nothing_but_pictures_is_kept(self, store: Storage, kept: Kept, extension: str, content_type: str) -> None:
        with pytest.raises(ValueError, match="is no"):
            asyncio.run(store.put(PNG, content_type=content_type, extension=extension, expires_at=None))
        assert kept() == set()

    @pytest.mark.parametrize("expires_at", [0, -5, 2**32, 2**33])
    def test_a_time_that_no_key_can_carry_is_refused(self, store: Storage, expires_at: float) -> None:
        with pytest.raises(ValueError, match="no time"):
            put(store, expires_at=expires_at)

    def test_keys_are_random(self, store: Storage) -> None:
        keys = {put(store)[8:40] for _ in range(20)}
        assert len(keys) == 20
        assert all(len(bytes.fromhex(key)) * 8 == 128 for key in keys)

    def test_what_has_expired_is_not_there_even_before_a_sweep(self, store: Storage, clock: Clock) -> None:
        key = put(store, expires_at=NOW + 10)
        clock.now = NOW + 70
        assert read(store, key) == PNG  # the clock may be wrong by a minute
        clock.now = NOW + 71
        with pytest.raises(NotFound):
            asyncio.run(store.open(key))

    def test_deleting_is_final_and_repeatable(self, store: Storage, kept: Kept) -> None:
        key, other = put(store), put(store)
        for _ in range(2):
            asyncio.run(store.delete(key))
        assert kept() == {other}
        with pytest.raises(NotFound):
            asyncio.run(store.open(key))

    @pytest.mark.parametrize("size", [5000, 3_000_000])
    def test_a_picture_deleted_after_it_was_opened_is_whole_or_not_found(self, store: Storage, size: int) -> None:
        async def run() -> None:
            key = await store.put(bytes(size), content_type="image/png", extension="png", expires_at=None)
            stored = await store.open(key)
            await store.delete(key)
            with contextlib.suppress(NotFound):
                assert b"".join([chunk async for chunk in stored.chunks(0, size)]) == bytes(size)

        asyncio.run(run())

    def test_many_puts_at_once(self, store: Storage, kept: Kept) -> None:
        async def run() -> set[str]:
            pictures = [bytes([n]) * (n * 1000 + 1) for n in range(40)]
            keys = await asyncio.gather(
                *(
                    store.put(picture, content_type="image/png", extension="png", expires_at=NOW + n * 600)
                    for n, picture in enumerate(pictures)
                )
            )
            assert list(await asyncio.gather(*(content(store, key) for key in keys))) == pictures
            return set(keys)

        keys = asyncio.run(run())
        assert len(keys) == 40
        assert kept() == keys

    # ---- whole or not at all

    @pytest.mark.parametrize("size", [0, 100_000, 12 << 20])
    def test_a_stream_that_breaks_leaves_nothing(self, store: Storage, kept: Kept, size: int) -> None:
        with pytest.raises(RuntimeError, match="upstream"):
            put(store, pieces(bytes(size), fail=RuntimeError("upstream")))
        assert kept() == set()

    def test_a_put_that_is_cancelled_leaves_nothing(self, store: Storage, kept: Kept) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"a" * 1000
                await asyncio.sleep(0.001)

        async def run() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.put(endless(), content_type="image/png", extension="png", expires_at=None)

        asyncio.run(run())
        assert kept() == set()

    # ---- keys

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_what_is_no_key_is_not_found(self, store: Storage, key: str) -> None:
        for attempt in (store.open, store.delete):
            with pytest.raises(NotFound):
                asyncio.run(attempt(key))
        with pytest.raises(NotFound):
            store.sign(key, NOW)
        with pytest.raises(NotFound):
            store.expiry(key)
        with pytest.raises(NotFound):
            store.verify(key, "exp=1&sig=" + "A" * 43)

    def test_a_key_that_was_never_put_is_not_found(self, store: Storage) -> None:
        with pytest.raises(NotFound):
            asyncio.run(store.open(put(store)[:39] + "x.png"))
        for key in (f"{int(NOW) + 9:08x}" + "0" * 32 + ".png", "f" * 40 + ".png"):
            with pytest.raises(NotFound):
                asyncio.run(store.open(key))

    def test_a_key_tells_when_it_expires(self, store: Storage) -> None:
        assert store.expiry(put(store, expires_at=NOW + 0.4)) == int(NOW) + 1  # never shorter than promised
        assert store.expiry(put(store, expires_at=None)) is None

    # ---- signatures

    def test_a_signed_url_is_valid_until_it_expires(self, store: Storage, clock: Clock) -> None:
        key = put(store)
        signed = query(store.sign(key, NOW + 600))
        assert store.verify(key, signed) == NOW + 600
        clock.now = NOW + 660
        store.verify(key, signed)  # a minute of grace
        clock.now = NOW + 661
        with pytest.raises(Expired) as caught:
            store.verify(key, signed)
        assert (caught.value.status, caught.value.code) == (410, "expired")

    def test_any_changed_byte_breaks_the_signature(self, store: Storage) -> None:
        key, other = put(store), put(store)
        signed = query(store.sign(key, NOW + 600))
        for position in range(len(signed)):
            for replacement in ("A", "b", "0", "-", "=", "%", "\x00", "é"):
                forged = signed[:position] + replacement + signed[position + 1 :]
                if forged != signed:
                    with pytest.raises(InvalidSignature):
                        store.verify(key, forged)
        with pytest.raises(InvalidSignature):
            store.verify(other, signed)
        for position in range(40):
            forged_key = key[:position] + ("1" if key[position] == "0" else "0") + key[position + 1 :]
            with pytest.raises(InvalidSignature):
                store.verify(forged_key, signed)
        with pytest.raises(InvalidSignature):
            store.verify(key.replace(".png", ".gif"), signed)

    def test_any_other_form_of_the_query_is_refused(self, store: Storage) -> None:
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

    def test_a_url_is_relative_and_has_no_word_of_a_caller(self, store: Storage) -> None:
        parts = urlsplit(store.sign(put(store), NOW + 0.4))
        assert (parts.scheme, parts.netloc) == ("", "")
        assert parse_qs(parts.query)["exp"] == [str(int(NOW) + 1)]  # never shorter than promised

    def test_a_link_is_the_signed_url_on_its_base(self, store: Storage) -> None:
        key = put(store)
        assert asyncio.run(store.link(key, NOW + 600, "https://here")) == "https://here" + store.sign(key, NOW + 600)

    # ---- the sweep

    def test_the_sweep_takes_what_has_expired_and_nothing_else(self, store: Storage, kept: Kept) -> None:
        due = [put(store, expires_at=NOW + seconds) for seconds in (-90_000, -7200, -3600, -61.5)]
        stays = [put(store, expires_at=NOW + seconds) for seconds in (-59, 0, 1, 3600, 90_000)] + [
            put(store, expires_at=None)
        ]
        assert asyncio.run(store.delete_expired(NOW)) == len(due)
        assert kept() == set(stays)
        assert asyncio.run(store.delete_expired(NOW)) == 0

    def test_puts_and_sweeps_do_not_get_in_each_others_way(self, store: Storage, kept: Kept) -> None:
        async def run() -> None:
            async def putter(n: int) -> None:
                for _ in range(5):
                    key = await store.put(PNG, content_type="image/png", extension="png", expires_at=NOW + n * 100)
                    assert (await store.open(key)).size == len(PNG)

            async def sweeper() -> None:
                for _ in range(5):
                    await store.delete_expired(NOW)

            await asyncio.gather(*(putter(n) for n in range(6)), sweeper())

        asyncio.run(run())
        assert len(kept()) == 30

    def test_there_is_room_and_no_trouble(self, store: Storage) -> None:
        assert store.free_bytes() != 0
        assert store.trouble() is None
