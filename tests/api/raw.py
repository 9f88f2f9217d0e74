"""Requests byte by byte, for what no client library would send; and what every refusal has in common."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.conftest import MODEL, Json, Served
from tests.media.pictures import sample

ROOT = Path(__file__).parents[2]
EDITS = "/openai/v1/images/edits"
DRY = f"{EDITS}?dryRun=true"
BOUNDARY = b"----of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"

Part = tuple[bytes, bytes]  # headers, content


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def status_code(self) -> int:
        return self.status


def text(name: str, value: str, *, type: str = "") -> Part:
    """A field as most clients send it; with a type as Java and Open WebUI do."""
    head = f'Content-Disposition: form-data; name="{name}"'.encode()
    return (head + (b"\r\nContent-Type: " + type.encode() if type else b""), value.encode())


def file(name: str = "image", content: bytes | None = None, filename: str | None = "a.png", type: str = "") -> Part:
    head = f'Content-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"' if filename is not None else ""
    head += f"\r\nContent-Type: {type}" if type else ""
    return head.encode(), sample("png") if content is None else content


def form(*parts: Part, line: bytes = b"\r\n", boundary: bytes = BOUNDARY, end: bytes | None = None) -> bytes:
    """A multipart body."""
    written = b"".join(
        b"--" + boundary + line + head.replace(b"\r\n", line) + line * 2 + content + line for head, content in parts
    )
    return written + (b"--" + boundary + b"--" + line if end is None else end)


def fields(**values: str) -> list[Part]:
    """model and prompt, and what else is wanted; None of it a picture."""
    return [text(name, value) for name, value in {"model": MODEL, "prompt": "a", **values}.items()]


def post(gateway: Served, body: bytes, type: str = FORM, path: str = DRY, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.http.post(path, content=body, headers={"content-type": type, **named})


def plan(answer: Any) -> Json:
    """The payload of the first call of a dry run."""
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()["plan"]["calls"][0]
    return found


def refused(answer: Any, status: int, code: str, param: str | None = None) -> str:
    """The answer is this refusal, in OpenAI's envelope, and gives nothing away; its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert int(answer.headers["openai-processing-ms"]) >= 0
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["code"], error["param"]) == (code, param), error
    assert isinstance(error["type"], str)
    assert str(ROOT) not in answer.text
    assert not re.search(r"Traceback|site-packages|\.py\b|0x[0-9a-f]{6}|Error\(", answer.text), answer.text
    message: str = error["message"]
    assert message
    assert len(message) < 500
    return message


@contextmanager
def connected(gateway: Served, timeout: float = 10) -> Iterator[socket.socket]:
    with socket.create_connection(gateway.address, timeout=timeout) as sock:
        yield sock


def head(
    length: int | str | None, *, type: str = FORM, path: str = EDITS, host: str = "gateway", more: str = ""
) -> bytes:
    """The head of a POST. `length` None: chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Type: {type}", size, *filter(None, [more])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer_of(sock: socket.socket, method: str = "POST") -> Answer:
    """The next answer on the connection."""
    with HTTPResponse(sock, method=method) as response:
        response.begin()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())


def is_closed(sock: socket.socket) -> bool:
    """Whether the server ends the connection within the socket's time-out."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False
