"""What adapters share: bodies with pictures spliced in, uploads that happen once, requests within limits."""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import json
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.media.blob import MemoryBlob
from providers.base import Fault, Media, ProviderError
from providers.http import (
    OncePerMedia,
    data_uri,
    json_body,
    media_in,
    pieces,
    poll_intervals,
    retry_after,
    send,
    split_origins,
    together,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def media(data: bytes = b"picture", mime: str = "image/png") -> Media:
    return Media(MemoryBlob(data), mime, 1, 1, "0" * 64)


async def failure_of(work: Awaitable[Any]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await work
    return caught.value


class TestJsonBody:
    def test_a_picture_stands_where_it_was(self) -> None:
        one, two = media(), media()
        payload = {"a": [one, "x", {"deep": (two, one)}], "b": two, "n": 1.5, "t": True, "z": None}
        texts = {one: b"data:one", two: b"https://two"}
        assert json.loads(json_body(payload, texts)) == {
            "a": ["data:one", "x", {"deep": ["https://two", "data:one"]}],
            "b": "https://two",
            "n": 1.5,
            "t": True,
            "z": None,
        }

    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
        ),
        max_leaves=12,
    )

    @settings(deadline=None, database=None)
    @given(values)
    def test_without_pictures_it_is_json(self, payload: Any) -> None:
        assert json.loads(json_body(payload, {})) == json.loads(json.dumps(payload))

    @settings(deadline=None, database=None)
    @given(st.lists(values, min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1, max_size=6))
    def test_with_pictures_it_is_json_with_their_texts(self, around: list[Any], places: list[int]) -> None:
        pictures = [media() for _ in range(4)]
        texts = {one: f"data:image/png;base64,{index}AAA=".encode() for index, one in enumerate(pictures)}
        payload = {"around": around, "images": [pictures[place] for place in places], "again": pictures[places[0]]}
        plain = {
            "around": around,
            "images": [texts[pictures[place]].decode() for place in places],
            "again": texts[pictures[places[0]]].decode(),
        }
        assert json.loads(json_body(payload, texts)) == json.loads(json.dumps(plain))

    def test_text_stays_text(self) -> None:
        one = media()
        prompt = 'a "quoted" \\ back\\\\slash \u2028 ünïcödé 🦊 \x00 </script> \n'
        assert json.loads(json_body({"prompt": prompt, "i": one}, {one: b"x"})) == {"prompt": prompt, "i": "x"}

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
    def test_what_json_cannot_carry_is_refused_without_repeating_it(self, value: Any) -> None:
        with pytest.raises(ProviderError) as caught:
            json_body({"prompt": value}, {})
        assert (caught.value.fault, caught.value.accepted) == (Fault.INVALID, False)

    def test_every_picture_is_found_once(self) -> None:
        one, two = media(), media()
        assert list(media_in({"a": [two, one], "b": {"c": two}, "d": "x", "e": (one,)})) == [two, one]

    @pytest.mark.anyio
    async def test_a_data_uri_is_the_picture(self) -> None:
        assert await data_uri(media(b"\x00\xff", "image/webp")) == b"data:image/webp;base64,AP8="

    @pytest.mark.anyio
    async def test_a_spooled_picture_is_read_off_the_event_loop(self) -> None:
        class Spooled:
            size = 3
            in_memory = False

            def read(self) -> bytes:
                with pytest.raises(RuntimeError):
                    asyncio.get_running_loop()
                return b"abc"

            async def chunks(self) -> AsyncIterator[bytes]:
                yield b"abc"

        spooled = Media(Spooled(), "image/png", 1, 1, "0" * 64)
        assert await data_uri(spooled) == b"data:image/png;base64," + base64.b64encode(b"abc")
        assert [piece async for piece in pieces(spooled)] == [b"abc"]


