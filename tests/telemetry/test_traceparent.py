"""W3C's traceparent: read strictly, and passed on to providers only as configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.traceparent import read_traceparent
from tests.fakes.sandbox import SandboxServer
from tests.telemetry.kit import gateway, recorder

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WHOLE = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ([WHOLE], WHOLE),
        ([f" {WHOLE} "], WHOLE),
        ([f"00-{TRACE}-{PARENT}-00"], f"00-{TRACE}-{PARENT}-00"),
        ([f"00-{TRACE}-{PARENT}-ff"], f"00-{TRACE}-{PARENT}-03"),  # flags that nobody has defined yet
        ([f"cc-{TRACE}-{PARENT}-01"], WHOLE),  # a version to come
        ([f"cc-{TRACE}-{PARENT}-01-what-it-adds"], WHOLE),
        ([f"cc-{TRACE}-{PARENT}-01.what"], None),
        ([f"00-{TRACE}-{PARENT}-01-more"], None),
        ([f"ff-{TRACE}-{PARENT}-01"], None),
        ([f"00-{TRACE.upper()}-{PARENT}-01"], None),
        ([f"00-{'0' * 32}-{PARENT}-01"], None),
        ([f"00-{TRACE}-{'0' * 16}-01"], None),
        ([f"00-{TRACE[1:]}-{PARENT}-01"], None),
        ([f"00-{TRACE}-{PARENT}-1"], None),
        ([f"00-{TRACE}-{PARENT}"], None),
        ([f"00-{TRACE}-{PARENT}-01\n"], None),
        ([f"0 -{TRACE}-{PARENT}-01"], None),
        ([WHOLE, WHOLE], None),
        ([f"cc-{TRACE}-{PARENT}-01-{'x' * 300}"], None),
        ([""], None),
        ([], None),
    ],
)
def test_it_is_read_as_it_is_specified(sent: list[str], read: str | None) -> None:
    found = read_traceparent([(b"accept", b"*/*"), *((b"traceparent", one.encode()) for one in sent)])
    assert (None if found is None else str(found)) == read


@pytest.mark.parametrize(
    ("headers", "settings", "passed_on"),
    [
        ({"traceparent": WHOLE, "tracestate": "vendor=secret"}, {}, WHOLE),
        ({"traceparent": WHOLE}, {"IMAGEGATE_PASS_TRACEPARENT": "false"}, None),
        ({"traceparent": "nonsense"}, {}, None),
        ({}, {}, None),
    ],
)
def test_a_provider_is_told_the_callers_trace_and_nothing_else(
    tmp_path: Path,
    sandbox: SandboxServer,
    photo: bytes,
    headers: dict[str, str],
    settings: dict[str, str],
    passed_on: str | None,
) -> None:
    with recorder(422, b'{"detail": "no"}') as upstream:
        urls = {"FAL_QUEUE_URL": upstream.url, "FAL_REST_URL": upstream.url}
        with gateway(tmp_path, sandbox, **(urls | settings)) as running:
            assert running.edit(photo, headers).status_code == 400
    assert upstream.seen
    for _, sent, _ in upstream.seen:
        assert sent.get("traceparent") == passed_on
        assert "tracestate" not in sent
