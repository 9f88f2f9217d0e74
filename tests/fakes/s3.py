"""A real S3 server (moto's) as a process of its own, and a proxy before it in which everything goes wrong.

with S3Server() as s3, FaultyProxy(s3.address) as proxy:
    s3.make_bucket("pictures")
    proxy.fault = Fault(status=503)
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

import httpx2

_SERVER = """
import logging, os, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
logging.disable()
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"""


_ANYBODY = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


class S3Server:
    """It takes any credentials, but wants some; it checks no signature."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx2.Client(base_url=self.url, headers={"authorization": _ANYBODY}, trust_env=False, timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def make_bucket(self, name: str) -> None:
        assert self.http.put(f"/{name}").status_code == 200

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """All objects, a thousand at most."""
        tree = ElementTree.fromstring(self.http.get(f"/{bucket}", params={"list-type": "2", "prefix": prefix}).text)
        return [element.text or "" for element in tree.iter() if element.tag.endswith("}Key")]

    def uploads(self, bucket: str) -> int:
        """Uploads in parts that were begun and neither completed nor given up."""
        return self.http.get(f"/{bucket}?uploads").text.count("<UploadId>")


@dataclass(frozen=True)
class Fault:
    """What becomes of requests. Of several, the first that applies."""

    refuse: bool = False  # hang up before anything is read
    status: int = 0  # answer with this
    delay: float = 0.0  # before the request is passed on
    cut: int | None = None  # hang up after so many bytes of a GET's body
    methods: str = "GET HEAD PUT POST DELETE"  # the others pass
    times: int = 1 << 30


class FaultyProxy:
    """Every connection carries one request. `asked` lists them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty proxy", daemon=True)
        self._struck = 0
        self._fault = Fault(times=0)
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        self.url = ""

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault, self._struck = fault, 0

    def mend(self) -> None:
        """Let everything pass."""
        self.fault = Fault(times=0)

    def __enter__(self) -> Self:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(5)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        await asyncio.sleep(0.01)  # what has just been accepted
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # what is being closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)  # the loop itself holds tasks but weakly
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await self._exchange(reader, writer)
            finally:
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method = head.split(b" ", 1)[0].decode()
        self.asked.append(head.split(b"\r\n", 1)[0].decode().removesuffix(" HTTP/1.1"))
        fault = self._fault
        strikes = method in fault.methods.split() and self._struck < fault.times
        self._struck += strikes
        if strikes and fault.refuse:
            return
        body = await reader.readexactly(_length(head))
        if strikes and fault.status:
            text = b"<Error><Code>TestFault</Code><Message>no</Message></Error>"
            writer.write(f"HTTP/1.1 {fault.status} Fault\r\nContent-Length: {len(text)}\r\n".encode())
            writer.write(b"Connection: close\r\n\r\n" + (b"" if method == "HEAD" else text))
            await writer.drain()
            return
        if strikes:
            await asyncio.sleep(fault.delay)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 20)
        try:
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            far_writer.write(lines[0] + b"\r\nConnection: close\r\n" + b"\r\n".join(lines[1:]) + body)
            writer.write(await far_reader.readuntil(b"\r\n\r\n"))
            left = fault.cut if strikes and fault.cut is not None else 1 << 40
            while left and (chunk := await far_reader.read(min(left, 65536))):
                left -= len(chunk)
                writer.write(chunk)
                await writer.drain()
        finally:
            far_writer.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