class TestPollIntervals:
    @pytest.mark.parametrize(("job", "most"), [(0.5, 6), (2, 21), (10, 55), (60, 105), (300, 225)])
    def test_a_job_costs_few_looks(self, job: float, most: int) -> None:
        looks = next(number for number, at in enumerate(itertools.accumulate(poll_intervals()), 1) if at >= job)
        assert looks <= most

    @pytest.mark.parametrize("tenths", range(20, 400, 7))
    def test_and_hardly_any_delay(self, tenths: int) -> None:
        job = tenths / 10
        found = next(at for at in itertools.accumulate(poll_intervals()) if at >= job)
        assert found - job <= max(0.05 * job, 0.1) + 1e-9

    def test_never_longer_than_two_seconds(self) -> None:
        assert max(itertools.islice(poll_intervals(), 500)) == 2.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("0", 0.0), ("1.5", 1.5), ("-1", None), ("nan", None), ("inf", None), ("90000", None), ("", None)],
)
def test_retry_after_is_a_number_of_seconds_or_nothing(text: str, seconds: float | None) -> None:
    assert retry_after(httpx2.Headers({"Retry-After": text})) == seconds
    assert retry_after(httpx2.Headers({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})) is None
    assert retry_after(httpx2.Headers()) is None


def test_origins_are_split() -> None:
    assert split_origins(" http://127.0.0.1:9000/ ,,HTTPS://Cdn.Example") == {
        "http://127.0.0.1:9000",
        "https://cdn.example",
    }
    assert split_origins("") == frozenset()


