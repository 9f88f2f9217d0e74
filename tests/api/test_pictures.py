"""Pictures that callers send or point to: what is taken, what is refused by name, and what is never fetched."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from random import Random

import pytest
from PIL import Image

from tests.api.raw import DRY, EDITS, fields, file, form, post, refused
from tests.conftest import MODEL, Json, Served
from tests.fakes.sandbox import SandboxServer
from tests.media.pictures import SECRET, photo, sample, saved

PNG = sample("png")


class Canary:
    """Listens on loopback, and remembers that somebody came."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.visits = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def canary() -> Iterator[Canary]:
    bird = Canary()
    try:
        yield bird
    finally:
        bird.stop()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a.png",
        "https://127.0.0.1:{port}/a.png",
        "https://localhost:{port}/a.png",
        "https://[::1]:{port}/a.png",
        "https://[::ffff:127.0.0.1]:{port}/a.png",
        "https://2130706433:{port}/a.png",
        "https://0x7f.1:{port}/a.png",
        "https://127.0.0.1.:{port}/a.png",
        "https://user:secret@127.0.0.1:{port}/a.png",
        "https://example.com@127.0.0.1:{port}/a.png",
        "HTTPS://127.0.0.1:{port}",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://metadata.google.internal/",
    ],
)
def test_a_url_that_leads_inwards_is_refused_and_never_opened(gateway: Served, canary: Canary, url: str) -> None:
    url = url.format(port=canary.port)
    for body in ({"image_url": url}, {"images": [{"image_url": url}]}, {"image": url}):
        answer = gateway.post({"model": MODEL, "prompt": "a", **body}, DRY)
        message = refused(answer, 400, "invalid_image_url", next(iter(body)))
        assert "secret" not in message
    in_a_form = post(gateway, form(*fields(), file(content=url.encode())))
    refused(in_a_form, 400, "invalid_image_url", "image")
    mask = post(gateway, form(*fields(), file(), file("mask", url.encode())))
    refused(mask, 400, "invalid_image_url", "mask")
    assert canary.visits == 0


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_file_mimetype", id="SVG"),
        pytest.param(b"%PDF-1.7\n", "unsupported_file_mimetype", id="PDF"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_file_mimetype", id="EPS"),
        pytest.param(saved(photo(), "tiff"), "unsupported_file_mimetype", id="TIFF"),
        pytest.param(saved(photo(), "bmp"), "unsupported_file_mimetype", id="BMP"),
        pytest.param(b"PK\3\4" + b"\0" * 60, "unsupported_file_mimetype", id="ZIP"),
        pytest.param(b"<html><body>404</body></html>", "unsupported_file_mimetype", id="HTML"),
        pytest.param(b"\0" * 100, "unsupported_file_mimetype", id="zeros"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "invalid_image_file", id="only a PNG's magic"),
        pytest.param(PNG[:30], "invalid_image_file", id="PNG cut in its header"),
        pytest.param(cut(PNG), "invalid_image_file", id="half a PNG"),
        pytest.param(cut(sample("jpeg")), "invalid_image_file", id="half a JPEG"),
        pytest.param(b"\xff\xd8\xff" + b"\0" * 60, "invalid_image_file", id="only a JPEG's magic"),
    ],
)
def test_what_is_no_good_picture_is_refused_by_name(gateway: Served, content: bytes, code: str) -> None:
    message = refused(post(gateway, form(*fields(), file(content=content))), 400, code, "image")
    assert "Image 1" in message
    second = post(gateway, form(*fields(), file("image[]"), file("image[]", content)))
    assert "Image 2" in refused(second, 400, code, "image")


def test_more_pixels_than_allowed(gateway: Served) -> None:
    huge = saved(Image.new("1", (9_000, 6_000)), "png")
    refused(post(gateway, form(*fields(), file(content=huge))), 400, "image_too_large", "image")


def test_a_mask_of_another_size_is_refused(gateway: Served) -> None:
    wrong = sample("png", size=(48, 64))
    refused(post(gateway, form(*fields(), file(), file("mask", wrong))), 400, "invalid_value", "mask")
    refused(post(gateway, form(*fields(), file(), file("mask"), file("mask"))), 400, "too_many_images", "mask")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_what_a_camera_wrote_into_a_picture_stays_here(
    gateway: Served, new_jobs: Callable[[], list[Json]], format: str
) -> None:
    picture = sample(format, metadata=True)
    assert SECRET in picture
    answer = post(gateway, form(*fields(size="64x64", response_format="b64_json"), file(content=picture)), path=EDITS)
    assert answer.status_code == 200
    seen = new_jobs()[0]["payload"]["image_urls"][0]
    assert seen["bytes"] < len(picture)
    assert SECRET not in base64.b64decode(answer.json()["data"][0]["b64_json"])


def test_a_large_picture_goes_through_the_disk_and_is_uploaded_whole(gateway: Served, sandbox: SandboxServer) -> None:
    image = Image.frombytes("RGB", (1200, 900), Random(2).randbytes(1200 * 900 * 3))
    picture = saved(image, "png")
    assert len(picture) > 3_000_000
    before = sandbox.books()["upload_bytes"]
    answer = post(gateway, form(*fields(size="64x64"), file(content=picture)), path=EDITS)
    assert answer.status_code == 200
    assert sandbox.books()["upload_bytes"] - before == len(picture)
