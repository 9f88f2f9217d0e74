"""Model files -> Catalogue. Anything wrong in any file stops the start with file, line, place and reason; later on, the
catalogue that is in force stays."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from app.catalogue.files import HERE as HERE
from app.catalogue.files import CatalogueError as CatalogueError
from app.catalogue.files import ModelFiles, Names, Problem
from app.catalogue.files import load_common as load_common
from app.catalogue.schema import Mode, Model, Offer
from app.errors import ModelNotFound, UnsupportedMode

log = logging.getLogger("imagegate.catalogue")

MODE_WORDS: Mapping[Mode, str] = {"image-edit": "image editing", "text-to-image": "text-to-image"}
ENDPOINTS: Mapping[Mode, str] = {"image-edit": "/images/edits", "text-to-image": "/images/generations"}


@dataclass(frozen=True, slots=True)
class Found:
    """A caller's word for a model, resolved. `forced` = a provider was named: only its offers, no failover."""

    model: Model
    offers: tuple[Offer, ...]
    forced: bool = False

    def doing(self, mode: Mode) -> Found:
        """With those offers alone that do it, in their order. Raises UnsupportedMode."""
        offers = tuple(offer for offer in self.offers if mode in (offer.modes or self.model.modes))
        if not offers:
            able = [f"{mode} ({ENDPOINTS[mode]})" for mode in self.model.modes if mode in self._modes()]
            raise UnsupportedMode(
                f"Model '{self.model.id}' does not support {MODE_WORDS[mode]}. Supported modes: {', '.join(able)}.",
                param="model",
            )
        return replace(self, offers=offers)

    def _modes(self) -> set[Mode]:
        return {mode for offer in self.offers for mode in offer.modes or self.model.modes}


@dataclass(frozen=True, slots=True)
class _Shelf:
    """All that a catalogue holds. Exchanged as a whole, so that nobody sees half of it."""

    models: Mapping[str, Model]
    names: Mapping[str, Model]
    patterns: tuple[tuple[str, Model], ...]


