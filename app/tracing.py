"""Traces for OpenTelemetry, by its standard environment variables; off, and not even imported, unless they ask for it.

Spans are made when what they tell of is over, from the times that were noted on the way (`app.steps`): a request that
is traced does nothing else than one that is not, save that its own span begins with it, so that its id can be passed
on. What is exported, where to and how often is the SDK's business: a thread of its own sends batches over OTLP/http.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from app.config import ConfigError
from app.steps import Step
from app.traceparent import TraceParent
from app.types import Receipt
from app.visits import Visit, current

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

CLOSE_SECONDS = 5.0  # for what has not been sent at the end of the process
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})  # asked for all day long


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Whether the OTEL_ variables ask for traces: an exporter or an endpoint is named, and the SDK is not disabled.
    Raises ConfigError for what they ask for that is not built in.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and …/protocol/exporter/: an
    empty variable counts as unset, booleans and names are case-insensitive.
    """

    def word(name: str) -> str:
        return environ.get(name, "").strip().lower()

    exporter = word("OTEL_TRACES_EXPORTER")
    endpoint = word("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or word("OTEL_EXPORTER_OTLP_ENDPOINT")
    if word("OTEL_SDK_DISABLED") == "true" or exporter == "none" or not (exporter or endpoint):
        return False
    if exporter not in ("", "otlp"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER: '{exporter}' is not built in, only 'otlp' and 'none' are")
    protocol = word("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or word("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: '{protocol}' is not built in, only 'http/protobuf' is")
    return True


def secrets_of_traces(environ: Mapping[str, str]) -> list[str]:
    """What the OTEL_ variables hold that no log may show: the values of headers."""
    names = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
    pairs = (pair for name in names for pair in environ.get(name, "").split(","))
    return [pair.partition("=")[2].strip() for pair in pairs if "=" in pair]


class Tracing:
    """Makes spans. One for the whole process, used from its event loop."""

    def __init__(self, version: str) -> None:
        """Raises ConfigError if the SDK is not installed."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        except ImportError:
            raise ConfigError(
                "OTEL_…: traces are asked for, but OpenTelemetry's SDK is not installed. "
                "Install imagegate[otel], or set OTEL_SDK_DISABLED=true."
            ) from None

        class Ids(RandomIdGenerator):
            """A trace that begins here has the digits of its request's id."""

            following: int | None = None

            def generate_trace_id(self) -> int:
                following, self.following = self.following, None
                return super().generate_trace_id() if following is None else following

        self._otel = trace
        self._ids = Ids()
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go over these.
        resource = Resource.create({"service.version": version})
        if resource.attributes.get(SERVICE_NAME, "unknown_service").__str__().startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "imagegate"}))
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("imagegate", version)

    def begin(self, visit: Visit) -> None:
        """A request has come: its span begins, under its caller's if there is one, and is what providers are told."""
        if visit.path in UNTRACED:
            return
        span = self._tracer.start_span(
            visit.method,
            context=self._context(visit.caller_trace, visit.trace_id),
            kind=self._otel.SpanKind.SERVER,
            start_time=_moment(visit.began, _zero()),
        )
        own = span.get_span_context()
        visit.span = span
        visit.trace_id = f"{own.trace_id:032x}"
        visit.traceparent = TraceParent(visit.trace_id, f"{own.span_id:016x}", int(own.trace_flags))

    def end(self, visit: Visit) -> None:
        """It is over."""
        span: Span | None = visit.span
        if span is None:
            return
        if span.is_recording():
            if visit.route:
                span.update_name(f"{visit.method} {visit.route}")
            facts: dict[str, Any] = {
                "http.request.method": visit.method,
                "http.route": visit.route,
                "http.response.status_code": visit.status,
                "http.request.body.size": visit.bytes_in,
                "http.response.body.size": visit.bytes_out,
                "imagegate.request_id": visit.id,
                "imagegate.key_id": visit.key_id,
                "imagegate.model": visit.model,
                "error.type": visit.error_code,
                "imagegate.client_gone": visit.gone or None,
            }
            span.set_attributes({name: value for name, value in facts.items() if value not in (None, "")})
            self._steps(span, visit.steps.taken, _zero())
            if visit.status >= 500:
                span.set_status(self._otel.StatusCode.ERROR)
        span.end(_moment(visit.began + visit.seconds, _zero()))

    def receipt(self, receipt: Receipt) -> None:
        """A run ended: a span for the whole of it and one for each stretch, under the request that began it; of one
        that a dead process left, in the trace that this request had."""
        visit, now, zero = current.get(), time.monotonic(), _zero()
        if visit is not None and visit.span is not None and visit.id == receipt.request_id:
            context = self._otel.set_span_in_context(visit.span)
        else:
            context = self._context(None, receipt.request_id.removeprefix("req_"))
        # What came after its last moment, the journal's commit, is not in its seconds: its steps tell when it began.
        began = min([now - receipt.seconds, *(step.began for step in receipt.steps)])
        span = self._tracer.start_span("edit", context=context, start_time=_moment(began, zero))
        if span.is_recording():
            facts: dict[str, Any] = {
                "imagegate.request_id": receipt.request_id,
                "imagegate.key_id": receipt.caller.key_id,
                "imagegate.model": receipt.model,
                "imagegate.provider": receipt.provider,
                "imagegate.endpoint": receipt.endpoint,
                "imagegate.status": receipt.status,
                "imagegate.n": receipt.pictures + len(receipt.failures),
                "imagegate.pictures": receipt.pictures,
                "imagegate.jobs": len(receipt.attempts),
                "imagegate.cost": None if receipt.cost is None else float(receipt.cost),
                "imagegate.currency": receipt.currency,
                "error.type": receipt.error_code,
            }
            span.set_attributes({name: value for name, value in facts.items() if value is not None})
            self._steps(span, receipt.steps, zero)
            if receipt.status == "failed":
                span.set_status(self._otel.StatusCode.ERROR)
        span.end(_moment(now, zero))

    def close(self) -> None:
        """Send what is left, for a while. Blocks."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True, name="last spans")
        ending.start()
        ending.join(CLOSE_SECONDS)

    def _context(self, parent: TraceParent | None, trace_id: str) -> Context:
        trace = self._otel
        if parent is None:
            self._ids.following = _number(trace_id)
            nothing: Context = trace.set_span_in_context(trace.INVALID_SPAN)
            return nothing
        remote = trace.SpanContext(
            int(parent.trace_id, 16),
            int(parent.parent_id, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(parent.flags),
        )
        under: Context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        return under

    def _steps(self, parent: Span, steps: Iterable[Step], zero: int) -> None:
        context = self._otel.set_span_in_context(parent)
        for step in steps:
            about: dict[str, Any] = {f"imagegate.{name}": value for name, value in step.about.items()}
            span = self._tracer.start_span(
                step.phase, context=context, start_time=_moment(step.began, zero), attributes=about
            )
            if step.failed:
                span.set_status(self._otel.StatusCode.ERROR)
            span.end(_moment(step.began + step.seconds, zero))


def _number(trace_id: str) -> int | None:
    """None: no trace id, as of a request whose id is not ours."""
    try:
        number = int(trace_id, 16)
    except ValueError:
        return None
    return number if len(trace_id) == 32 and number else None


def _zero() -> int:
    """Unix time, in nanoseconds, of the monotonic scale's zero. The clock may be set: it is asked each time."""
    return time.time_ns() - int(time.monotonic() * 1e9)


def _moment(monotonic: float, zero: int) -> int:
    return zero + int(monotonic * 1e9)
