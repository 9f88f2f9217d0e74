"""What can change while the gateway runs: model files, aliases, keys, the log level. docs/live.md says how.

A task looks once a second, in a thread, whether a file that matters has changed (its time, size or inode), and takes
the change in once it has been still for a second; SIGHUP takes it in at once. All of it is read and checked in the
thread; what is fine is then put in force on the event loop in one go, so that each request sees the old or the new,
whole. What is not fine is refused, said in the log and by /readyz, and what was in force stays.

Three things stand or fall each by themselves, so that a typo in a model file does not hold up a leaked key's exchange:
the settings, all model files together, and each provider's secrets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.api.auth import Authenticator
from app.breaker import Breakers
from app.catalogue.files import CatalogueError, ModelFiles
from app.catalogue.load import HERE, Catalogue, model_paths, read_catalogue
from app.config import Config, ConfigError, check_open, config_path, secret_variables, secrets_of
from app.delivery import Upstream
from app.errors import Overloaded
from app.fields import Strict
from app.models import model_folders
from app.registry import ADAPTER, ProviderClass, RegistryError, settings_for
from app.secretfile import secret_files
from providers.base import Provider, Renewable

log = logging.getLogger("imagegate.live")

POLL_SECONDS = 1.0
SHOWN = 20  # refusals that /readyz shows
LIVE = frozenset({"aliases", "models_dir", "log_level", "api_key", "admin_key", "providers"})
"""Settings that are taken in while the gateway runs (of `providers` only what is secret). The others need a restart."""

Settings = Mapping[str, Mapping[str, str]]  # complete, by provider


@dataclass(frozen=True, slots=True)
class Running:
    """What of the running gateway can change, and how."""

    catalogue: Catalogue
    upstreams: dict[str, Upstream]
    labels: dict[str, str]
    breakers: Breakers
    auth: Authenticator
    build: Callable[[str, Mapping[str, str]], Provider]  # an adapter; raises RegistryError
    attach: Callable[[Provider], Upstream]
    hide: Callable[[Iterable[str]], None]  # secrets, from the log


@dataclass(frozen=True, slots=True)
class _Fresh:
    """What the files say now, read and checked. Nothing of it is in force yet."""

    config: Config
    catalogue: Catalogue | None  # None: as it is
    settings: Settings
    refused: list[str]
    restart: list[str]


class Live:
    """One for the process. `load` reads the settings as the start did; `stand_ins` are the providers whose sandbox was
    started with the gateway."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        running: Running,
        *,
        load: Callable[[], Config],
        files: ModelFiles,
        classes: Mapping[str, ProviderClass],
        stand_ins: frozenset[str] = frozenset(),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._started = self._config = config
        self._settings = dict(settings)
        self._running = running
        self._load = load
        self._files = files
        self._classes = classes
        self._stand_ins = stand_ins
        self._stood_for: dict[str, Mapping[str, str]] = {}  # what the stand-ins' providers were set to
        self._environ = os.environ if environ is None else environ
        self._refused: list[str] = []
        self._restart: list[str] = []
        self._changes, self._changed = 0, time.time()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False

    def reload(self) -> None:
        """Look now, and take in what is there. May be called from a signal handler."""
        self._asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def view(self) -> dict[str, Any]:
        """For /readyz."""
        return {
            "changes": self._changes,
            "changed": int(self._changed),
            "refused": self._refused[:SHOWN],
            "needs_restart": self._restart,
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        self._loop = asyncio.get_running_loop()
        seen: object = None
        taken: object = None
        while True:
            if not self._asked:
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            self._wake.clear()
            asked, self._asked = self._asked, False
            try:
                marks = await asyncio.to_thread(self._marks)
                still, seen = marks == seen, marks
                if asked or (still and marks != taken):
                    taken = marks
                    self._take_in(await asyncio.to_thread(self._read, await self._has_keys()), asked=asked)
            except Exception:
                log.exception("the configuration cannot be watched: a defect of the gateway")

    async def _has_keys(self) -> bool:
        """Whether keys are in the database; as long as that cannot be asked there is no more than there is here."""
        try:
            return await self._running.auth.has_keys()
        except Overloaded:
            return False

    # ---- in a thread

    def _marks(self) -> tuple[tuple[str, object], ...]:
        """What is changed by a change to any file that matters."""
        secrets = [*secret_variables(), *(one.env for kind in self._classes.values() for one in kind.settings)]
        paths = [config_path(self._environ), HERE / "common.yaml", *secret_files(secrets, self._environ)]
        for folder in model_folders(self._config):
            paths += model_paths(folder)
        return tuple((str(path), _mark(path)) for path in paths)

    def _read(self, has_keys: bool) -> _Fresh:
        refused: list[str] = []
        config, restart = self._config, [name for name in self._restart if not name.startswith("providers.")]
        try:
            loaded = self._load()
            config = self._started.model_copy(update={name: getattr(loaded, name) for name in LIVE})
            check_open(config, has_keys=has_keys)
            restart = list(_differences(self._started, loaded))
        except ConfigError as error:
            config = self._config
            refused += str(error).splitlines()
        catalogue = None
        try:
            catalogue = read_catalogue(self._files, model_folders(config), config.aliases)
        except CatalogueError as error:
            refused += str(error).splitlines()
        settings: dict[str, Mapping[str, str]] = {}
        for name in sorted(set(config.providers) - set(self._classes)):
            if ADAPTER in config.providers[name]:
                restart.append(f"providers.{name}")
            else:
                refused.append(f"providers.{name}: no such provider (installed: {', '.join(sorted(self._classes))})")
        for name in sorted({*self._running.upstreams, *(catalogue.providers() if catalogue else ())}):
            try:
                settings[name] = self._settings_of(name, config, restart)
            except RegistryError as error:
                refused.append(str(error))
                if name not in self._running.upstreams:
                    catalogue = None
        return _Fresh(config, catalogue, settings, refused, restart)

    def _settings_of(self, name: str, config: Config, restart: list[str]) -> Mapping[str, str]:
        """A provider's settings with its secrets as they are now; what else has changed is added to `restart`."""
        kind, old = self._classes[name], self._settings.get(name)
        values, missing = settings_for(kind, config.providers.get(name, {}), self._environ)
        if name in self._stand_ins and old is not None:
            if self._stood_for.setdefault(name, values) != values:
                restart.append(f"providers.{name}")
            return old
        if missing:
            needed = ", ".join(f"{setting.env} ({setting.doc.rstrip('.')})" for setting in missing)
            raise RegistryError(f"provider {name} lacks {needed}")
        if old is None:
            return values
        started, now = (one.providers.get(name, {}).get(ADAPTER, name) for one in (self._started, config))
        if started != now:
            restart.append(f"providers.{name}.{ADAPTER}")
        restart += [
            f"providers.{name}.{s.name}" for s in kind.settings if not s.secret and values[s.name] != old[s.name]
        ]
        return {s.name: (values if s.secret else old)[s.name] for s in kind.settings}

    # ---- on the event loop, without a pause

    def _take_in(self, fresh: _Fresh, *, asked: bool) -> None:
        running, refused, changes = self._running, list(fresh.refused), list[str]()
        catalogue = fresh.catalogue
        running.hide(secrets_of(fresh.config))
        for name, values in fresh.settings.items():
            try:
                changes += self._take_in_provider(name, values)
            except (ValueError, RegistryError, ConfigError) as error:
                refused.append(f"provider {name}: {error}")
                if name not in running.upstreams:
                    catalogue = None
        for name in ("api_key", "admin_key"):
            if getattr(fresh.config, name) != getattr(self._config, name):
                changes.append(f"changed {name}")
        running.auth.renew(fresh.config.api_key.get_secret_value(), fresh.config.admin_key.get_secret_value())
        if fresh.config.log_level != self._config.log_level:
            logging.getLogger().setLevel(fresh.config.log_level.upper())
            changes.append(f"changed log_level to {fresh.config.log_level}")
        self._config = fresh.config
        if catalogue is not None and (differences := running.catalogue.differences(catalogue)):
            running.catalogue.replace(catalogue)
            running.breakers.keep(running.catalogue.offers())
            changes += differences
        if changes:
            self._changes, self._changed = self._changes + 1, time.time()
        self._say(changes, refused, fresh.restart, asked)
        self._refused, self._restart = refused, fresh.restart

    def _take_in_provider(self, name: str, values: Mapping[str, str]) -> list[str]:
        running, old = self._running, self._settings.get(name)
        if old == values:
            return []
        running.hide(values[one.name] for one in self._classes[name].settings if one.secret)
        upstream = running.upstreams.get(name)
        if upstream is None:
            provider = running.build(name, values)
            running.upstreams[name], running.labels[name] = running.attach(provider), provider.label
            self._settings[name] = values
            return [f"added provider {name}"]
        if isinstance(upstream.provider, Renewable):
            upstream.provider.renew(values)
        else:
            running.upstreams[name] = replace(upstream, provider=running.build(name, values))
        self._settings[name] = values
        running.breakers.unlock(name)
        return [f"changed the key of provider {name}"]

    def _say(self, changes: list[str], refused: list[str], restart: list[str], asked: bool) -> None:
        if changes:
            log.info("taken in: %s", ", ".join(changes))
        elif asked and not refused:
            log.info("nothing to take in")
        for reason in refused if asked or refused != self._refused else ():
            log.error("refused, what was there before stays in force: %s", reason)
        for name in restart:
            if asked or name not in self._restart:
                log.warning("%s has changed: that takes a restart", name)


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _differences(old: Strict, new: Strict, prefix: str = "") -> Iterator[str]:
    """The settings that differ and are not `LIVE`, by their names in config.yaml."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after or (not prefix and name in LIVE):
            continue
        if isinstance(before, Strict):
            yield from _differences(before, after, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
