"""Entry points -> provider classes. Ours come through the same door as a stranger's; a duplicate or a class that does
not keep the contract stops the start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from app.secretfile import SUFFIX, SecretFileError, given_secret
from providers.base import Clock, Importer, Provider, Sandbox, Setting

if TYPE_CHECKING:
    import httpx2

PROVIDERS = "imagegate.providers"
SANDBOXES = "imagegate.sandboxes"
IMPORTERS = "imagegate.importers"
LABEL = "label"  # what people call a provider: an attribute of its class, or a setting
ADAPTER = "adapter"  # under providers.<name>: the adapter that goes by a name of its own there
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class RegistryError(Exception):
    """A plug-in that cannot be used, or settings that a provider lacks."""


class ProviderClass(Protocol):
    """A class that keeps the contract: what it says of itself, and how it is built."""

    name: str
    settings: tuple[Setting, ...]

    def __call__(self, settings: Mapping[str, str], http: httpx2.AsyncClient, clock: Clock) -> Provider:
        """An adapter, ready for requests."""


def provider_classes(configured: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, ProviderClass]:
    """Every installed adapter by its name, and what `configured` (the setting `providers`) makes of them under further
    names: `{local: {adapter: openai_compatible, …}}`. Raises RegistryError."""
    installed = {name: _checked(name, loaded) for name, loaded in _load(PROVIDERS).items()}
    found = dict(installed)
    for name, settings in (configured or {}).items():
        adapter = settings.get(ADAPTER, name)
        if adapter != name:
            found[name] = _instance(name, adapter, installed)
        elif name not in installed:
            raise RegistryError(
                f"providers.{name}: no such provider (installed: {', '.join(sorted(installed))}; "
                f"`{ADAPTER}` names the one that it is an instance of)"
            )
    readers: dict[str, str] = {}
    for name in sorted(found):
        for one in found[name].settings:
            if other := readers.get(one.env):
                raise RegistryError(f"providers.{name}: {one.env} is a setting of {other}, too: choose another name")
            readers[one.env] = name
    return found


def provider_variables(classes: Iterable[ProviderClass]) -> set[str]:
    """The environment variables that adapters read."""
    settings = [one for kind in classes for one in kind.settings]
    return {one.env for one in settings} | {one.env + SUFFIX for one in settings if one.secret}


def sandboxes() -> dict[str, Sandbox]:
    """Every installed stand-in, by the name of the provider whose place it takes."""
    return dict(_load(SANDBOXES))


def importers() -> dict[str, Importer]:
    """What drafts model files, by the name of the provider. Raises RegistryError."""
    return dict(_load(IMPORTERS))


def settings_for(
    provider: ProviderClass, configured: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[Setting]]:
    """One adapter's settings (environment over file over default), and the required ones that nobody gave. A secret
    can lie in a file of its own: NAME_FILE names it.

    Raises RegistryError for a setting that the adapter does not know, and for a secret's file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    known = provider.settings
    for key in configured:
        if key != ADAPTER and key not in {setting.name for setting in known}:
            options = ", ".join(setting.name for setting in known)
            raise RegistryError(f"providers.{provider.name}.{key}: no such setting (known: {options})")
    try:
        given = {one.name: given_secret(one.env, environ) if one.secret else environ.get(one.env) for one in known}
    except SecretFileError as error:
        raise RegistryError(f"providers.{provider.name}: {error}") from None
    values = {one.name: given[one.name] or configured.get(one.name) or one.default for one in known}
    return values, [setting for setting in known if setting.required and not values[setting.name]]


def _instance(name: str, adapter: str, installed: Mapping[str, ProviderClass]) -> ProviderClass:
    """The adapter under another name, with environment variables of its own: IMAGEGATE_PROVIDERS_<NAME>_<SETTING>."""
    if adapter not in installed:
        raise RegistryError(f"providers.{name}.{ADAPTER}: no {adapter!r} (installed: {', '.join(sorted(installed))})")
    if name in installed:
        raise RegistryError(f"providers.{name}.{ADAPTER}: {name} is the name of an adapter: choose another")
    if not _NAME.fullmatch(name):
        raise RegistryError(f"providers.{name}: a name has letters a-z, digits and _, and starts with a letter")
    kind: Any = installed[adapter]
    settings = tuple(
        replace(
            one,
            env=f"IMAGEGATE_PROVIDERS_{name.upper()}_{one.name.upper()}",
            default=_told_apart(one.default, name) if one.name == LABEL else one.default,
        )
        for one in kind.settings
    )
    label = _told_apart(getattr(kind, LABEL, ""), name)
    named: Any = type(kind.__name__, (kind,), {"name": name, "settings": settings, LABEL: label})
    checked: ProviderClass = named
    return checked


def _told_apart(label: str, name: str) -> str:
    """A provider's label, where several have the same."""
    return f"{label} ({name})" if label else name


def _load(group: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entry_points(group=group):
        if entry.name in found:
            raise RegistryError(f"two packages install {group}:{entry.name}")
        try:
            found[entry.name] = entry.load()
        except Exception as error:
            raise RegistryError(f"{group}:{entry.name} ({entry.value}) cannot be loaded: {error!r}") from error
    if not found:
        raise RegistryError(f"no {group} is installed: install this package itself (pip install -e . --no-deps)")
    return found


def _checked(name: str, loaded: Any) -> ProviderClass:
    for part in ("name", "settings", "submit", "collect", "cancel"):
        if not hasattr(loaded, part):
            raise RegistryError(f"{PROVIDERS}:{name}: {loaded!r} has no {part!r} (see providers/base.py)")
    if loaded.name != name:
        raise RegistryError(f"{PROVIDERS}:{name}: the class calls itself {loaded.name!r}")
    provider: ProviderClass = loaded
    return provider
