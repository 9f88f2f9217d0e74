"""GET and HEAD /files/{key} through a real HTTP stack in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from app.api.files import files_router
from app.errors import GatewayError
from app.storage.base import Storage, StorageError, Stored
from app.storage.local import LocalStorage
from tests.storage.contract import BAD_KEYS, NOW, SECRET, Clock
from tests.storage.test_objects import objects

PICTURE = b"\x89PNG" + bytes(range(256)) * 8  # 2052 bytes


class House:
    """A gateway that has but one picture."""

    def __init__(self, store: Storage, clock: Clock) -> None:
        self.clock = clock
        self.store = store
        self.key = asyncio.run(
            self.store.put(PICTURE, content_type="image/png", extension="png", expires_at=NOW + 3600)
        )
        self.url = self.store.sign(self.key, NOW + 600)
        self.app = FastAPI(redirect_slashes=False)
        self.app.include_router(files_router(self.store, self.clock))

        @self.app.exception_handler(GatewayError)
        async def render(request: Request, error: GatewayError) -> Response:
            return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client

    def ask(self, url: str | None = None, method: str = "GET", **headers: str) -> httpx2.Response:
        async def run() -> httpx2.Response:
            async with self.client() as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, url or self.url, headers=named)

        return asyncio.run(run())


@pytest.fixture(params=["local", "objects"])
def house(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> House:
    clock = Clock()
    if request.param == "local":
        return House(LocalStorage(tmp_path, [SECRET], clock), clock)
    return House(objects(request.getfixturevalue("s3").url, prefix, tmp_path, clock), clock)


def test_a_picture_comes_with_headers_that_make_it_harmless(house: House) -> None:
    answer = house.ask()
    assert (answer.status_code, answer.content) == (200, PICTURE)
    headers = dict(answer.headers)
    assert headers.pop("etag") == f'"{house.key[:40]}"'
    assert headers == {
        "content-type": "image/png",
        "content-length": "2052",
        "content-disposition": f'inline; filename="{house.key}"',
        "cache-control": "private, max-age=600, immutable",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "access-control-allow-origin": "*",
    }


def test_the_cache_lives_no_longer_than_the_url(house: House) -> None:
    house.clock.now = NOW + 599.5
    assert "max-age=0," in house.ask().headers["cache-control"]
    house.clock.now = NOW + 650  # in the time of grace
    assert "max-age=0," in house.ask().headers["cache-control"]


def test_head_says_what_get_would(house: House) -> None:
    get, head = house.ask(), house.ask(method="HEAD", range="bytes=0-1")  # a range means nothing to HEAD
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, 2052),
        ("bytes=-100", 1952, 2052),
        ("bytes=-99999", 0, 2052),
        ("bytes=2051-2051", 2051, 2052),
        ("bytes=2000-99999", 2000, 2052),
        ("bytes=0-999999999999999999", 0, 2052),
        ("Bytes= 5-6 ", 5, 7),
    ],
)
def test_one_range_is_answered(house: House, header: str, start: int, end: int) -> None:
    answer = house.ask(range=header)
    assert answer.status_code == 206
    assert answer.content == PICTURE[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/2052"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "header", ["bytes=2052-", "bytes=9999-10000", "bytes=-0", "bytes=0-1,3-4", "bytes=0-1, -5", "bytes=,"]
)
def test_ranges_that_cannot_be_answered(house: House, header: str) -> None:
    answer = house.ask(range=header)
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == "bytes */2052"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "items=0-1",
        "bytes=0x1-2",
        "bytes=1--2",
        "bytes=" + "9" * 5000,
    ],
)
def test_ranges_that_are_none_are_ignored(house: House, header: str) -> None:
    answer = house.ask(range=header)
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert "content-range" not in answer.headers


def test_a_range_holds_only_for_the_picture_that_it_was_meant_for(house: House) -> None:
    etag = f'"{house.key[:40]}"'
    assert house.ask(range="bytes=0-1", if_range=etag).status_code == 206
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert house.ask(range="bytes=0-1", if_range=other).status_code == 200


def test_what_the_browser_has_is_not_sent_again(house: House) -> None:
    etag = f'"{house.key[:40]}"'
    for header in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        for method in ("GET", "HEAD"):
            answer = house.ask(method=method, if_none_match=header)
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == etag
            assert answer.headers["cache-control"] == "private, max-age=600, immutable"
    assert house.ask(if_none_match='"x"').status_code == 200


def test_a_forged_url_is_refused(house: House) -> None:
    exp, sig = house.url.partition("?")[2].split("&")
    for forged in (
        f"/files/{house.key}",
        house.url[:-1],
        house.url[:-1] + ("A" if house.url[-1] != "A" else "B"),
        house.url.replace(exp, "exp=1764099999"),
        f"{house.url}&{sig}",
        f"{house.url}&x=1",
        f"/files/{house.key}?{sig}&{exp}",
        house.url.replace(".png", ".gif"),
        house.url.replace("sig=", "sig=%").replace("%", f"%{ord(sig[4]):02X}", 1)[: len(house.url) + 3],
    ):
        for method in ("GET", "HEAD"):
            answer = house.ask(forged, method)
            assert answer.status_code == 403, forged
        assert house.ask(forged).json()["error"]["code"] == "invalid_signature"
        assert house.ask(forged, if_none_match="*").status_code == 403


def test_an_escaped_spelling_of_a_key_is_not_what_was_signed(house: House) -> None:
    escaped = house.url.replace("/files/" + house.key[0], f"/files/%{ord(house.key[0]):02x}", 1)
    assert house.ask(escaped).status_code == 404


def test_an_expired_url_is_gone(house: House) -> None:
    house.clock.now = NOW + 661
    answer = house.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "expired")
    assert house.ask(if_none_match="*").status_code == 410


def test_a_picture_that_is_not_there_is_not_found(house: House) -> None:
    asyncio.run(house.store.delete(house.key))
    answer = house.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("key", [key for key in BAD_KEYS if key.isascii() and key.isprintable()])
def test_what_is_no_key_is_not_found(house: House, key: str) -> None:
    for query in ("", "?" + house.url.partition("?")[2]):
        assert house.ask(f"/files/{key}{query}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/files/", "/files", "/files/a/b", "/files/..%2f..%2fetc%2fpasswd", "/files/%00", "/files/%ff"]
)
def test_there_is_no_listing_and_no_way_up(house: House, path: str) -> None:
    assert house.ask(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_pictures_can_only_be_read(house: House, method: str) -> None:
    assert house.ask(method=method).status_code == 405


async def broken(start: int, end: int) -> AsyncGenerator[bytes, None]:
    if start < end:
        raise StorageError("disk on fire at /dev/sda")
    yield b""


def test_a_broken_disk_is_an_error_and_not_half_a_picture(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = house.store.open

    async def open_broken(key: str) -> Stored:
        return replace(await opened(key), chunks=broken)

    async def cannot_open(key: str) -> Stored:
        raise StorageError("disk on fire at /dev/sda")

    for attempt in (open_broken, cannot_open):
        monkeypatch.setattr(house.store, "open", attempt)
        answer = house.ask()
        assert answer.status_code == 503
        assert "sda" not in answer.text


def test_the_file_is_closed_when_the_client_leaves(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    async def endless(start: int, end: int) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    opened = house.store.open

    async def open_endless(key: str) -> Stored:
        return replace(await opened(key), chunks=endless)

    monkeypatch.setattr(house.store, "open", open_endless)

    async def run() -> None:
        path, _, query = house.url.partition("?")
        scope: dict[str, object] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "headers": [],
        }
        scope |= {"query_string": query.encode(), "asgi": {"spec_version": "2.3"}, "http_version": "1.1"}
        sent = 0

        async def receive() -> dict[str, object]:
            while sent < 5:
                await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            nonlocal sent
            sent += 1

        await asyncio.wait_for(house.app(scope, receive, send), 5)

    asyncio.run(run())
    assert closed == [True]


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
def test_a_picture_that_breaks_off_is_cut_and_never_ended(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spec: str
) -> None:
    async def breaking(start: int, end: int) -> AsyncGenerator[bytes, None]:
        yield b"x"
        raise StorageError("disk on fire at /dev/sda")

    opened = house.store.open

    async def open_breaking(key: str) -> Stored:
        return replace(await opened(key), chunks=breaking)

    monkeypatch.setattr(house.store, "open", open_breaking)
    sent: list[dict[str, object]] = []

    async def run() -> None:
        path, _, query = house.url.partition("?")
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
        scope |= {"query_string": query.encode(), "asgi": {"spec_version": spec}, "http_version": "1.1"}

        async def receive() -> dict[str, object]:
            await asyncio.sleep(10)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await house.app(scope, receive, send)

    asyncio.run(run())
    assert sent[0]["status"] == 200
    assert [message.get("body") for message in sent[1:]] == [b"x"]
    assert sent[-1]["more_body"] is True  # which the server answers by closing the connection
    assert "broke off" in caplog.text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match_goes_before_a_range(house: House, method: str) -> None:
    answer = house.ask(method=method, if_none_match=f'"{house.key[:40]}"', range="bytes=0-1")
    assert (answer.status_code, answer.content) == (304, b"")
    assert "content-range" not in answer.headers
    assert "content-length" not in answer.headers or answer.headers["content-length"] == "2052"


def test_an_unsatisfiable_range_says_how_long_the_picture_is_and_keeps_the_validator(house: House) -> None:
    answer = house.ask(range="bytes=9999-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2052")
    assert answer.headers["etag"] == f'"{house.key[:40]}"'
    assert house.ask(range="bytes=9999-", if_range='"other"').status_code == 200  # the range is ignored then