@pytest.mark.anyio
class TestOncePerMedia:
    async def test_callers_share_one_making_and_its_result_stays(self) -> None:
        made: list[Media] = []

        async def make(one: Media) -> bytes:
            made.append(one)
            await asyncio.sleep(0.01)
            return one.blob.read()

        once, one, two = OncePerMedia(make), media(b"1"), media(b"2")
        assert await asyncio.gather(*(once.get(m) for m in (one, one, two, one))) == [b"1", b"1", b"2", b"1"]
        assert await once.get(one) == b"1"
        assert sorted(m.blob.read() for m in made) == [b"1", b"2"]

    async def test_a_caller_that_comes_in_the_moment_of_the_end_makes_nothing_new(self) -> None:
        gate, count = asyncio.Event(), 0

        async def make(one: Media) -> bytes:
            nonlocal count
            count += 1
            await gate.wait()
            asyncio.get_running_loop().call_soon(lambda: late.append(asyncio.ensure_future(once.get(picture))))
            return b"x"

        once, picture = OncePerMedia(make), media()
        late: list[asyncio.Future[bytes]] = []
        first = asyncio.ensure_future(once.get(picture))
        await asyncio.sleep(0)
        gate.set()
        assert await first == b"x"
        assert await late[0] == b"x"
        assert count == 1

    async def test_a_failure_reaches_all_who_wait_and_is_not_remembered(self) -> None:
        count = 0

        async def make(one: Media) -> bytes:
            nonlocal count
            count += 1
            await asyncio.sleep(0)
            if count == 1:
                raise ProviderError(Fault.UNAVAILABLE, "no")
            return b"x"

        once, picture = OncePerMedia(make), media()
        found = await asyncio.gather(*(once.get(picture) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [ProviderError] * 3
        assert await once.get(picture) == b"x"
        assert count == 2

    async def test_a_caller_that_comes_in_the_moment_of_a_failure_tries_anew(self) -> None:
        count = 0

        async def make(one: Media) -> bytes:
            nonlocal count
            count += 1
            if count == 1:
                await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(lambda: late.append(asyncio.ensure_future(once.get(picture))))
                raise ProviderError(Fault.UNAVAILABLE, "no")
            return b"x"

        once, picture = OncePerMedia(make), media()
        late: list[asyncio.Future[bytes]] = []
        first = await asyncio.gather(*(once.get(picture) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in first] == [ProviderError] * 3
        assert await late[0] == b"x"

    async def test_one_caller_that_leaves_does_not_stop_it(self) -> None:
        gate = asyncio.Event()

        async def make(one: Media) -> bytes:
            await gate.wait()
            return b"x"

        once, picture = OncePerMedia(make), media()
        first, second = (asyncio.ensure_future(once.get(picture)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert await second == b"x"

    async def test_when_the_last_caller_leaves_it_is_stopped_and_forgotten(self) -> None:
        before, stopped, count = asyncio.all_tasks(), 0, 0

        async def make(one: Media) -> bytes:
            nonlocal stopped, count
            count += 1
            if count == 2:
                return b"x"
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)  # closing a connection takes a moment
                stopped += 1
            return b""

        once, picture = OncePerMedia(make), media()
        callers = [asyncio.ensure_future(once.get(picture)) for _ in range(2)]
        await asyncio.sleep(0)
        for one in callers:
            one.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        assert stopped == 1
        assert asyncio.all_tasks() == before
        assert await once.get(picture) == b"x"

    async def test_a_failure_after_everybody_left_is_nobodys_error(self) -> None:
        async def make(one: Media) -> bytes:
            try:
                await asyncio.Event().wait()
            finally:
                raise ProviderError(Fault.UNAVAILABLE, "while stopping")

        once, picture = OncePerMedia(make), media()
        caller = asyncio.ensure_future(once.get(picture))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        del caller
        gc.collect()  # an exception never retrieved would be an error of this test

    async def test_it_forgets_a_picture_that_nobody_holds_any_more(self) -> None:
        async def make(one: Media) -> bytes:
            if one.mime == "image/gif":
                raise ProviderError(Fault.UNAVAILABLE, "no")
            return b"x"

        once, picture = OncePerMedia(make), media()
        await once.get(picture)
        assert len(once._made) == 1
        bad: Media | None = media(mime="image/gif")
        with pytest.raises(ProviderError):
            await once.get(bad)  # type: ignore[arg-type]
        del picture
        bad = None
        gc.collect()
        assert (len(once._made), len(once._making)) == (0, 0)


@pytest.mark.anyio
class TestTogether:
    async def test_results_in_order(self) -> None:
        async def after(seconds: float, value: int) -> int:
            await asyncio.sleep(seconds)
            return value

        assert await together(after(0.02, 1), after(0, 2)) == [1, 2]
        assert await together() == []

    async def test_the_first_failure_ends_the_others(self) -> None:
        before, ended = asyncio.all_tasks(), []

        async def long() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(1)

        async def bad() -> None:
            raise ProviderError(Fault.UNAVAILABLE, "no")

        with pytest.raises(ProviderError):
            await together(long(), bad(), long())
        assert (ended, asyncio.all_tasks()) == ([1, 1], before)


Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[str]:
    """A server that does with each connection what `peer` does; its URL."""
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        try:
            await peer(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_writers:
            writer.close()
        await asyncio.sleep(0.01)


def saying(*parts: bytes, pause: float = 0.0) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return peer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, verify=False, follow_redirects=True, timeout=0.1) as one:
        yield one


@pytest.mark.anyio
class TestSend:
    async def test_an_answer_is_read_whole(self, client: httpx2.AsyncClient) -> None:
        reply = b"HTTP/1.1 201 Created\r\nX-Y: z\r\nContent-Length: 8\r\n\r\n"
        async with listening(saying(reply, b'{"a":', b"[1]}"[:3])) as url:
            answer = await send(client, "GET", f"{url}/x?secret=1", seconds=5)
        assert (answer.status, answer.headers["x-y"], answer.json()) == (201, "z", None)
        assert answer.body == b'{"a":[1]'
        assert answer.asked == f"GET {url}/x"

    async def test_the_limit_is_on_the_whole_and_not_on_each_read(self, client: httpx2.AsyncClient) -> None:
        drops = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *([b"x"] * 100)]
        async with listening(saying(*drops, pause=0.05)) as url:
            began = time.monotonic()
            error = await failure_of(send(client, "GET", url, seconds=0.4))
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, None)
        assert 0.3 < time.monotonic() - began < 0.7

    async def test_the_clients_own_time_outs_do_not_cut_it_short(self, client: httpx2.AsyncClient) -> None:
        late = saying(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", pause=0.25)
        async with listening(late) as url:
            assert (await send(client, "GET", url, seconds=5)).status == 200

    async def test_no_answer_leaves_it_open(self, client: httpx2.AsyncClient) -> None:
        async with listening(silent) as url:
            error = await failure_of(send(client, "POST", url, seconds=0.2, content=b"x"))
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, None)

    async def test_a_server_that_cannot_be_reached_was_not_reached(self, client: httpx2.AsyncClient) -> None:
        error = await failure_of(send(client, "POST", "http://127.0.0.1:9/x", seconds=1))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)

    async def test_connecting_that_takes_too_long_did_not_reach_it_either(self) -> None:
        class Swallowing(httpx2.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                limits = request.extensions["timeout"]
                await asyncio.sleep(limits["connect"])
                assert limits["connect"] < limits["read"]
                raise httpx2.ConnectTimeout("no route", request=request)

        async with httpx2.AsyncClient(transport=Swallowing()) as client:
            error = await failure_of(send(client, "POST", "http://10.0.0.1/x", seconds=0.2))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)

    @pytest.mark.parametrize("length", [b"Content-Length: 5000\r\n", b""])
    async def test_an_answer_over_the_limit_is_refused(self, client: httpx2.AsyncClient, length: bytes) -> None:
        async with listening(saying(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", b"x" * 5000)) as url:
            error = await failure_of(send(client, "GET", url, seconds=5, limit=4000))
        assert (error.fault, error.final) == (Fault.MALFORMED, True)

    async def test_nothing_compressed_is_asked_for_and_a_bomb_is_cut(self, client: httpx2.AsyncClient) -> None:
        heard: list[bytes] = []
        bomb = zlib.compress(b"\0" * 50_000_000)

        async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(bomb))
            writer.write(bomb)
            await writer.drain()

        async with listening(peer) as url:
            error = await failure_of(send(client, "GET", url, seconds=5))
        assert error.fault is Fault.MALFORMED
        assert b"accept-encoding: identity" in heard[0].lower()

    async def test_redirects_are_not_followed_nor_cookies_returned(self, client: httpx2.AsyncClient) -> None:
        heard: list[bytes] = []

        async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        async with listening(peer) as url:
            for _ in range(2):
                assert (await send(client, "GET", url, seconds=5)).status == 307
        assert len(heard) == 2
        assert not any(b"cookie" in one.lower() for one in heard)

    @pytest.mark.parametrize(
        "reply",
        [
            b"",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 4\r\n\r\nnope",
        ],
    )
    async def test_a_broken_answer_leaves_it_open(self, client: httpx2.AsyncClient, reply: bytes) -> None:
        async with listening(saying(reply)) as url:
            error = await failure_of(send(client, "POST", url, seconds=5, content=b"x"))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, None)

    @pytest.mark.parametrize(
        "broken",
        [
            ssl.SSLError("bad record mac"),
            OSError("cable"),
            UnicodeError("label too long"),
            httpx2.ReadError("x"),
            httpx2.StreamClosed(),
            httpx2.InvalidURL("x"),
        ],
    )
    async def test_whatever_the_engine_raises_is_a_provider_error(self, broken: Exception) -> None:
        class Breaking(httpx2.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                raise broken

        async with httpx2.AsyncClient(transport=Breaking()) as client:
            error = await failure_of(send(client, "GET", "http://x.example/", seconds=1))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, None)

    @pytest.mark.parametrize("url", ["http://x.example/\n", "http://x:99999999/", "http://[::1", "http://"])
    async def test_an_address_that_is_none_reached_nobody(self, client: httpx2.AsyncClient, url: str) -> None:
        assert (await failure_of(send(client, "GET", url, seconds=1))).accepted is False

    @pytest.mark.parametrize("secret", ["Key a:b\nX: y", "Key schlüssel"])
    async def test_no_error_tells_a_header(self, client: httpx2.AsyncClient, secret: str) -> None:
        async with listening(silent) as url:
            error = await failure_of(send(client, "GET", url, seconds=1, headers={"Authorization": secret}))
        told = error.message + error.detail + str(error)
        assert "a:b" not in told
        assert "schl" not in told

    async def test_neither_query_nor_password_of_an_address_is_logged(self, client: httpx2.AsyncClient) -> None:
        url = "http://me:pass@127.0.0.1:9/path?X-Signature=abc"
        detail = (await failure_of(send(client, "GET", url, seconds=1))).detail
        assert detail.startswith("GET http://127.0.0.1:9/path: ")

    async def test_cancelling_closes_the_connection(self, client: httpx2.AsyncClient) -> None:
        gone = asyncio.Event()

        async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
            await writer.drain()
            await reader.read()
            gone.set()

        async with listening(peer) as url:
            asking = asyncio.ensure_future(send(client, "GET", url, seconds=30))
            await asyncio.sleep(0.1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(gone.wait(), 2)
