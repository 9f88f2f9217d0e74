"""What adapters share: bodies with pictures spliced in, uploads that happen once, requests within limits."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.media.blob import MemoryBlob
from providers.base import Fault, Media, ProviderError
from providers.http import (
    Body,
    OncePerMedia,
    json_body,
    media_in,
    retry_after,
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


async def streamed(body: Body) -> bytes:
    return b"".join([piece async for piece in body])


def sent(body: Body) -> bytes:
    """What goes out, and as much as was said."""
    content = body.content if isinstance(body.content, bytes) else asyncio.run(streamed(body))
    assert len(content) == body.length
    return content


class TestJsonBody:
    def test_a_picture_stands_where_it_was(self) -> None:
        one, two = media(), media()
        payload = {"a": [one, "x", {"deep": (two, one)}], "b": two, "n": 1.5, "t": True, "z": None}
        texts = {one: b"data:one", two: b"https://two"}
        assert json.loads(sent(json_body(payload, texts))) == {
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
        assert json.loads(sent(json_body(payload, {}))) == json.loads(json.dumps(payload))

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
        assert json.loads(sent(json_body(payload, texts))) == json.loads(json.dumps(plain))

    def test_text_stays_text(self) -> None:
        one = media()
        prompt = 'a "quoted" \\ back\\\\slash \u2028 ünïcödé 🦊 \x00 </script> \n'
        assert json.loads(sent(json_body({"prompt": prompt, "i": one}, {one: b"x"}))) == {"prompt": prompt, "i": "x"}

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
    def test_what_json_cannot_carry_is_refused_without_repeating_it(self, value: Any) -> None:
        with pytest.raises(ProviderError) as caught:
            json_body({"prompt": value}, {})
        assert (caught.value.fault, caught.value.accepted) == (Fault.INVALID, False)

    def test_every_picture_is_found_once(self) -> None:
        one, two = media(), media()
        assert list(media_in({"a": [two, one], "b": {"c": two}, "d": "x", "e": (one,)})) == [two, one]

    def test_a_picture_without_a_url_is_a_data_uri(self) -> None:
        body = json_body({"image": media(b"\x00\xff", "image/webp"), "n": 1}, {})
        assert sent(body) == b'{"image":"data:image/webp;base64,AP8=","n":1}'

    @pytest.mark.parametrize("size", [1, 2, 3, 98_303, 98_304, 98_305, 500_000])
    @pytest.mark.parametrize("chunk", [1 << 20, 98_304, 70_001])
    def test_its_base64_does_not_depend_on_how_its_bytes_come(self, size: int, chunk: int) -> None:
        data = bytes(range(256)) * 2000

        class Coming:
            in_memory = False

            def __init__(self) -> None:
                self.size = size

            def read(self) -> bytes:
                raise AssertionError("it would be in memory as a whole")

            async def chunks(self) -> AsyncIterator[bytes]:
                for start in range(0, size, chunk):
                    yield data[start : min(start + chunk, size)]

        body = json_body([Media(Coming(), "image/png", 1, 1, "0" * 64)], {})
        assert sent(body) == b'["data:image/png;base64,' + base64.b64encode(data[:size]) + b'"]'

    @pytest.mark.anyio
    async def test_a_picture_that_cannot_be_read_is_sent_to_nobody(self) -> None:
        class Gone:
            size = 3
            in_memory = False

            def read(self) -> bytes:
                raise OSError

            async def chunks(self) -> AsyncIterator[bytes]:
                raise OSError("gone")
                yield b""

        error = await failure_of(streamed(json_body([Media(Gone(), "image/png", 1, 1, "0" * 64)], {})))
        assert (error.accepted, error.final) == (False, True)


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
