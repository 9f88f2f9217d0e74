"""A model with several offers: who is tried when, what is told of it, and that nothing is paid twice."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Json
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import EDITS, PICTURE, SIZE, Gate, events_of, until
from tests.keys.conftest import ADMIN, bearer

FIRST, SECOND = "fal-ai/qwen-image-edit-2509", "fal-ai/qwen-image-edit-2511"
MODEL_FILE = f"""
id: two-ways
name: Two ways
creator: Tests
modes: [image-edit]
offers:
  - provider: fal
    endpoint: {FIRST}
    price: {{per: megapixel, amount: "0.03", rounding: up, source: a test's}}
    accepts: {{images: 3}}
    sizing: &sizing {{write: object, multiple_of: 16, min_side: 256, max_side: 2048}}
    params: &params
      prompt: {{how: passthrough, type: string, required: true}}
      image: {{how: renamed, to: image_urls, type: images, required: true}}
      seed: {{how: passthrough, type: integer, min: 0}}
      style: {{how: passthrough, type: string}}
      size: {{how: converted, by: dimensions, to: image_size, type: string}}
      n: {{how: emulated, to: num_images, type: integer, min: 1, max: 10}}
      output_format: {{how: emulated, to: output_format, type: string, values: [png, jpeg, webp], native: [png, jpeg]}}
  - provider: fal
    endpoint: {SECOND}
    price: {{per: megapixel, amount: "0.05", rounding: up, source: a test's}}
    accepts: {{images: 3}}
    sizing: *sizing
    params:
      <<: *params
      style: {{how: ignored, type: string, why: the second one has no styles}}
      seed: {{how: passthrough, type: integer, min: 0, max: 1000}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[SandboxServer]:
    with SandboxServer() as sandbox:
        yield sandbox


@pytest.fixture
def gate(upstream: SandboxServer, tmp_path: Path) -> Iterator[Gate]:
    """A gateway of its own: a breaker that a test opens is in nobody's way."""
    upstream.reset()
    models = tmp_path / "models"
    models.mkdir()
    (models / "two-ways.yaml").write_text(MODEL_FILE)
    with Gate(upstream, tmp_path / "gate", models_dir=str(models), admin_key=ADMIN, api_key="sk-caller") as gate:
        yield gate


def edit(
    gate: Gate,
    model: str = "two-ways",
    *,
    key: str = "sk-caller",
    path: str = EDITS,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Any:
    data = {"model": model, "prompt": "night", "size": SIZE} | {name: str(value) for name, value in more.items()}
    return gate.http.post(path, data=data, files={"image": PICTURE}, headers=bearer(key) | (headers or {}))


def fails(
    gate: Gate, fault: str, endpoint: str = FIRST, *, on: str = "submit", times: int | None = None, **args: Any
) -> None:
    """Whatever is asked of the endpoint goes wrong so: until the test ends, or so many times."""
    gate.sandbox.script({"on": on, "fault": fault, "args": args, "endpoint": endpoint, "times": times})


def bought(gate: Gate) -> list[tuple[str, int]]:
    """Endpoint and billed units of each job that the upstream knows."""
    return sorted((job["endpoint"], job["billed"]) for job in gate.sandbox.jobs())


GOES_ON: list[tuple[str, str, Json, str]] = [
    ("submit", "http", {"status": 503}, "unavailable"),
    ("submit", "rate_limit", {}, "rate_limited"),
    ("submit", "unauthorized", {}, "unauthorized"),
    ("submit", "locked", {}, "unauthorized"),
    ("submit", "http", {"status": 404}, "misconfigured"),
    ("submit", "infra_error", {"error_type": "runner_server_error"}, "unavailable"),
]


def test_an_answer_that_is_given_once_more_tells_its_attempts_too(gate: Gate) -> None:
    fails(gate, "locked", on="submit")
    first, again = [edit(gate, headers={"idempotency-key": "attempts-1"}) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    assert len(first.json()["metadata"]["attempts"]) == 2
    assert again.json()["metadata"]["attempts"] == first.json()["metadata"]["attempts"]


@pytest.mark.parametrize(("on", "fault", "args", "kind"), GOES_ON, ids=[f"{row[1]}-{row[2]}" for row in GOES_ON])
def test_the_next_one_does_it_where_nothing_was_bought(gate: Gate, on: str, fault: str, args: Json, kind: str) -> None:
    fails(gate, fault, on=on, **args)
    answer = edit(gate)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["x-imagegate-cost"] == "0.05"
    told = body["metadata"]
    assert (told["executed_model"], told["cost"]) == (f"fal/{SECOND}", 0.05)
    assert {one["fault"] for one in told["attempts"] if one["endpoint"] == FIRST} == {kind}
    assert [one["fault"] for one in told["attempts"] if one["endpoint"] == SECOND] == [None]
    assert sum(units for _, units in bought(gate)) == 1
    record = gate.record(body["id"])
    assert (record["status"], record["cost"]) == ("completed", 0.05)
    assert {one["endpoint"] for one in record["attempts"]} == {FIRST, SECOND}


STAYS: list[tuple[str, str, Json, int, str]] = [
    ("submit", "model_error", {"type": "content_policy_violation"}, 400, "content_policy_violation"),
    ("submit", "model_error", {"type": "image_load_error"}, 400, "invalid_image_file"),
    ("submit", "nsfw", {}, 400, "content_policy_violation"),
    ("submit", "http", {"status": 500}, 502, "upstream_ambiguous"),
    ("submit", "drop_before", {}, 502, "upstream_ambiguous"),
    ("submit", "drop_after", {}, 502, "upstream_ambiguous"),
    ("submit", "corrupt_image", {}, 502, "provider_bad_response"),
    ("result", "rate_limit", {}, 502, "provider_unavailable"),
    ("result", "http", {"status": 200, "body": {"video": {}}}, 502, "provider_bad_response"),
]


@pytest.mark.parametrize(("on", "fault", "args", "status", "code"), STAYS, ids=[f"{row[1]}-{row[4]}" for row in STAYS])
def test_a_refusal_a_mistake_and_money_end_it(
    gate: Gate, on: str, fault: str, args: Json, status: int, code: str
) -> None:
    fails(gate, fault, on=on, **args)
    answer = edit(gate, headers={"x-request-timeout": "6"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert SECOND not in {endpoint for endpoint, _ in bought(gate)}


def test_a_refusal_that_was_billed_is_told_and_booked_alike(gate: Gate) -> None:
    made = gate.http.post("/v1/keys", json={"name": "payer", "budget_day": 1}, headers=bearer(ADMIN)).json()
    detail = [{"loc": ["body"], "msg": "No.", "type": "content_policy_violation"}]
    billed = {"x-fal-billable-units": "1"}
    fails(gate, "http", on="result", status=422, body={"detail": detail}, headers=billed)
    answer = edit(gate, key=made["key"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_policy_violation")
    assert answer.json()["error"]["message"].endswith("It was charged: 0.03 USD.")
    assert answer.headers["x-imagegate-cost"] == "0.03"
    assert bought(gate) == [(FIRST, 1)]
    record = gate.http.get(f"/v1/requests/{answer.headers['x-request-id']}", headers=bearer(made["key"])).json()
    assert (record["status"], record["cost"]) == ("failed", 0.03)
    assert [(one["fault"], one["charged"]) for one in record["attempts"]] == [("refused", True)]
    [usage] = gate.http.get("/v1/usage", headers=bearer(ADMIN)).json()["data"]
    assert usage["cost"] == 0.03
    [key] = gate.http.get("/v1/keys", headers=bearer(ADMIN)).json()["data"]
    assert (key["spent"]["day"], key["spent"]["reserved"]) == (0.03, 0)


def test_what_each_one_lacks_is_noted_for_it(gate: Gate) -> None:
    first = edit(gate, style="ink").json()["metadata"]["parameters"]
    fails(gate, "http", status=503)
    second = edit(gate, style="ink").json()["metadata"]["parameters"]
    how = [{note["name"]: note["how"] for note in notes}["style"] for notes in (first, second)]
    assert how == ["passthrough", "ignored"]


def test_one_that_cannot_do_it_is_left_out(gate: Gate) -> None:
    fails(gate, "http", status=503)
    answer = edit(gate, seed=5000)  # the second one's seeds end at 1000
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unavailable")
    assert bought(gate) == []


def test_a_dry_run_tells_who_would_be_next(gate: Gate) -> None:
    told = edit(gate, path=f"{EDITS}?dryRun=true").json()
    assert (told["plan"]["endpoint"], told["total_cost_micros"]) == (FIRST, 30_000)
    assert [(one["endpoint"], one["total_cost_micros"]) for one in told["alternatives"]] == [(SECOND, 50_000)]
    told = edit(gate, path=f"{EDITS}?dryRun=true", seed=5000).json()
    assert "seed" in told["alternatives"][0]["impossible"]


@pytest.mark.parametrize("name", ["fal/two-ways", FIRST, f"fal/{FIRST}"])
def test_who_names_the_provider_gets_no_other(gate: Gate, name: str) -> None:
    fails(gate, "http", status=503)
    answer = edit(gate, name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unavailable")
    assert bought(gate) == []


def test_when_all_have_failed_each_ones_word_is_told(gate: Gate) -> None:
    fails(gate, "http", status=503)
    fails(gate, "unauthorized", SECOND)
    answer = edit(gate)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "all_providers_failed")
    assert error["message"].count("fal.ai: ") == 2
    assert error["message"].endswith("Nothing was charged.")
    assert answer.headers["x-imagegate-cost"] == "0"
    assert gate.records()[0]["cost"] == 0


def test_one_that_is_out_is_passed_over(gate: Gate) -> None:
    fails(gate, "http", status=503)
    until(lambda: edit(gate).json()["metadata"].get("attempts") is None, 60, what="the first one being left alone")
    before = len(gate.sandbox.jobs())
    assert edit(gate).json()["metadata"]["executed_model"] == f"fal/{SECOND}"
    assert len(gate.sandbox.jobs()) == before + 1


def test_an_endpoint_that_the_provider_does_not_know_costs_nobody_else(gate: Gate) -> None:
    fails(gate, "http", status=404)
    answer = edit(gate, model=f"fal/{FIRST}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_misconfigured")
    assert "does not know this model's endpoint" in answer.json()["error"]["message"]
    ready = gate.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")  # though it is the only one asked so far
    assert any(FIRST in problem for problem in ready.json()["problems"])
    assert edit(gate, model=f"fal/{SECOND}").status_code == 200
    fails(gate, "locked", endpoint=SECOND)
    assert edit(gate, model=f"fal/{SECOND}").status_code == 502
    assert gate.http.get("/readyz").status_code == 200


def test_of_several_pictures_those_that_are_paid_stay(gate: Gate) -> None:
    fails(gate, "infra_error", error_type="runner_server_error", times=1)
    answer = edit(gate, n=3)
    told = answer.json()["metadata"]
    assert answer.status_code == 200
    assert (len(answer.json()["data"]), len(told["failed"]), told["executed_model"]) == (2, 1, f"fal/{FIRST}")
    assert bought(gate) == [(FIRST, 0), (FIRST, 1), (FIRST, 1)]


def test_all_of_several_pictures_go_on_together(gate: Gate) -> None:
    fails(gate, "http", status=503)
    body = edit(gate, n=3, seed=7).json()
    assert len(body["data"]) == 3
    assert body["metadata"]["seeds"] == [7, 8, 9]
    assert bought(gate) == [(SECOND, 1)] * 3


def test_a_stream_goes_on_too(gate: Gate) -> None:
    fails(gate, "http", status=503)
    answer = edit(gate, n=2, stream="true")
    assert "x-imagegate-provider" not in answer.headers  # not known when they are sent
    events = list(events_of(answer.text))
    assert [name for name, _ in events] == ["image_edit.completed"] * 2
    assert events[-1][1]["metadata"]["executed_model"] == f"fal/{SECOND}"


def test_a_budget_has_room_for_the_dearer_one_or_nothing_is_sent(gate: Gate) -> None:
    def key(**limits: Any) -> str:
        answer = gate.http.post("/v1/keys", json={"name": "a test's", **limits}, headers=bearer(ADMIN))
        return str(answer.json()["key"])

    assert edit(gate, key=key(budget_total=0.04)).status_code == 402
    assert bought(gate) == []
    fails(gate, "http", status=503)
    rich = key(budget_total=0.1)
    assert edit(gate, key=rich).status_code == 200
    spent = gate.http.get("/v1/keys", headers=bearer(ADMIN)).json()["data"][0]["spent"]
    assert (spent["total"], spent["reserved"]) == (0.05, 0)


def test_the_answer_is_kept_under_its_key(gate: Gate) -> None:
    fails(gate, "http", status=503)
    data, headers = (
        {"model": "two-ways", "prompt": "night", "size": SIZE},
        bearer("sk-caller") | {"idempotency-key": "k"},
    )
    first, again = (
        gate.http.post(EDITS, data=data, files={"image": PICTURE}, headers=headers).json() for _ in range(2)
    )
    assert first["id"] == again["id"]
    assert again["metadata"]["executed_model"] == f"fal/{SECOND}"
    assert len(bought(gate)) == 1


def test_a_gateway_that_is_killed_at_the_second_one_brings_it_home(gate: Gate) -> None:
    fails(gate, "http", status=503)
    gate.sandbox.script({"on": "submit", "fault": "run_for", "args": {"seconds": 3}, "endpoint": SECOND, "times": None})
    headers = bearer("sk-caller") | {"idempotency-key": "k"}
    data = {"model": "two-ways", "prompt": "night", "size": SIZE}

    def ask() -> Any:
        return gate.http.post(EDITS, data=data, files={"image": PICTURE}, headers=headers)

    def killed() -> None:
        until(lambda: [job for job in gate.sandbox.jobs() if job["endpoint"] == SECOND], what="the second one's job")
        time.sleep(0.3)  # its ticket is on disk
        gate.child.signal(signal.SIGKILL)

    thread = threading.Thread(target=killed)
    thread.start()
    with pytest.raises(httpx2.HTTPError):
        ask()
    thread.join()
    gate.ended()
    gate.restart()
    answer = ask()
    assert answer.status_code == 200, answer.text
    told = answer.json()["metadata"]
    assert (told["executed_model"], told["cost"]) == (f"fal/{SECOND}", 0.05)
    assert bought(gate) == [(SECOND, 1)]
