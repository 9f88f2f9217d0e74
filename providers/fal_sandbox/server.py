"""The composition of one sandbox: everything is made here and handed to who needs it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from .books import Books
from .control import Control, SandboxClock
from .faults import Script
from .files import FileStore
from .hosts import EVERY_METHOD, Keys
from .inference import Inference
from .interference import Interference
from .listing import Listing
from .model import Model
from .options import Options
from .queue import Queue
from .schema import load_endpoints
from .storage import Storage
from .wire import Wire


def create_app(
    options: Options | None = None, *, clock: Callable[[], float] = time.time, schema_dirs: Sequence[Path] = ()
) -> ASGIApp:
    """A fresh sandbox.

    `clock` gives epoch seconds and rules over expiry and time stamps, not over how long jobs run. `schema_dirs` adds
    folders of endpoint schemas to those of `options`. Raises SchemaError when one of their files cannot be used.
    """
    options = options or Options()
    if schema_dirs:
        options = replace(options, schema_dirs=(*options.schema_dirs, *schema_dirs))
    endpoints = load_endpoints(options.schema_dirs)
    now = SandboxClock(clock)
    executor = ThreadPoolExecutor(options.workers, thread_name_prefix="fal-sandbox")
    books, script, files = Books(), Script(), FileStore(options.max_file_bytes, now)
    results = FileStore(options.max_result_bytes, now)
    keys = Keys()
    interference = Interference(script, keys)
    storage = Storage(interference, files, books, options, now)
    inference = Inference(endpoints, interference, results, books, options, now)
    queue = Queue(
        Model(files, executor, options, now).run,
        now,
        inference.ended,
        concurrency=options.concurrency,
        queue_seconds=options.queue_seconds,
        run_seconds=options.run_seconds,
        max_jobs=options.max_jobs,
    )
    inference.attach(queue)
    listing = Listing(queue, interference, now)

    async def reset() -> None:
        await queue.close()
        files.clear()
        results.clear()
        storage.clear()
        books.clear()
        script.clear()
        keys.good = frozenset()
        now.ahead = 0.0

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await queue.close()
        executor.shutdown(wait=False, cancel_futures=True)

    control = Control(script, keys, books, queue, now, reset)
    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/queue/{path:path}", inference.queue_host, methods=EVERY_METHOD),
            Route("/run/{path:path}", inference.run_host, methods=EVERY_METHOD),
            Route("/rest/storage/upload/initiate", storage.initiate, methods=["POST"]),
            Route("/rest/storage/auth/token", storage.token, methods=["POST"]),
            Route("/api/v1/models/requests/by-endpoint", listing.by_endpoint, methods=["GET"]),
            Route("/cdn/upload/{secret}", storage.put, methods=["PUT"]),
            Route("/cdn/files/upload", storage.upload, methods=["POST"]),
            Route("/cdn/files/{path:path}", storage.download, methods=["GET"]),
            *control.routes(),
        ],
    )
    return Wire(app)
