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
    from app.config import unread_variables
    from app.registry import provider_classes, provider_variables

    local = provider_classes({"local": {"adapter": "openai_compatible"}})["local"]  # as docs/providers.md has it
    named = {
        page.name: set(re.findall(r"\bIMAGEGATE_[A-Z_]+[A-Z]\b", page.read_text("utf-8"))) for page in DOCS.glob("*.md")
    }
    assert any(named.values())
    unread = {
        name: unread_variables(dict.fromkeys(found, "x"), provider_variables([local])) for name, found in named.items()
    }
    assert {name: found for name, found in unread.items() if found} == {}


def test_every_setting_that_lives_is_on_its_page() -> None:
    from app.config import Config
    from app.live import LIVE

    page = (ROOT / "docs" / "live.md").read_text("utf-8")
    table = page.partition("## What is taken in")[2].partition("**Every other setting")[0]
    assert set(re.findall(r"`(\w+)(?:\.\w+)*`", table)) & set(Config.model_fields) == LIVE


def test_the_settings_page_is_what_the_code_declares() -> None:
    from tools.pages import configuration

    assert (DOCS / "configuration.md").read_text("utf-8") == configuration(), "run: make docs"


def test_every_setting_has_its_line_with_a_variable_that_is_read() -> None:
    from app.config import Config, unread_variables
    from app.fields import Strict

    page = (DOCS / "configuration.md").read_text("utf-8")
    lines = dict(re.findall(r"^\| `([\w.]+)` \| `(\w+)`.* \| (?:.+) \|$", page, re.MULTILINE))
    for name, field in Config.model_fields.items():
        group = field.annotation
        inside = isinstance(group, type) and issubclass(group, Strict)
        names = [f"{name}.{one}" for one in group.model_fields] if inside else [name]  # type: ignore[union-attr]
        for one in names:
            assert lines[one] == f"IMAGEGATE_{one.replace('.', '_').upper()}"
    ours = {variable: "x" for variable in lines.values() if variable.startswith("IMAGEGATE_")}
    assert unread_variables(ours) == []
    assert all(field.description for field in Config.model_fields.values() if not isinstance(field.default, Strict))


def test_every_parameter_has_its_line_and_the_tables_are_the_rows() -> None:
    from tools.pages import filled, models

    page = (DOCS / "parameters.md").read_text("utf-8")
    assert page == filled(page), "run: make docs"
    named = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    rows = {name for model in models() for offer in model.offers for name in offer.params}
    assert len(rows) > 20
    assert rows <= named
