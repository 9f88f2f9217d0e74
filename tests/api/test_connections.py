"""Connections: heads that come slowly, never end or are no HTTP; other callers do not feel them."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.conftest import Served, StartGateway

HEAD_SECONDS = 2


def talk(served: Served, data: bytes, wait: float = 5) -> bytes:
    """Everything that comes back until the server hangs up or is silent for so long."""
    with socket.create_connection(served.address, timeout=wait) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except TimeoutError:
            answer += b"<silence>"
        except ConnectionResetError:
            pass
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_http_gets_the_envelope_too(gateway: Served, request_bytes: bytes) -> None:
    answer = talk(gateway, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<silence>" not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"x-request-id: req_" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("shape", ["one endless header", "endless headers", "an endless path"])
def test_a_head_that_never_ends_is_cut_off(gateway: Served, shape: str) -> None:
    endless = {
        "one endless header": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 400_000,
        "endless headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 60_000,
        "an endless path": b"GET /" + b"a" * 400_000,
    }[shape]
    answer = talk(gateway, endless)
    # A reset may outrun the answer while we are still sending; silence is what must not be.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_slow_and_silent_heads_are_closed_and_nobody_else_waits(start_gateway: StartGateway) -> None:
    gateway = start_gateway(IMAGEGATE_LIMITS_HEAD_SECONDS=str(HEAD_SECONDS))
    slow = [socket.create_connection(gateway.address, timeout=HEAD_SECONDS + 5) for _ in range(100)]
    try:
        for number, connection in enumerate(slow):
            if number % 2:
                connection.sendall(b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: a\r\nX-")
        began = time.monotonic()
        assert gateway.get("/healthz").status_code == 200
        assert time.monotonic() - began < 2
        for number, connection in enumerate(slow):
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 408 ") if number % 2 else answer == b""
        assert time.monotonic() - began < HEAD_SECONDS + 5
    finally:
        for connection in slow:
            connection.close()


def test_a_kept_connection_serves_many_requests(gateway: Served) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection(gateway.address, timeout=5) as connection:
        for _ in range(20):
            connection.sendall(request)
            answer = b""
            while b'"status"' not in answer:
                answer += connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
