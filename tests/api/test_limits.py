"""Bodies that are too large, too slow, never end, or come without a key: answered at once, so that it can be read."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest

from app.config import Limits
from tests.api.raw import (
    BOUNDARY,
    DRY,
    EDITS,
    FORM,
    answer_of,
    connected,
    fields,
    file,
    form,
    head,
    is_closed,
    plan,
    post,
    refused,
    text,
)
from tests.conftest import KEY, MODEL, Served, StartGateway
from tests.media.pictures import saved

KIB = 1024
START = form(*fields(), end=b"") + b"--" + BOUNDARY + b"\r\n" + file()[0] + b"\r\n\r\n"  # a picture begins


@pytest.fixture(scope="session")
def tight(start_gateway: StartGateway) -> Served:
    """A gateway with small limits."""
    return start_gateway(
        IMAGEGATE_LIMITS_BODY_BYTES="300KiB",
        IMAGEGATE_LIMITS_JSON_BYTES="200KiB",
        IMAGEGATE_LIMITS_IMAGE_BYTES="100KiB",
        IMAGEGATE_LIMITS_FIELD_BYTES="10KiB",
        IMAGEGATE_LIMITS_SPOOL_BYTES="16KiB",
        IMAGEGATE_LIMITS_FIELDS="10",
        IMAGEGATE_LIMITS_IMAGES="2",
        IMAGEGATE_LIMITS_IMAGE_PIXELS="10000",
        IMAGEGATE_LIMITS_BODY_SECONDS="1",
    )


def noise(size: int) -> bytes:
    """A PNG of so many bytes or a little more, which no one can compress."""
    from random import Random

    from PIL import Image

    side = int((size / 3) ** 0.5) + 1
    return saved(Image.frombytes("RGB", (side, side), Random(1).randbytes(side * side * 3)), "png")


# ---- too large


@pytest.mark.parametrize("length", ["10000000000", "18446744073709551615"])
@pytest.mark.parametrize("type", [FORM, "application/json"])
def test_a_length_beyond_the_limit_is_refused_at_once(gateway: Served, length: str, type: str) -> None:
    with connected(gateway) as sock:
        began = time.monotonic()
        sock.sendall(head(length, type=type) + b"x")
        answer = answer_of(sock)
        assert time.monotonic() - began < 1
        refused(answer, 413, "request_too_large")
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["18446744073709551616", "9" * 5000, "+5", "-1", "5, 5", "0x10"])
def test_a_length_that_is_no_number_is_refused_at_once(gateway: Served, length: str) -> None:
    with connected(gateway) as sock:
        sock.sendall(head(length) + b"x")
        assert answer_of(sock).status == 400
        assert is_closed(sock)


def flood(sock: socket.socket, most: int) -> tuple[int, int]:
    """Send chunks for as long as the server takes them and says nothing; bytes until it answered, and its status."""
    chunk = b"2000\r\n" + b"\0" * 0x2000 + b"\r\n"
    sock.setblocking(False)
    count = 0
    limit = time.monotonic() + 10
    try:
        while count < most and time.monotonic() < limit:
            try:
                count += sock.send(chunk)
            except BlockingIOError:
                time.sleep(0.001)
            try:
                if sock.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                pass
    finally:
        sock.settimeout(10)
    return count, answer_of(sock).status


@pytest.mark.parametrize("type", [FORM, "application/json"])
def test_a_body_of_unknown_length_is_cut_where_the_limit_is(tight: Served, type: str) -> None:
    with connected(tight) as sock:
        # small buffers, so that what was sent is about what was read
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
        sock.sendall(head(None, type=type))
        begin = START if type == FORM else b'{"prompt": "'
        sock.sendall(b"%x\r\n%s\r\n" % (len(begin), begin))
        count, status = flood(sock, 50 << 20)
    assert status in (400, 413)  # 400: the picture's own limit came first
    assert count < (4 << 20)  # the limit, and what the kernel's buffers hold


def test_a_client_that_sends_everything_first_can_read_the_refusal(tight: Served) -> None:
    """Most do: closed at once, the connection would be reset under them and the answer lost."""
    for body, type in (
        (form(*fields(), file(content=b"\0" * (20 << 20))), FORM),
        (b" " * (20 << 20), "application/json"),
    ):
        for _ in range(3):
            refused(post(tight, body, type), 413, "request_too_large")
    pieces = (b"\0" * (64 * KIB) for _ in range(100))
    answer = tight.http.post(EDITS, content=pieces, headers={"content-type": "application/json"})
    refused(answer, 413, "request_too_large")


def test_a_refused_upload_does_not_hold_its_connection_for_ever(tight: Served) -> None:
    with connected(tight) as sock:
        sock.sendall(head(10**9) + b"x")
        refused(answer_of(sock), 413, "request_too_large")
        sock.settimeout(5)
        assert is_closed(sock)


def test_the_limits_of_single_fields(tight: Served) -> None:
    picture = noise(90 * KIB)
    assert 90 * KIB < len(picture) < 100 * KIB
    refused(post(tight, form(*fields(), file(content=picture))), 400, "image_too_large", "image")  # 175x175 pixels
    refused(post(tight, form(*fields(), file("image[]", b"\0" * 103_000))), 400, "image_too_large", "image")
    refused(post(tight, form(*fields(prompt="x" * 11_000), file())), 413, "request_too_large", "prompt")
    refused(post(tight, form(*fields(**{"a[b]": "x" * 11_000}), file())), 413, "request_too_large", "a")
    refused(post(tight, form(*fields(), *(text(f"x{at}", "1") for at in range(9)), file())), 400, "invalid_body")
    refused(post(tight, form(*fields(), file(), file(), file())), 400, "too_many_images", "image")


def test_base64_may_be_a_third_longer_than_the_picture_it_spells(start_gateway: StartGateway) -> None:
    picture = noise(90 * KIB)
    small = start_gateway(IMAGEGATE_LIMITS_IMAGE_BYTES="100KiB", IMAGEGATE_LIMITS_SPOOL_BYTES="16KiB")
    spelled = b"data:image/png;base64," + base64.b64encode(picture)
    assert len(spelled) > 100 * KIB
    for name, content in (("image", picture), ("image", spelled), ("image_base64", base64.encodebytes(picture))):
        payload = plan(post(small, form(*fields(), file(name, content))))
        assert f"{len(picture)} bytes" in payload["image_urls"][0]
    too_long = b"data:image/png;base64," + base64.b64encode(noise(101 * KIB))
    refused(post(small, form(*fields(), file(content=too_long))), 400, "image_too_large", "image")
    refused(post(small, form(*fields(), file(content=b"data:" + b"x" * 200_000))), 400, "image_too_large", "image")
    body = {"model": MODEL, "prompt": "a", "image": too_long.decode()}
    refused(small.post(body, DRY), 400, "image_too_large", "image")


def test_the_documented_limits_are_the_defaults() -> None:
    limits = Limits()
    assert (limits.body_bytes, limits.json_bytes, limits.image_bytes) == (64 << 20, 32 << 20, 20 << 20)
    assert (limits.images, limits.fields) == (16, 200)


# ---- too slow, or gone


def test_a_body_that_comes_too_slowly_is_a_timeout(tight: Served) -> None:
    with connected(tight) as sock:
        began = time.monotonic()
        sock.sendall(head(100_000) + START)
        answer = answer_of(sock)
        assert 0.9 < time.monotonic() - began < 3
        refused(answer, 408, "request_timeout")
        assert is_closed(sock)


def test_a_drip_is_a_timeout_too(tight: Served) -> None:
    with connected(tight) as sock:
        sock.sendall(head(None, type="application/json"))
        sock.settimeout(0.1)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            sock.sendall(b"1\r\n \r\n")
            try:
                sock.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        sock.settimeout(5)
        refused(answer_of(sock), 408, "request_timeout")
    assert time.monotonic() - began < 3


def test_many_slow_clients_are_in_nobodys_way(tight: Served) -> None:
    slow = [socket.create_connection(tight.address) for _ in range(100)]
    try:
        for sock in slow:
            sock.sendall(head(100_000) + START)
        began = time.monotonic()
        plan(post(tight, form(*fields(), file())))
        assert time.monotonic() - began < 1
    finally:
        for sock in slow:
            sock.close()
    assert tight.get("/healthz").status_code == 200


@pytest.mark.parametrize("abort", [False, True])
def test_a_client_that_hangs_up_in_the_middle_leaves_nothing_behind(gateway: Served, abort: bool) -> None:
    for _ in range(20):
        with connected(gateway) as sock:
            sock.sendall(head(5 << 20) + START + b"\0" * 100_000)
            if abort:  # a reset instead of an orderly end
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    plan(post(gateway, form(*fields(), file())))
    assert gateway.get("/healthz").json()["status"] == "ok"


# ---- without a key


@pytest.fixture
def no_key(locked_gateway: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=locked_gateway.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    "header", ["", "Authorization: Bearer sk-wrong-secret", "api-key: sk-wrong-secret", "Authorization: Basic c2st"]
)
def test_without_the_key_the_answer_comes_before_the_body(locked_gateway: Served, header: str) -> None:
    with connected(locked_gateway) as sock:
        sock.sendall(head(5 << 20, more=header) + START)
        answer = answer_of(sock)
        refused(answer, 401, "invalid_api_key")
        assert "sk-wrong" not in answer.text
        assert answer.headers["connection"] == "close"


def test_without_the_key_a_client_that_sends_everything_first_reads_why(no_key: httpx2.Client) -> None:
    answer = no_key.post(
        EDITS, content=form(*fields(), file(content=b"\0" * (5 << 20))), headers={"content-type": FORM}
    )
    refused(answer, 401, "invalid_api_key")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY}"},
        {"api-key": KEY},
        {"authorization": "Basic xyz", "api-key": KEY},
    ],
)
def test_every_way_to_give_the_key(no_key: httpx2.Client, headers: dict[str, str]) -> None:
    assert no_key.get("/openai/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("number", "key"), list(enumerate([KEY[:-1], KEY + "x", KEY.upper(), "ключ", "\u00ff", "x" * 10_000], 1))
)
def test_every_wrong_key_gets_the_same_answer(no_key: httpx2.Client, number: int, key: str) -> None:
    address = f"192.0.2.{number}"  # one that is wrong ten times in a minute is not listened to
    for path in ("/openai/v1/models", f"/openai/v1/models/{MODEL}", f"/v1/models/{MODEL}"):
        answer = no_key.get(path, headers={"authorization": f"Bearer {key}".encode(), "x-forwarded-for": address})
        message = refused(answer, 401, "invalid_api_key")
        assert key not in message


def test_health_needs_no_key_and_tells_no_secret(no_key: httpx2.Client) -> None:
    for path in ("/healthz", "/readyz"):
        answer = no_key.get(path)
        assert answer.status_code == 200
        assert KEY not in answer.text
        assert "sandbox:sandbox" not in answer.text