class Catalogue:
    """All models, by id and by alias. `aliases` are the operator's: a name or a pattern (`gpt-image-*`) -> a model's
    name. A model's own names come first. Raises CatalogueError if models share a name or an alias leads nowhere.

    One for the life of the process: what it holds is exchanged (`replace`) on the event loop between two requests. Who
    has found a model keeps it.
    """

    def __init__(self, models: Iterable[Model], aliases: Mapping[str, str] | None = None) -> None:
        by_id: dict[str, Model] = {}
        names: dict[str, Model] = {}
        patterns: list[tuple[str, Model]] = []
        problems: list[str] = []
        for model in sorted(models, key=lambda model: model.rank):
            for name in (model.id, *model.aliases):
                if name in names:
                    problems.append(f"{model.id}: the name {name!r} already belongs to {names[name].id}")
                names.setdefault(name, model)
            by_id[model.id] = model
        for pattern, target in (aliases or {}).items():
            if target in names:
                patterns.append((pattern, names[target]))
            else:
                problems.append(f"aliases: {pattern!r} leads to {target!r}, and there is no such model")
        if problems:
            raise CatalogueError(*problems)
        self._shelf = _Shelf(by_id, names, tuple(patterns))
        self._listeners: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[Model]:
        return iter(self._shelf.models.values())

    def __len__(self) -> int:
        return len(self._shelf.models)

    def offers(self) -> list[str]:
        """Every offer as breakers name it: `provider/endpoint`."""
        return [f"{offer.provider}/{offer.endpoint}" for model in self for offer in model.offers]

    def providers(self) -> list[str]:
        """The providers that some model needs, by name."""
        return sorted({offer.provider for model in self for offer in model.offers})

    def replace(self, other: Catalogue) -> None:
        """Hold what `other` holds, from now on."""
        self._shelf = other._shelf
        for listener in self._listeners:
            listener()

    def on_replace(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each exchange: for what is derived from the models. It must not raise."""
        self._listeners.append(listener)

    def differences(self, other: Catalogue) -> list[str]:
        """What `other` would change: `added x`, `changed y`, `removed z`."""
        old, new = self._shelf, other._shelf
        found = [f"added {id}" for id in new.models if id not in old.models]
        found += [f"changed {id}" for id, model in new.models.items() if id in old.models and old.models[id] != model]
        found += [f"removed {id}" for id in old.models if id not in new.models]
        if [(p, m.id) for p, m in old.patterns] != [(p, m.id) for p, m in new.patterns]:
            found.append("changed aliases")
        return found

    def find(self, name: str) -> Found | None:
        """By id, alias, or `provider/model`; None if there is no such model."""
        shelf = self._shelf
        if model := shelf.names.get(name):
            return Found(model, model.offers)
        provider, slash, rest = name.partition("/")
        if slash and (model := shelf.names.get(rest)):
            offers = tuple(offer for offer in model.offers if offer.provider == provider)
            if offers:
                return Found(model, offers, forced=True)
        # The provider's own name for it, as the answer's executed_model shows it. An operator's file comes before ours.
        for model in reversed(list(shelf.models.values())):
            offers = tuple(o for o in model.offers if name in (o.endpoint, f"{o.provider}/{o.endpoint}"))
            if offers:
                return Found(model, offers, forced=True)
        for pattern, model in shelf.patterns:
            if fnmatchcase(name, pattern):
                return Found(model, model.offers)
        return None

    def require(self, name: str) -> Found:
        """By any of its names. Raises ModelNotFound, with the name that was probably meant."""
        found = self.find(name)
        if found is None:
            nearest = self.nearest(name)
            hint = f" Did you mean '{nearest}'?" if nearest else ""
            raise ModelNotFound(f"The model '{name[:128]}' does not exist.{hint}", param="model")
        return found

    def nearest(self, name: str) -> str | None:
        """The name that was probably meant, for "did you mean"."""
        lowered = {known.lower(): known for known in self._shelf.names}
        match = difflib.get_close_matches(name.lower().rpartition("/")[2] or name, lowered, n=1, cutoff=0.5)
        return lowered[match[0]] if match else None


def load_model(path: Path, common: Mapping[str, Mapping[str, Any]]) -> Model:
    """One model file, its offers completed by the common rows of its first mode. Raises CatalogueError."""
    return ModelFiles(common=common).model(path)


def load_catalogue(
    folders: Iterable[Path],
    *,
    providers: frozenset[str],
    converters: frozenset[str],
    emulators: frozenset[str],
    aliases: Mapping[str, str] | None = None,
) -> Catalogue:
    """As `read_catalogue`, once."""
    return read_catalogue(ModelFiles(Names(providers, converters, emulators)), folders, aliases)


def read_catalogue(files: ModelFiles, folders: Iterable[Path], aliases: Mapping[str, str] | None = None) -> Catalogue:
    """Every `*.yaml` in the folders. A later folder's model replaces an earlier one of the same id. Raises
    CatalogueError with all that is wrong in any of them."""
    models: dict[str, Model] = {}
    problems: list[Problem] = []
    for folder in folders:
        if not folder.is_dir():
            problems.append(Problem(f"{folder}: no such folder of model files"))
            continue
        found, wrong = read_folder(files, folder)
        problems += wrong
        for id, (_, model) in found.items():
            if id in models:
                log.info("%s replaces the built-in model %s", found[id][0], id)
            models[id] = model
    if problems:
        raise CatalogueError(*problems)
    return Catalogue(models.values(), aliases)


def read_folder(files: ModelFiles, folder: Path) -> tuple[dict[str, tuple[Path, Model]], list[Problem]]:
    """The models of one folder by id, with their files, and what is wrong with it."""
    found: dict[str, tuple[Path, Model]] = {}
    problems: list[Problem] = []
    for path in model_paths(folder):
        try:
            model = files.model(path)
        except CatalogueError as error:
            problems += error.problems
            continue
        if model.id in found:
            problems.append(Problem(f"{found[model.id][0].name} has this id, too", path.name, None, model.id))
        else:
            found[model.id] = path, model
    return found, problems


def model_paths(folder: Path) -> list[Path]:
    """The model files of a folder. Not what an editor hides there while it writes."""
    return sorted(path for path in (*folder.glob("*.yaml"), *folder.glob("*.yml")) if not path.name.startswith("."))
