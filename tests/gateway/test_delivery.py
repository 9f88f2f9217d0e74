"""When the provider's own URL is the answer, and when the picture is fetched and kept here."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from PIL import Image

from app.config import Limits, Results
from app.delivery import Deliverer
from app.errors import GatewayError, Overloaded, ProviderBadResponse
from app.media.blob import MemoryBlob
from app.media.download import Downloaded, FetchFailed, Reason
from app.media.pixels import Pixels
from app.media.pool import MediaPool
from app.storage.local import LocalStorage
from app.types import Artefact, Delivery
from providers.base import ResultImage
from providers.testing.clock import FakeClock
from tests.fakes.provider import png
from tests.media.pictures import sample

URL = "https://v3.fal.media/files/a/b.png"


T = TypeVar("T")


class FakeDownloader:
    """Serves one body, and remembers what was asked of it."""

    def __init__(self, body: bytes, *, failures: int = 0, transient: bool = True) -> None:
        self.body = body
        self.failures = failures
        self.transient = transient
        self.asked: list[str] = []

    async def peek(self, url: str, *, size: int, timeout: float) -> bytes:
        self.asked.append("peek")
        self._fail()
        return self.body[:size]

    async def fetch(self, url: str, *, max_bytes: int, timeout: float) -> Downloaded:
        self.asked.append("fetch")
        self._fail()
        return Downloaded(MemoryBlob(self.body), content_type="image/png")

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise FetchFailed(Reason.UNREACHABLE, "broke off", transient=self.transient)


class NoRoom(FakeDownloader):
    """There is no room for what it fetches."""

    async def fetch(self, url: str, *, max_bytes: int, timeout: float) -> Downloaded:
        raise Overloaded("There is no room to hold this upload at the moment.", retry_after=1)


class NoChild:
    """No picture child can be started."""

    async def run(self, pixels: Pixels[T], *, owed: bool = False) -> T:
        raise Overloaded("Pictures cannot be worked on at the moment.", retry_after=5)

    def close(self) -> None:
        pass


class Full(LocalStorage):
    """A disk without room."""

    def free_bytes(self) -> int:
        return 0


def delivered(
    tmp_path: Path,
    downloader: FakeDownloader,
    delivery: Delivery,
    image: ResultImage | None = None,
    results: Results | None = None,
    pool: MediaPool | None = None,
) -> Artefact:
    pool, clock = pool or MediaPool(), FakeClock()
    storage = LocalStorage(tmp_path, [b"s" * 32], lambda: 1000.0)
    deliverer = Deliverer(
        downloader,  # type: ignore[arg-type]
        pool,
        storage,
        Limits(),
        results or Results(),
        clock,
        lambda: 1000.0,
        Random(1),
    )
    made = image or ResultImage(URL, mime="image/jpeg", width=1, height=1)  # claims that are wrong
    try:
        return asyncio.run(deliverer.deliver(made, delivery, 0, clock.monotonic() + 60))
    finally:
        pool.close()


def test_a_url_is_handed_on_with_what_its_bytes_say(tmp_path: Path) -> None:
    downloader = FakeDownloader(png((64, 48)))
    artefact = delivered(tmp_path, downloader, Delivery(base_url="http://here"))
    assert (artefact.url, artefact.format, artefact.width, artefact.height) == (URL, "png", 64, 48)
    assert downloader.asked == ["peek"]


@pytest.mark.parametrize(
    "delivery",
    [
        Delivery(base_url="http://here", exact=(32, 24)),
        Delivery(base_url="http://here", format="webp", asked_format="png"),
        Delivery(base_url="http://here", format="jpeg", asked_format="jpeg"),  # asked for, but not what came
        Delivery(base_url="http://here", format="jpeg", quality=50),
    ],
)
def test_what_is_not_as_it_was_asked_for_is_fetched_and_kept(tmp_path: Path, delivery: Delivery) -> None:
    artefact = delivered(tmp_path, FakeDownloader(png((64, 48))), delivery)
    assert (artefact.url or "").startswith("http://here/files/")
    assert artefact.format == (delivery.format or "png")
    assert (artefact.width, artefact.height) == (delivery.exact or (64, 48))


def test_base64_is_fetched(tmp_path: Path) -> None:
    body = png((64, 48))
    artefact = delivered(tmp_path, FakeDownloader(body), Delivery(response_format="b64_json"))
    assert artefact.url is None
    with Image.open(io.BytesIO(artefact.blob.read() if artefact.blob else b"")) as picture:
        assert picture.size == (64, 48)


def test_an_operator_can_have_everything_kept(tmp_path: Path) -> None:
    artefact = delivered(
        tmp_path, FakeDownloader(png()), Delivery(base_url="http://here"), results=Results(delivery="store")
    )
    assert (artefact.url or "").startswith("http://here/files/")


@pytest.mark.parametrize("url", ["http://v3.fal.media/a.png", "https://127.0.0.1/a.png", "https://intranet/a.png"])
def test_a_url_that_not_everybody_can_open_is_not_handed_on(tmp_path: Path, url: str) -> None:
    downloader = FakeDownloader(png())
    artefact = delivered(tmp_path, downloader, Delivery(base_url="http://here"), ResultImage(url))
    assert (artefact.url or "").startswith("http://here/files/")
    assert downloader.asked == ["fetch"]


def test_a_look_that_fails_is_followed_by_a_fetch_and_hiccups_by_another(tmp_path: Path) -> None:
    downloader = FakeDownloader(png(), failures=3)
    artefact = delivered(tmp_path, downloader, Delivery(base_url="http://here"))
    assert (artefact.url or "").startswith("http://here/files/")
    assert downloader.asked == ["peek", "fetch", "fetch", "fetch"]


def test_a_picture_that_does_not_come_is_an_error_that_no_repeat_mends(tmp_path: Path) -> None:
    with pytest.raises(GatewayError) as caught:
        delivered(tmp_path, FakeDownloader(png(), failures=99), Delivery())
    assert (caught.value.code, caught.value.should_retry) == ("provider_unavailable", False)


@pytest.mark.parametrize("body", [b"<html>", png()[:60], b""])
def test_what_is_no_picture_is_a_bad_response(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ProviderBadResponse):
        delivered(tmp_path, FakeDownloader(body), Delivery(response_format="b64_json"))


def test_without_room_nothing_is_bought_that_would_have_to_be_kept(tmp_path: Path) -> None:
    nothing: Any = None
    storage = Full(tmp_path, [b"s" * 32], lambda: 0.0)
    deliverer = Deliverer(nothing, nothing, storage, Limits(), Results(), FakeClock(), lambda: 0.0, Random(1))
    with pytest.raises(Overloaded) as caught:
        deliverer.check_room(Delivery(response_format="url"))
    assert caught.value.retry_after == 60
    deliverer.check_room(Delivery(response_format="b64_json"))


@pytest.mark.parametrize("trouble", ["no room", "no child"])
def test_trouble_of_our_own_with_what_is_paid_for_does_not_invite_to_buy_it_again(tmp_path: Path, trouble: str) -> None:
    downloader = NoRoom(sample("png")) if trouble == "no room" else FakeDownloader(sample("png"))
    with pytest.raises(Overloaded) as caught:
        delivered(tmp_path, downloader, Delivery(format="webp"), pool=MediaPool(workers=NoChild()))
    assert (caught.value.should_retry, caught.value.tells_charge) == (False, True)
