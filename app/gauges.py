"""What is so at the moment that Prometheus asks: depths, states, room. Nothing is counted on the way for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from app.sources import Sources
from app.store.census import WATCHED, Census
from app.store.db import StoreError

log = logging.getLogger("imagegate.metrics")

CENSUS_SECONDS = 10.0  # for how long a look into the database holds
BREAKER_STATES = ("closed", "open", "half_open", "locked")


class Gauges(Collector):
    """Looked at on the event loop (`refresh`); written down by a thread from what was seen then (`collect`)."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._census = Census(sources.database)
        self._jobs: dict[str, int] | None = None
        self._looked = float("-inf")
        self._seen: list[Metric] = []

    async def refresh(self) -> None:
        """Look again. Never raises: what cannot be known is left out."""
        if time.monotonic() - self._looked >= CENSUS_SECONDS:
            try:
                self._jobs = await self._census.open_jobs()
                self._looked = time.monotonic()
            except StoreError as error:
                self._jobs = None
                log.warning("the journal's jobs cannot be counted: %s", error)
        self._seen = list(self._look())

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask before there is anything to see."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What was seen."""
        return self._seen

    def _look(self) -> Iterator[Metric]:
        now = self._sources
        offers = [offer for model in now.catalogue() for offer in model.offers]
        providers = sorted({offer.provider for offer in offers})
        yield _gauge("requests_running", "HTTP requests that are being answered.", now.visits.under_way)
        yield _gauge("runs", "Requests under way, also those that nobody waits for any more.", len(now.runs))
        yield _by("jobs_running", "Jobs that have a place at a provider.", "provider", providers, now.admission.running)
        yield _by(
            "jobs_waiting", "Jobs that wait for a place (queue depth).", "provider", providers, now.admission.waiting
        )
        yield self._breakers({(offer.provider, offer.endpoint) for offer in offers})
        yield _gauge("body_memory_bytes", "Memory that request bodies hold.", now.memory.used)
        yield _gauge("body_memory_limit_bytes", "Memory that they may hold (limits.memory_bytes).", now.memory.limit)
        yield _gauge("picture_children", "Processes that work on pixels.", now.pool.children)
        yield _gauge("picture_work", "Pieces of picture work that were taken and have not ended.", now.pool.inside)
        yield _gauge("picture_work_waiting", "Of them: those that wait for memory.", now.pool.waiting)
        yield _gauge("picture_bytes", "Estimated bytes of the pictures that are decoded now.", now.pool.used)
        yield _gauge("journal_owed", "Writes to the journal that failed and are repeated.", now.journal.owed)
        commits = getattr(now.database, "commits", None)
        if commits is not None:  # SQLite
            yield _counter("database_commits", "Commits (SQLite), each of one or more.", commits)
        yield _counter("log_written", "Requests that were entered in the request log.", now.logbook.written)
        yield _counter("log_dropped", "Requests that are missing in the request log.", now.logbook.dropped)
        free = now.storage.free_bytes()
        if free is not None:
            yield _gauge("storage_free_bytes", "How much can still be stored on this machine.", free)
        trouble = now.storage.trouble() is not None
        yield _gauge("storage_trouble", "1: the bucket takes no pictures, they are kept on this machine.", trouble)
        lost = now.board is not None and now.board.trouble is not None
        yield _gauge("limits_alone", "1: Redis cannot be used, limits are counted by each gateway alone.", lost)
        if self._jobs is not None:
            jobs = self._jobs
            yield _by(
                "open_jobs",
                "Jobs in the journal whose fate is open, by state.",
                "state",
                WATCHED,
                lambda s: jobs.get(s, 0),
            )

    def _breakers(self, offers: set[tuple[str, str]]) -> Metric:
        text = "1: the offer's circuit breaker is in this state (locked: until account or endpoint are mended)."
        family = GaugeMetricFamily("imagegate_breaker_state", text, labels=("provider", "endpoint", "state"))
        views = self._sources.breakers.states()
        for provider, endpoint in sorted(offers):
            view = views.get(f"{provider}/{endpoint}")
            state = "closed" if view is None else "locked" if view.locked else view.state
            for name in BREAKER_STATES:
                family.add_metric((provider, endpoint, name), name == state)
        return family


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"imagegate_{name}", text)
    family.add_metric((), value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(f"imagegate_{name}", text)
    family.add_metric((), value)
    return family


def _by(name: str, text: str, label: str, values: Iterable[str], of: Callable[[str], float]) -> Metric:
    family = GaugeMetricFamily(f"imagegate_{name}", text, labels=(label,))
    for value in values:
        family.add_metric((value,), of(value))
    return family
