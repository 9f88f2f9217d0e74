"""Who watches: constructed here from the settings, as `main` constructs the rest. What is switched off is not imported.

Watchers are handed to those whom they watch as plain functions; nobody on a request's way knows of Prometheus or
OpenTelemetry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fastapi import APIRouter

from app.api.metrics import metrics_router
from app.config import Config, MetricsSettings
from app.logs import write_access
from app.receipts import Observer
from app.store.db import Database
from app.store.measured import MeasuredDatabase
from app.tracing import Tracing, wants_traces
from app.visits import Visits, note_cost

if TYPE_CHECKING:
    from app.metrics import Metrics
    from app.sources import Sources

LAG_SECONDS = 0.5  # between looks at how late the event loop is


class Telemetry:
    """Everybody who watches. `visits` and `receipts` are told of requests and runs that ended."""

    def __init__(
        self, visits: Visits, receipts: tuple[Observer, ...], metrics: Metrics | None, tracing: Tracing | None
    ) -> None:
        self.visits = visits
        self.receipts = receipts
        self._metrics = metrics
        self._tracing = tracing
        self._looking: asyncio.Task[None] | None = None

    def exchanges(self, provider: str) -> Callable[[str, int | None], None]:
        """Who is told of each exchange with a provider's API: its method, and its answer's status or None."""
        metrics = self._metrics
        if metrics is None:
            return lambda method, status: None
        return lambda method, status: metrics.exchanged(provider, method, status)

    @property
    def encodes(self) -> Callable[[str, float], None]:
        """Who is told of each picture child's job."""
        return (lambda format, seconds: None) if self._metrics is None else self._metrics.encoded

    def watched(self, database: Database) -> Database:
        """The same database, with somebody told of each transaction."""
        return database if self._metrics is None else MeasuredDatabase(database, self._metrics.transacted)

    def routers(self, sources: Sources, settings: MetricsSettings) -> list[APIRouter]:
        """Where it can be read."""
        if self._metrics is None:
            return []
        from app.gauges import Gauges

        gauges = Gauges(sources)
        self._metrics.add(gauges)
        return [metrics_router(gauges.refresh, self._metrics.page, settings)]

    def start(self) -> None:
        """Watch the event loop."""
        if self._metrics is not None:
            self._looking = asyncio.create_task(_watch_loop(self._metrics.lagged), name="loop lag")

    async def close(self) -> None:
        """What was seen last is sent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)


def telemetry_for(config: Config, version: str, environ: Mapping[str, str]) -> Telemetry:
    """Logs always, metrics unless they are off, traces if OTEL_ variables ask for them. Raises ConfigError."""
    metrics, tracing = None, None
    if config.metrics.enabled:
        from app.metrics import Metrics  # prometheus-client: 15 ms, 2 MB

        metrics = Metrics(version)
    if wants_traces(environ):
        tracing = Tracing(version)
    watching = [watcher for watcher in (metrics, tracing) if watcher is not None]
    return Telemetry(
        Visits(
            beginning=[] if tracing is None else [tracing.begin],
            ending=[
                write_access,
                *([] if metrics is None else [metrics.visited]),
                *([] if tracing is None else [tracing.end]),
            ],
        ),
        (note_cost, *(watcher.receipt for watcher in watching)),
        metrics,
        tracing,
    )


async def _watch_loop(lagged: Callable[[float], None]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        lagged(max(loop.time() - due, 0.0))
