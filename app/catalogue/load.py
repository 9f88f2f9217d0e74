"""Model files -> Catalogue. Anything wrong in any file stops the start with file, place and reason."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.catalogue.schema import Model, Offer
from app.errors import ModelNotFound

log = logging.getLogger("imagegate.catalogue")

HERE = Path(__file__).parent


class _Loader(yaml.SafeLoader):
    """YAML without the traps of version 1.1: 16:9 is a ratio and not 969, and on, off, yes and no are words."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are all different; what is merged in (`<<`) may be replaced."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float", "bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


class CatalogueError(Exception):
    """A model file that cannot be used. The message names the file, the place in it and the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """A caller's word for a model, resolved. `forced` = a provider was named: only its offers, no failover."""

    model: Model
    offers: tuple[Offer, ...]
    forced: bool = False


class Catalogue:
    """All models, by id and by alias. `aliases` are the operator's: a name or a pattern (`gpt-image-*`) -> a model's
    name. A model's own names come first. Raises CatalogueError if two models share a name or an alias leads nowhere."""

    def __init__(self, models: Iterable[Model], aliases: Mapping[str, str] | None = None) -> None:
        self._models: dict[str, Model] = {}
        self._names: dict[str, Model] = {}
        self._patterns: list[tuple[str, Model]] = []
        for model in models:
            for name in (model.id, *model.aliases):
                if name in self._names:
                    raise CatalogueError(f"{model.id}: the name {name!r} already belongs to {self._names[name].id}")
                self._names[name] = model
            self._models[model.id] = model
        for pattern, target in (aliases or {}).items():
            if target not in self._names:
                raise CatalogueError(f"aliases: {pattern!r} leads to {target!r}, and there is no such model")
            self._patterns.append((pattern, self._names[target]))

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: str) -> Found | None:
        """By id, alias, or `provider/model`; None if there is no such model."""
        if model := self._names.get(name):
            return Found(model, model.offers)
        provider, slash, rest = name.partition("/")
        if slash and (model := self._names.get(rest)):
            offers = tuple(offer for offer in model.offers if offer.provider == provider)
            if offers:
                return Found(model, offers, forced=True)
        for model in self._models.values():  # the provider's own name for it, as the answer's executed_model shows it
            offers = tuple(o for o in model.offers if name in (o.endpoint, f"{o.provider}/{o.endpoint}"))
            if offers:
                return Found(model, offers, forced=True)
        for pattern, model in self._patterns:
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
        lowered = {known.lower(): known for known in self._names}
        match = difflib.get_close_matches(name.lower().rpartition("/")[2] or name, lowered, n=1, cutoff=0.5)
        return lowered[match[0]] if match else None


def load_common(path: Path = HERE / "common.yaml") -> dict[str, dict[str, Any]]:
    """The rows that every offer has unless its file says otherwise, by mode."""
    raw = _read(path)
    if not isinstance(raw, dict):
        raise CatalogueError(f"{path.name}: expected a mapping of modes to rows")
    return raw


def load_model(path: Path, common: Mapping[str, Mapping[str, Any]]) -> Model:
    """One model file, its offers completed by the common rows of its first mode. Raises CatalogueError."""
    raw = _read(path)
    if not isinstance(raw, dict):
        raise CatalogueError(f"{path.name}: expected a mapping, found {type(raw).__name__}")
    modes = raw.get("modes")
    rows = common.get(str(modes[0]), {}) if isinstance(modes, list) and modes else {}
    offers = raw.get("offers")
    if isinstance(offers, list):
        for offer in offers:
            if isinstance(offer, dict) and isinstance(offer.get("params"), dict):
                offer["params"] = {**offer["params"], **{k: v for k, v in rows.items() if k not in offer["params"]}}
    try:
        return Model.model_validate(raw)
    except ValidationError as error:
        raise CatalogueError("\n".join(_reasons(path.name, error))) from None


def load_catalogue(
    folders: Iterable[Path],
    *,
    providers: frozenset[str],
    converters: frozenset[str],
    emulators: frozenset[str],
    aliases: Mapping[str, str] | None = None,
) -> Catalogue:
    """Every `*.yaml` in the folders. A later folder's model replaces an earlier one of the same id.

    `providers`, `converters` and `emulators` are the names that exist: an unknown one is an error here, at the start,
    rather than in somebody's request.
    """
    common = load_common()
    models: dict[str, Model] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CatalogueError(f"{folder}: no such folder of model files")
        here: dict[str, str] = {}
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            model = check_model(
                load_model(path, common),
                path.name,
                providers=providers,
                converters=converters,
                emulators=emulators,
            )
            if model.id in here:
                raise CatalogueError(f"{path.name}: {model.id}: {here[model.id]} has this id, too")
            here[model.id] = path.name
            if model.id in models:
                log.info("%s replaces the built-in model %s", path, model.id)
            models[model.id] = model
    return Catalogue(models.values(), aliases)


def check_model(
    model: Model, file: str, *, providers: frozenset[str], converters: frozenset[str], emulators: frozenset[str]
) -> Model:
    """The model, if every name in it exists. Raises CatalogueError."""
    problem = next(_unknown_names(model, providers, converters, emulators), None)
    if problem:
        raise CatalogueError(f"{file}: {model.id}: {problem}")
    return model


def _unknown_names(
    model: Model, providers: frozenset[str], converters: frozenset[str], emulators: frozenset[str]
) -> Iterator[str]:
    for offer in model.offers:
        if offer.provider not in providers:
            yield f"offer {offer.endpoint}: no provider {offer.provider!r} (installed: {', '.join(sorted(providers))})"
        for name, row in offer.params.items():
            if row.how == "converted" and row.by not in converters:
                yield f"row {name}: no converter {row.by!r} (known: {', '.join(sorted(converters))})"
            if row.how == "emulated" and (row.by or name) not in emulators:
                yield f"row {name}: no emulator {row.by or name!r} (known: {', '.join(sorted(emulators))})"


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path.name}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise CatalogueError(f"{path.name}: is not YAML: {error}") from None


def _reasons(file: str, error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        place = " › ".join(str(part) for part in problem["loc"]) or "the file"
        yield f"{file}: {place}: {problem['msg']}"
