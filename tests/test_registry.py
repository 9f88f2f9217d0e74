"""Adapters under names of their own: several instances of one, each with its settings and variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.config import unread_variables
from app.registry import RegistryError, provider_classes, provider_variables, settings_for
from providers.base import Finder
from providers.testing.clock import FakeClock

TWO = {
    "local": {"adapter": "openai_compatible", "base_url": "http://127.0.0.1:8091/v1"},
    "azure": {"adapter": "openai_compatible", "base_url": "https://x.example/openai/deployments/{model}"},
}


def built(name: str, environ: dict[str, str] | None = None, configured: Any = TWO) -> Any:
    kind = provider_classes(configured)[name]
    values, missing = settings_for(kind, configured.get(name, {}), environ or {})
    assert not missing
    http: Any = object()
    return kind(values, http, FakeClock())


def test_two_instances_of_one_adapter_go_by_their_own_names() -> None:
    assert {"fal", "openai_compatible", "local", "azure"} <= set(provider_classes(TWO))
    assert (built("local").name, built("azure").name) == ("local", "azure")
    assert provider_classes(TWO)["openai_compatible"].name == "openai_compatible"
    assert built("local").media_origins == {"http://127.0.0.1:8091"}
    assert [built(name).label for name in TWO] == [
        "OpenAI-compatible server (local)",
        "OpenAI-compatible server (azure)",
    ]
    assert built("local", configured={"local": {**TWO["local"], "label": "Ours"}}).label == "Ours"
    assert built("second", configured={"second": {"adapter": "fal", "key": "a:b"}}).label == "fal.ai (second)"


def test_an_instance_keeps_what_its_adapter_can_do() -> None:
    assert isinstance(built("second", configured={"second": {"adapter": "fal", "key": "a:b"}}), Finder)


def test_an_instance_has_variables_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-a-file\n")
    environ = {
        "IMAGEGATE_PROVIDERS_LOCAL_BASE_URL": "http://127.0.0.1:1/v1",
        "IMAGEGATE_PROVIDERS_LOCAL_KEY_FILE": str(tmp_path / "key"),
        "OPENAI_COMPATIBLE_KEY": "sk-of-another",
    }
    classes = provider_classes(TWO)
    values, _ = settings_for(classes["local"], TWO["local"], environ)
    assert (values["base_url"], values["key"]) == ("http://127.0.0.1:1/v1", "sk-from-a-file")
    assert settings_for(classes["azure"], TWO["azure"], environ)[0]["key"] == ""
    assert unread_variables(environ, provider_variables(classes.values())) == []
    assert unread_variables(environ) == ["IMAGEGATE_PROVIDERS_LOCAL_BASE_URL", "IMAGEGATE_PROVIDERS_LOCAL_KEY_FILE"]


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ({"local": {"adapter": "opanai"}}, "providers.local.adapter: no 'opanai'"),
        ({"local": {"base_url": "http://x"}}, "providers.local: no such provider"),
        ({"fal": {"adapter": "openai_compatible"}}, "providers.fal.adapter: fal is the name of an adapter"),
        ({"my-server": {"adapter": "fal"}}, "providers.my-server: a name has letters"),
    ],
)
def test_an_instance_that_cannot_be_made_stops_the_start(configured: dict[str, dict[str, str]], said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        provider_classes(configured)


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "ftp://x"},
        {"base_url": "http://x/v1?api-version=1"},
        {"send_model": "maybe"},
        {"edits": "fax"},
        {"seconds": "soon"},
        {"key": "with a space"},
    ],
)
def test_settings_that_cannot_be_used_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        built("local", configured={"local": TWO["local"] | change})
