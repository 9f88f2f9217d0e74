"""The dashboard and the alert rules name only metrics and labels that there are; promtool takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.telemetry.test_metrics import DOCS, ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "imagegate.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
# docs/metrics.md is what /metrics has: another test compares them.
LABELS = {
    name: set(re.findall(r"\w+", labels))
    for name, labels in re.findall(r"^\| `((?:imagegate|process)_\w+)` \| ([a-z, ]*) ?\|", DOCS, re.MULTILINE)
}
SCRAPED = {"instance", "job"}  # Prometheus' own labels


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_that_is_named_exists(where: str, expression: str) -> None:
    names = re.findall(r"\b((?:imagegate|process)_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert names
    known = set(SCRAPED)
    for name, selector in names:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert family == "up" or name in LABELS or family in LABELS, name
        labels = LABELS.get(name, LABELS.get(family, set())) | SCRAPED
        known |= labels | ({"le"} if name.endswith("_bucket") else set())
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= labels, name
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.findall(r"\w+", group)) <= known


def test_every_alert_says_what_is_so_and_what_to_do() -> None:
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_every_panel_has_its_own_id_and_place() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not installed")
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    return found


def run(*command: str, cwd: Path = PROMETHEUS) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_and_they_fire_when_they_should(promtool: str) -> None:
    run(promtool, "check", "rules", "alerts.yml")
    run(promtool, "test", "rules", "alerts.test.yml")


def test_promtool_takes_the_dashboards_expressions(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(expressions())
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", "panels.yml", cwd=tmp_path)
