"""The log of a gateway that has seen trouble of all kinds: each line is JSON and tells its request, none a secret."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.logs import JsonFormatter, Redactor, TextFormatter
from tests.conftest import MODEL
from tests.fakes.sandbox import SandboxServer
from tests.telemetry.kit import FAL_KEY, KEY, PROMPT, Running, gateway

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ECHO = {"detail": f"do you mean {PROMPT}? key {FAL_KEY} data:image/png;base64,{'QUJD' * 40}"}


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    """A gateway that has ended, and the ids of some requests by what they were."""
    photo = (Path(__file__).parents[2] / "app" / "samples" / "coffee.jpg").read_bytes()
    ids = {}
    with SandboxServer() as sandbox:
        with gateway(tmp_path_factory.mktemp("logs"), sandbox, IMAGEGATE_LOG_LEVEL="debug") as running:
            made = running.edit(photo, {"traceparent": TRACE}, output_format="webp")
            ids["made"] = made.headers["x-request-id"]
            running.http.get(made.json()["data"][0]["url"])
            running.http.get(made.json()["data"][0]["url"] + "x")
            for fault, args in (
                ("http", {"status": 400, "body": ECHO}),
                ("http", {"status": 500, "body": ECHO}),
                ("model_error", {"type": "content_policy_violation"}),
                ("unauthorized", {}),
            ):
                sandbox.script({"on": "submit", "fault": fault, "args": args})
                ids[fault] = running.edit(photo).headers["x-request-id"]
                sandbox.clear_script()
            ids["wrong"] = running.edit(photo, n="99").headers["x-request-id"]
            running.edit(photo, {"authorization": "Bearer sk-somebody-elses-key"})
            running.edit(photo, image_url="http://user:a-password@127.0.0.1:1/x?sig=a-signature")
            running.http.get("/%0a%7B%22level%22%3A%22forged%22%7D/%1b[2J")
            running.http.get("/healthz")
        yield running, ids


def test_every_line_is_json(troubled: tuple[Running, dict[str, str]]) -> None:
    lines = troubled[0].lines
    assert len(lines) > 20
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert {"uvicorn.error", "imagegate.access", "imagegate.receipts", "imagegate.dispatch"} <= {
        line["logger"] for line in lines
    }
    assert "forged" not in {line["level"] for line in lines}


def test_no_secret_is_in_it(troubled: tuple[Running, dict[str, str]]) -> None:
    text = troubled[0].text
    secrets = (KEY, FAL_KEY, "a-secret-of-fal", "sk-somebody-elses-key", "a-password", "a-signature", "QUJDQUJD")
    assert [word for word in secrets if word in text] == []
    assert not re.search(r"sig=(?!\*\*\*)", text)


def test_an_access_line_tells_what_was_asked_and_answered(troubled: tuple[Running, dict[str, str]]) -> None:
    running, ids = troubled
    [line] = [one for one in running.lines if one["message"] == "request" and one.get("request_id") == ids["made"]]
    assert line["milliseconds"] > 0
    assert line["bytes_in"] > 10_000
    assert line["bytes_out"] > 100
    told = ("method", "route", "status", "key", "model", "cost", "currency", "traceparent", "trace_id")
    assert [line[name] for name in told] == [
        "POST",
        "/openai/v1/images/edits",
        200,
        "static",
        MODEL,
        "0.03",
        "USD",
        TRACE,
        TRACE[3:35],
    ]
    [refused] = [one for one in running.lines if one["message"] == "request" and one.get("request_id") == ids["wrong"]]
    assert (refused["status"], refused["error"]) == (400, "integer_above_max_value")
    assert "cost" not in refused


def test_each_line_of_a_request_says_which(troubled: tuple[Running, dict[str, str]]) -> None:
    running, ids = troubled
    of_it = [line for line in running.lines if line.get("request_id") == ids["model_error"]]
    assert {"imagegate.access", "imagegate.receipts", "imagegate.dispatch"} <= {line["logger"] for line in of_it}
    assert {line["trace_id"] for line in of_it} == {ids["model_error"].removeprefix("req_")}
    [receipt] = [line for line in running.lines if line.get("receipt") == ids["made"]]
    assert {"prepare", "queue", "submit", "wait", "fetch", "finish", "store"} <= set(receipt["phases"])


def test_probes_are_only_told_who_debugs(troubled: tuple[Running, dict[str, str]]) -> None:
    assert {one["level"] for one in troubled[0].lines if one.get("route") == "/healthz"} == {"DEBUG"}


def record(message: str, **about: object) -> logging.LogRecord:
    made = logging.LogRecord("imagegate", logging.WARNING, "", 0, message, (), None)
    made.about = about
    return made


HOSTILE = 'a\nb\r\x1b[2J\u2028\u202e"}\x00'


def test_nobody_forges_a_line() -> None:
    line = JsonFormatter(Redactor()).format(record(HOSTILE, path=HOSTILE))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == json.loads(line)["path"] == HOSTILE
    text = TextFormatter(Redactor()).format(record(HOSTILE, path=HOSTILE))
    assert text.isprintable()
    assert len(text.splitlines()) == 1


def test_a_traceback_in_text_is_marked_line_by_line() -> None:
    made = record("failed")
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    first, *others = TextFormatter(Redactor()).format(made).splitlines()
    assert first.endswith("WARNING imagegate failed")
    assert others
    assert all(line.startswith("| ") for line in others)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Bearer sk-0123456789abcdef", "Bearer ***"),
        ("Authorization: Key id-1:secret-2", "Authorization: Key ***"),
        ("GET /files/a.png?exp=1&sig=abc-DEF_1", "GET /files/a.png?exp=1&sig=***"),
        ("https://b.example/k?X-Amz-Signature=00ff&x=1", "https://b.example/k?X-Amz-Signature=***&x=1"),
        ("postgresql://anna:pass@host/db", "postgresql://anna:***@host/db"),
        ('a "quoted\\secret"', "a ***"),
        ("You didn't provide an API key provided.", "You didn't provide an API key provided."),
        ("the key something of 12:30", "the key something of 12:30"),
    ],
)
def test_secrets_are_struck_out(said: str, shown: str) -> None:
    redact = Redactor(['"quoted\\secret"', "short"])
    assert redact(said) == shown
    assert redact(json.dumps(said)) == json.dumps(shown)
