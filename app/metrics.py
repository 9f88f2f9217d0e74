"""What the gateway counts, for Prometheus. docs/metrics.md has a line for each; a test looks.

One process, so one registry in memory. Labels are bounded: routes are templates, models and endpoints are the
catalogue's, statuses and faults are closed sets; no request, key or caller is ever one. To count costs about 45 µs for
an edit of one job (November 2026), and to import prometheus-client 15 ms and 2 MB: who turns metrics off pays neither.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.types import Receipt
from app.visits import Visit

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
NO_ROUTE = "other"  # no such URL: whatever a stranger tries is one label


class Metrics:
    """All that is counted as it happens. What merely is so (depths, states) is read when Prometheus asks: `Gauges`."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here needs
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        build = Info("imagegate_build", "Which imagegate this is.", registry=registry)
        build.info({"version": version, "python": platform.python_version()})

        # Series are looked up in a cache of ours: `labels` checks and converts what is always right.
        def counter(name: str, text: str, *labels: str) -> Callable[..., Counter]:
            return cache(Counter(f"imagegate_{name}", text, labels, registry=registry).labels)

        def histogram(
            name: str, text: str, *labels: str, buckets: Iterable[float] = SECONDS
        ) -> Callable[..., Histogram]:
            made = Histogram(f"imagegate_{name}", text, labels, registry=registry, buckets=tuple(buckets))
            return cache(made.labels)

        self._requests = counter("requests", "HTTP requests that were answered.", "route", "status", "model")
        self._request_seconds = histogram("request_seconds", "From a request's head to its answer's end.", "route")
        self._bytes_in = counter("received_bytes", "Bytes of request bodies that came in.", "route")
        self._bytes_out = counter("sent_bytes", "Bytes of answers' bodies that went out.", "route")
        self._phases = histogram("phase_seconds", "Stretches of requests' ways, each by itself.", "phase")
        self._edits = counter(
            "edits", "Requests that came so far as to be run, by how they ended.", "provider", "model", "status"
        )
        self._edit_seconds = histogram("edit_seconds", "From a run's beginning to its end.", "provider", "model")
        self._pictures = counter("pictures", "Pictures that were made, or failed.", "provider", "model", "outcome")
        self._cost = counter("cost", "Money that was spent, as far as it is known.", "provider", "model", "currency")
        self._unknown = counter("cost_unknown", "Runs of which it is not known what they cost.", "provider", "model")
        self._jobs = counter(
            "upstream_jobs", "Jobs at providers, by how they ended.", "provider", "endpoint", "outcome"
        )
        self._job_seconds = histogram(
            "upstream_seconds", "A job from its submit to its result, or its failure.", "provider", "endpoint"
        )
        self._faults = counter("faults", "Failures of providers, by their kind.", "provider", "fault")
        self._exchanges = counter(
            "upstream_exchanges", "HTTP requests to providers' APIs, by their answer.", "provider", "method", "status"
        )
        self._encodes = histogram(
            "encode_seconds", "A picture child's work on one picture, by the format that it wrote.", "format"
        )
        self._database = histogram(
            "database_seconds", "Transactions of the journal's database, waiting included.", "operation", buckets=SHORT
        )
        self._database_failures = counter("database_failures", "Transactions that failed.", "operation")
        self._loop_lag = Histogram(
            "imagegate_loop_lag_seconds",
            "How late the event loop wakes who slept, looked at twice a second.",
            registry=registry,
            buckets=SHORT,
        )

    def add(self, collector: Collector) -> None:
        """Something else to ask for numbers."""
        self.registry.register(collector)

    def page(self, accept: str) -> tuple[bytes, str]:
        """All of it, in the form that the Accept header prefers, and that form's media type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def visited(self, visit: Visit) -> None:
        """A request was answered."""
        route = visit.route or NO_ROUTE
        self._requests(route, str(visit.status), visit.model or "").inc()
        self._request_seconds(route).observe(visit.seconds)
        self._bytes_in(route).inc(visit.bytes_in)
        self._bytes_out(route).inc(visit.bytes_out)
        for step in visit.steps.taken:
            self._phases(step.phase).observe(step.seconds)

    def receipt(self, receipt: Receipt) -> None:
        """A run ended."""
        provider, model = receipt.provider, receipt.model
        self._edits(provider, model, receipt.status).inc()
        self._edit_seconds(provider, model).observe(receipt.seconds)
        if receipt.pictures:
            self._pictures(provider, model, "made").inc(receipt.pictures)
        if receipt.failures:
            self._pictures(provider, model, "failed").inc(len(receipt.failures))
        if receipt.cost is not None:
            self._cost(provider, model, receipt.currency).inc(float(receipt.cost))
        if receipt.cost is None or receipt.uncertain:
            self._unknown(provider, model).inc()
        for step in receipt.steps:
            self._phases(step.phase).observe(step.seconds)
        for attempt in receipt.attempts:
            self._jobs(attempt.provider, attempt.endpoint, attempt.fault or "done").inc()
            self._job_seconds(attempt.provider, attempt.endpoint).observe(attempt.seconds)
            if attempt.fault not in (None, "left"):
                self._faults(attempt.provider, attempt.fault).inc()

    def exchanged(self, provider: str, method: str, status: int | None) -> None:
        """A provider's API answered; None: it did not."""
        self._exchanges(provider, method, "none" if status is None else str(status)).inc()

    def encoded(self, format: str, seconds: float) -> None:
        """A picture child has done its work."""
        self._encodes(format).observe(seconds)

    def transacted(self, operation: str, seconds: float, *, failed: bool) -> None:
        """The database has done a transaction, or has not."""
        self._database(operation).observe(seconds)
        if failed:
            self._database_failures(operation).inc()

    def lagged(self, seconds: float) -> None:
        """The event loop was so late."""
        self._loop_lag.observe(seconds)
