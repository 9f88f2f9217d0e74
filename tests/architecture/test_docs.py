"""The pages under docs/ name only what exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CLIENTS = (DOCS / "clients.md").read_text("utf-8")


def test_every_test_that_a_page_names_exists() -> None:
    tests = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tests |= set(re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    pages = {page.name: set(re.findall(r"`(test_\w+)`", page.read_text("utf-8"))) for page in DOCS.glob("*.md")}
    assert pages["clients.md"]
    assert {name: named - tests for name, named in pages.items() if named - tests} == {}


def test_every_recording_that_is_named_exists_and_all_clients_of_the_reference_are_named() -> None:
    recordings = {path.stem for path in (ROOT / "tests" / "recorded").glob("*.http")}
    named = set(re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"recorded (`.*?`) \|", CLIENTS))))
    assert named
    assert named <= recordings
    for client in ("Open WebUI", "LibreChat", "n8n", "LobeChat", "Cherry Studio", "Hermes", "Codex"):
        assert client in CLIENTS


def test_every_variable_that_a_page_names_is_in_the_settings() -> None:
    from app.config import Config, Limits, LogSettings, MetricsSettings, Results, StorageSettings, secret_variables
    from app.registry import provider_classes, provider_variables

    known = {f"IMAGEGATE_{name.upper()}" for name in Config.model_fields}
    known |= {f"IMAGEGATE_LIMITS_{name.upper()}" for name in Limits.model_fields}
    known |= {f"IMAGEGATE_RESULTS_{name.upper()}" for name in Results.model_fields}
    known |= {f"IMAGEGATE_STORAGE_{name.upper()}" for name in StorageSettings.model_fields}
    known |= {f"{name}_FILE" for name in secret_variables()}
    known |= {f"IMAGEGATE_METRICS_{name.upper()}" for name in MetricsSettings.model_fields}
    known |= {f"IMAGEGATE_LOG_{name.upper()}" for name in LogSettings.model_fields}
    local = provider_classes({"local": {"adapter": "openai_compatible"}})["local"]
    known |= provider_variables([local])  # an instance, as docs/providers.md has it
    pages = {
        page.name: set(re.findall(r"\bIMAGEGATE_[A-Z_]+\b", page.read_text("utf-8"))) for page in DOCS.glob("*.md")
    }
    assert any(pages.values())
    assert {name: named - known for name, named in pages.items() if named - known} == {}


def test_every_setting_that_lives_is_on_its_page() -> None:
    from app.config import Config
    from app.live import LIVE

    page = (ROOT / "docs" / "live.md").read_text("utf-8")
    table = page.partition("## What is taken in")[2].partition("**Every other setting")[0]
    assert set(re.findall(r"`(\w+)(?:\.\w+)*`", table)) & set(Config.model_fields) == LIVE
