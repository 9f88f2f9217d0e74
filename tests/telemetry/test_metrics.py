"""/metrics, through the real door: what it counts, who may read it, and that docs/metrics.md has a line for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import KEY, MODEL, Served, StartGateway
from tests.faults.gate import until

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "metrics.md").read_text("utf-8")
ASK = {"model": MODEL, "prompt": "a prompt that nobody may count", "size": "512x512"}

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(gateway: Served) -> dict[Sample, float]:
    answer = gateway.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.text)


def gain(gateway: Served, work: Callable[[], object]) -> Callable[..., float]:
    """gain(name, label=value …) -> by how much the sum of such samples grew while `work` was done."""
    before = read(gateway)
    work()
    after = read(gateway)

    def grown(name: str, **labels: str) -> float:
        def total(of: dict[Sample, float]) -> float:
            return sum(value for (what, found), value in of.items() if what == name and labels.items() <= set(found))

        return total(after) - total(before)

    return grown


@pytest.fixture(scope="module")
def counted(start_gateway: StartGateway) -> Served:
    """A gateway that nobody else asks."""
    return start_gateway(IMAGEGATE_API_KEY=KEY, IMAGEGATE_METRICS_KEY="a key for metrics")


def edit(gateway: Served, photo: bytes, **more: str) -> int:
    return gateway.post(data=ASK | more, files={"image": photo}).status_code


def test_an_edit_is_counted_on_its_whole_way(counted: Served, photo: bytes) -> None:
    more = gain(counted, lambda: edit(counted, photo, n="2", output_format="webp"))
    route = "/openai/v1/images/edits"
    assert more("imagegate_requests_total", route=route, status="200", model=MODEL) == 1
    assert more("imagegate_request_seconds_count", route=route) == 1
    assert more("imagegate_received_bytes_total", route=route) > len(photo)
    assert more("imagegate_sent_bytes_total", route=route) > 100
    assert more("imagegate_edits_total", provider="fal", model=MODEL, status="completed") == 1
    assert more("imagegate_pictures_total", model=MODEL, outcome="made") == 2
    assert more("imagegate_cost_total", provider="fal", model=MODEL, currency="USD") == pytest.approx(0.06)
    assert more("imagegate_upstream_jobs_total", outcome="done") == 2
    assert more("imagegate_upstream_exchanges_total", provider="fal", method="POST", status="200") >= 2
    assert more("imagegate_encode_seconds_count", format="webp") == 2
    assert more("imagegate_database_seconds_count", operation="write") >= 3
    jobs = {phase: more("imagegate_phase_seconds_count", phase=phase) for phase in ("queue", "submit", "wait", "store")}
    assert jobs == dict.fromkeys(jobs, 2)
    assert more("imagegate_phase_seconds_count", phase="receive") == 1
    assert more("imagegate_cost_unknown_total") == 0


def test_a_failure_is_counted_by_its_kind(counted: Served, script: Callable[..., None], photo: bytes) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}, "times": 1})
    more = gain(counted, lambda: edit(counted, photo))
    assert more("imagegate_faults_total", provider="fal", fault="refused") == 1
    assert more("imagegate_upstream_jobs_total", outcome="refused") == 1
    assert more("imagegate_edits_total", status="failed") == 1
    assert more("imagegate_pictures_total", outcome="failed") == 1
    assert more("imagegate_cost_total") == 0


def test_what_strangers_make_up_is_one_label(counted: Served, photo: bytes) -> None:
    def ask() -> None:
        for number in range(5):
            counted.get(f"/made/up/{number}")
            edit(counted, photo, model=f"made-up-{number}")

    more = gain(counted, ask)
    assert more("imagegate_requests_total", route="other", status="404", model="") == 5
    assert more("imagegate_requests_total", model="other", status="404") == 5
    assert "made-up" not in counted.get("/metrics").text


def test_no_secret_and_no_request_is_a_label(counted: Served, photo: bytes) -> None:
    answer = counted.post(data=ASK, files={"image": photo})
    text = counted.get("/metrics").text
    for word in (KEY, "sandbox:sandbox", "sig=", "nobody may count", answer.headers["x-request-id"], "a key for"):
        assert word not in text


def test_every_metric_has_its_line_and_every_line_its_metric(counted: Served, photo: bytes) -> None:
    edit(counted, photo, output_format="webp")
    families = list(text_string_to_metric_families(counted.get("/metrics").text))
    named = {f"{one.name}_total" if one.type == "counter" else one.name: one for one in families}
    told = dict(re.findall(r"^\| `((?:imagegate|process)_\w+)` \| ([a-z, ]*) ?\|", DOCS, re.MULTILINE))
    assert set(told) == set(named)
    assert all(one.documentation for one in families)
    for name, one in named.items():
        labels = {label for sample in one.samples for label in sample.labels} - {"le"}
        assert not labels or labels == set(re.findall(r"\w+", told[name])), name


def test_what_the_log_has_is_counted_beside_what_it_lacks(start_gateway: StartGateway, photo: bytes) -> None:
    gateway = start_gateway(IMAGEGATE_API_KEY=KEY)
    before = read(gateway)["imagegate_log_written_total", ()]  # other tests may share the gateway
    assert [edit(gateway, photo) for _ in range(2)] == [200, 200]
    until(lambda: read(gateway)["imagegate_log_written_total", ()] >= before + 2)
    assert read(gateway)["imagegate_log_dropped_total", ()] == 0


class TestWhoMayRead:
    def test_this_machine_without_a_key(self, counted: Served) -> None:
        assert counted.http.get("/metrics", headers={"authorization": ""}).status_code == 200

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip"])
    def test_nobody_through_a_proxy_on_this_machine(self, counted: Served, header: str) -> None:
        for authorization in ("", f"Bearer {KEY}", "Bearer wrong"):  # callers' keys open nothing here
            answer = counted.http.get("/metrics", headers={header: "127.0.0.1", "authorization": authorization})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")

    def test_who_has_the_key_from_anywhere(self, counted: Served) -> None:
        headers = {"x-forwarded-for": "203.0.113.9", "authorization": "Bearer a key for metrics"}
        assert counted.http.get("/metrics", headers=headers).status_code == 200

    def test_nobody_where_no_network_is_allowed(self, start_gateway: StartGateway) -> None:
        elsewhere = start_gateway(IMAGEGATE_METRICS_ALLOW="10.0.0.0/8")
        assert elsewhere.get("/metrics").status_code == 401


def test_metrics_that_are_off_are_not_there(start_gateway: StartGateway, photo: bytes) -> None:
    off = start_gateway(IMAGEGATE_METRICS_ENABLED="false")
    assert off.get("/metrics").status_code == 404
    assert edit(off, photo) == 200


def test_a_network_that_is_none_stops_the_start() -> None:
    from app.config import ConfigError, load_config

    with pytest.raises(ConfigError, match=r"metrics\.allow"):
        load_config({"IMAGEGATE_CONFIG": "", "IMAGEGATE_METRICS_ALLOW": "10.0.0.0/99"})


def test_open_metrics_for_who_asks_for_it(counted: Served) -> None:
    answer = counted.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
