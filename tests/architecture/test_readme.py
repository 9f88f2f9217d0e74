"""The README says what is so: its commands and settings exist, and it leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from app.config import Config, Limits, LogSettings, MetricsSettings, Results, StorageSettings
from app.registry import provider_classes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"(?:`|\$ |secret )make ([a-z]+)", README))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_into_the_tree_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_can_be_reached_from_it() -> None:
    seen, left = set(), {ROOT / "README.md"}
    while left:
        page = left.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)#:\s]+\.md)", page.read_text("utf-8"))
        left |= {(page.parent / link).resolve() for link in links} - seen
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page not in seen] == []
    assert len(README.splitlines()) < 150  # a newcomer's page


def test_every_variable_that_is_named_is_read() -> None:
    known = {f"IMAGEGATE_{name.upper()}" for name in Config.model_fields} | {"IMAGEGATE_CONFIG"}
    known |= {setting.env for provider in provider_classes().values() for setting in provider.settings}
    known |= {f"{s.env}_FILE" for provider in provider_classes().values() for s in provider.settings if s.secret}
    named = set(re.findall(r"\b(?:IMAGEGATE|FAL)_[A-Z_]+\b", README))
    assert named
    assert named <= known


def test_config_yaml_shows_every_setting_with_its_default() -> None:
    text = (ROOT / "config.yaml").read_text("utf-8")
    shown = yaml.safe_load(re.sub(r"^# (?=[ a-z_]+:)", "", text, flags=re.MULTILINE))
    assert set(shown) == set(Config.model_fields)
    Config.model_validate({name: value for name, value in shown.items() if value is not None and name != "providers"})
    for group, model in (
        ("limits", Limits),
        ("results", Results),
        ("storage", StorageSettings),
        ("metrics", MetricsSettings),
        ("log", LogSettings),
    ):
        assert set(shown[group]) == set(model.model_fields)
        assert model.model_validate(shown[group]) == model()
