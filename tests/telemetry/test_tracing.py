"""Traces, as a collector sees them that speaks OTLP over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.config import ConfigError
from app.tracing import wants_traces
from tests.conftest import MODEL
from tests.fakes.sandbox import SandboxServer
from tests.telemetry.kit import KEY, PROMPT, Recorder, gateway, recorder

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTLP = "http://collector:4318"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": OTLP}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": OTLP}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": OTLP}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], wanted: bool) -> None:
    assert wants_traces(environ) is wanted


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER: 'console'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "PROTOCOL: 'grpc'"),
    ],
)
def test_what_is_not_built_in_stops_the_start(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        wants_traces(environ)


def spans(collector: Recorder) -> tuple[dict[str, Any], list[Any]]:
    """The resource's attributes, and all spans."""
    resource: dict[str, Any] = {}
    found = []
    for path, headers, body in collector.seen:
        assert (path, headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource |= attributes(part.resource)
            found += [span for scope in part.scope_spans for span in scope.spans]
    return resource, found


def attributes(of: Any) -> Mapping[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@pytest.mark.parametrize("sent", [True, False])
def test_a_collector_gets_the_whole_way(tmp_path: Path, sandbox: SandboxServer, photo: bytes, sent: bool) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"} if sent else {}
    with recorder(200, b"") as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "pictures"}
        with gateway(tmp_path, sandbox, **environ) as running:
            id = running.edit(photo, headers, n="2", output_format="webp").headers["x-request-id"]
            running.http.get("/healthz")
    resource, found = spans(collector)
    assert (resource["service.name"], "service.version" in resource) == ("pictures", True)
    by_name: dict[str, list[Any]] = {}
    for span in found:
        by_name.setdefault(span.name, []).append(span)
    [request], [run] = by_name["POST /openai/v1/images/edits"], by_name["edit"]
    assert {span.trace_id.hex() for span in found} == {TRACE if sent else id.removeprefix("req_")}
    assert request.parent_span_id.hex() == (PARENT if sent else "")
    assert run.parent_span_id == request.span_id
    for name, count in (
        ("queue", 2),
        ("submit", 2),
        ("wait", 2),
        ("fetch", 2),
        ("finish", 2),
        ("store", 2),
        ("prepare", 1),
    ):
        assert len(by_name[name]) == count, name
        for span in by_name[name]:
            assert span.parent_span_id == run.span_id
            assert run.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert {span.parent_span_id for span in by_name["receive"]} == {request.span_id}
    told = attributes(run)
    assert told["imagegate.request_id"] == id
    assert (told["imagegate.model"], told["imagegate.provider"], told["imagegate.n"]) == (MODEL, "fal", 2)
    assert told["imagegate.cost"] == pytest.approx(0.06)
    assert attributes(request)["http.response.status_code"] == 200
    assert {attributes(span)["imagegate.format"] for span in by_name["finish"]} == {"webp"}
    everything = b"".join(body for _, _, body in collector.seen)
    assert PROMPT.encode() not in everything
    assert KEY.encode() not in everything
    assert "/healthz" not in " ".join(by_name)


def test_a_provider_is_told_our_own_span(tmp_path: Path, sandbox: SandboxServer, photo: bytes) -> None:
    with recorder(200, b"") as collector, recorder(422, b'{"detail": "no"}') as upstream:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "FAL_QUEUE_URL": upstream.url}
        with gateway(tmp_path, sandbox, **environ) as running:
            running.edit(photo, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    [request] = [span for span in spans(collector)[1] if span.name.startswith("POST")]
    assert {sent["traceparent"] for _, sent, _ in upstream.seen} == {f"00-{TRACE}-{request.span_id.hex()}-01"}


def test_a_collector_that_is_down_costs_nobody_an_edit(tmp_path: Path, sandbox: SandboxServer, photo: bytes) -> None:
    with recorder(200) as gone:
        address = gone.url
    with gateway(tmp_path, sandbox, OTEL_EXPORTER_OTLP_ENDPOINT=address) as running:
        assert running.edit(photo).status_code == 200
    assert all(running.lines)
