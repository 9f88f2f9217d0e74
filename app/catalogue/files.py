"""One YAML file -> a Model, or everything that is wrong with it: file, line, model, row and reason of each problem."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.catalogue.schema import SIDES, Model

HERE = Path(__file__).parent
SIZE_WORDS = frozenset({"size", "aspect_ratio", "aspectRatio", "resolution", *SIDES})

Spot = tuple[str | int, ...]  # the way to a value, from the top of its file


_NESTING = re.compile(r"[\[{]|[-?]\s")


class _Rules(yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """YAML without the traps of version 1.1: 16:9 is a ratio and not 969, and on, off, yes and no are words."""

    twice: list[tuple[int, str]]  # keys that a mapping has already: line, key

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; keys that stand twice are noted. What is merged in (`<<`) may be replaced."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                self.twice.append((key.start_mark.line + 1, str(key.value)))
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Rules.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float", "bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
):
    _Rules.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


class _Loader(_Rules, yaml.SafeLoader):
    """Whatever the text is."""


class _QuickLoader(_Rules, yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """By libyaml, in a tenth of the time: a third of the gateway's start. Where a text is nested some ten thousand deep
    it runs out of stack, which ends the process."""


def _loader(text: str) -> _Loader | _QuickLoader:
    """To be that deep takes brackets, dashes or question marks, or ever longer indentation."""
    is_shallow = len(text) < 100_000 and len(_NESTING.findall(text)) < 500
    loader: _Loader | _QuickLoader = _QuickLoader(text) if is_shallow else _Loader(text)  # type: ignore[call-arg]
    loader.twice = []
    return loader


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    reason: str
    file: str = ""
    line: int | None = None
    model: str = ""
    place: str = ""  # the offer, the row, the field

    def __str__(self) -> str:
        file = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (file, self.model, self.place, self.reason) if part)


class CatalogueError(Exception):
    """Model files that cannot be used: all that is wrong with them, a line each."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(one if isinstance(one, Problem) else Problem(one) for one in problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Names:
    """What a row may name: an unknown one is an error when the file is read, rather than in somebody's request."""

    providers: frozenset[str]
    converters: frozenset[str]
    emulators: frozenset[str]


class ModelFiles:
    """Reads model files. One that has not changed since it was read last is not parsed again. For one thread."""

    def __init__(self, names: Names | None = None, common: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """`names` None: names are not checked. `common` None: the rows of common.yaml, as they are at each read."""
        self._names = names
        self._given_common = common
        self._common: tuple[bytes, Mapping[str, Mapping[str, Any]]] = b"", {}
        self._models: dict[Path, tuple[bytes, Model]] = {}  # by digest of the file and of the common rows

    def model(self, path: Path) -> Model:
        """The model, its offers completed by the common rows of their first mode. Raises CatalogueError."""
        rows_mark, common = self._common_rows()
        text, digest = _text(path)
        mark = rows_mark + digest
        known = self._models.get(path)
        if known is None or known[0] != mark:
            known = mark, _model(path.name, text, common, self._names)
            self._models[path] = known
        return known[1]

    def _common_rows(self) -> tuple[bytes, Mapping[str, Mapping[str, Any]]]:
        if self._given_common is not None:
            return b"", self._given_common
        text, digest = _text(HERE / "common.yaml")
        if self._common[0] != digest:
            self._common = digest, _common("common.yaml", text)
        return self._common


def load_common(path: Path = HERE / "common.yaml") -> dict[str, dict[str, Any]]:
    """The rows that every offer has unless its file says otherwise, by mode."""
    return _common(path.name, _text(path)[0])


def yaml_problem(error: yaml.YAMLError) -> tuple[int | None, str]:
    """The line and the reason, without the snippet that PyYAML shows: there may be a secret in it."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return (mark.line + 1 if mark else None), f"is not YAML: {error.problem or error.context}"
    return None, f"is not YAML: {getattr(error, 'reason', type(error).__name__)}"


def _text(path: Path) -> tuple[str, bytes]:
    try:
        data = path.read_bytes()
        return data.decode("utf-8"), hashlib.sha256(data).digest()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error.reason
        raise CatalogueError(Problem(f"cannot be read: {why}", path.name)) from None


def _common(file: str, text: str) -> dict[str, dict[str, Any]]:
    raw = _parse(file, text)
    if not isinstance(raw, dict):
        raise CatalogueError(Problem("expected a mapping of modes to rows", file))
    return raw


def _parse(file: str, text: str) -> Any:
    try:
        loader = _loader(text)
        raw = loader.get_single_data()
    except RecursionError:
        raise CatalogueError(Problem("is nested too deep", file)) from None
    except yaml.YAMLError as error:
        line, reason = yaml_problem(error)
        raise CatalogueError(Problem(reason, file, line)) from None
    if loader.twice:
        raise CatalogueError(*(Problem(f"{key!r} stands here twice", file, line) for line, key in loader.twice))
    return raw


def _model(file: str, text: str, common: Mapping[str, Mapping[str, Any]], names: Names | None) -> Model:
    raw = _parse(file, text)
    if not isinstance(raw, dict):
        raise CatalogueError(Problem(f"expected a mapping, found {type(raw).__name__}", file))
    modes = raw.get("modes")
    for _, offer in _offers(raw):
        own = offer.get("modes") or modes
        rows = common.get(str(own[0]), {}) if isinstance(own, list) and own else {}
        if isinstance(offer.get("params"), dict):
            offer["params"] = _completed(offer["params"], rows)
    model, found = _validated(raw)
    if names is not None:
        found += _unknown_names(raw, names)
    if model is None or found:
        tree = _loader(text).get_single_node()
        name = str(raw.get("id") or "")
        problems = [Problem(why, file, _line(tree, at), name, _place(raw, at)) for at, why in found]
        raise CatalogueError(*sorted(problems, key=lambda problem: problem.line or 0))
    return model


def _completed(params: dict[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """An offer's rows and the common ones. Those of a size belong together: where the file has one of them sent in some
    other way, it says all that there is (to another gateway, every one of them goes as it is)."""
    left_out = SIZE_WORDS if any(_sends_a_size_otherwise(*row) for row in params.items()) else frozenset()
    return {**params, **{name: row for name, row in rows.items() if name not in params and name not in left_out}}


def _sends_a_size_otherwise(name: str, row: Any) -> bool:
    if not isinstance(row, dict) or row.get("by") == "dimensions":
        return False
    aliases = row.get("aliases")
    words = {name, str(row.get("to")), *map(str, aliases if isinstance(aliases, list) else ())}
    return not words.isdisjoint(SIZE_WORDS)


def _offers(raw: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    offers = raw.get("offers")
    return [(i, o) for i, o in enumerate(offers) if isinstance(o, dict)] if isinstance(offers, list) else []


def _validated(raw: dict[str, Any]) -> tuple[Model | None, list[tuple[Spot, str]]]:
    """The model, or all that the schema has against it. What concerns several rows is looked at only where each row is
    fine by itself: so once more without the rows that are not."""
    try:
        return Model.model_validate(raw), []
    except ValidationError as error:
        found = list(_complaints(raw, error))
    broken = {(at[1], at[3]) for at, _ in found if at[:1] == ("offers",) and at[2:3] == ("params",) and len(at) > 3}
    if broken:
        offers = [
            {**offer, "params": {name: row for name, row in offer["params"].items() if (i, name) not in broken}}
            if isinstance(offer, dict) and isinstance(offer.get("params"), dict)
            else offer
            for i, offer in enumerate(raw["offers"])
        ]
        try:
            Model.model_validate({**raw, "offers": offers})
        except ValidationError as error:
            found += [one for one in _complaints(raw, error) if one not in found]
    return None, found


def _complaints(raw: dict[str, Any], error: ValidationError) -> Iterator[tuple[Spot, str]]:
    for problem in error.errors(include_url=False, include_input=False):
        at: Spot = problem["loc"]
        if at == ("offers",) and problem["type"] == "too_short" and raw.get("offers"):
            continue  # pydantic counts those that are fine
        if at[2:3] == ("params",) and len(at) > 4:  # after a row's name pydantic names its kind
            at = at[:4] + at[5:]
        for reason in problem["msg"].removeprefix("Value error, ").splitlines():
            yield at, reason


def _unknown_names(raw: Mapping[str, Any], names: Names) -> list[tuple[Spot, str]]:
    """Looked up in what the file says, not in the model: also where there is no model because of something else."""
    found: list[tuple[Spot, str]] = []
    for i, offer in _offers(raw):
        provider, params = offer.get("provider"), offer.get("params")
        if isinstance(provider, str) and provider not in names.providers:
            known = ", ".join(sorted(names.providers))
            found.append((("offers", i, "provider"), f"no provider {provider!r} (installed: {known})"))
        for name, row in params.items() if isinstance(params, dict) else ():
            how, by = (row.get("how"), row.get("by")) if isinstance(row, dict) else (None, None)
            at: Spot = ("offers", i, "params", name, "by")
            if how == "converted" and isinstance(by, str) and by not in names.converters:
                found.append((at, f"no converter {by!r} (known: {', '.join(sorted(names.converters))})"))
            if how == "emulated" and (by or name) not in names.emulators:
                found.append((at, f"no emulator {by or name!r} (known: {', '.join(sorted(names.emulators))})"))
    return found


def _place(raw: Mapping[str, Any], at: Spot) -> str:
    """`offer ENDPOINT: row seed: max`."""
    parts: list[str] = []
    if at[:1] == ("offers",) and len(at) > 1:
        offer = dict(_offers(raw)).get(int(at[1]), {})
        parts.append(f"offer {offer.get('endpoint') or int(at[1]) + 1}")
        at = at[2:]
        if at[:1] == ("params",) and len(at) > 1:
            parts.append(f"row {at[1]}")
            at = at[2:]
            at = () if at == ("by",) else at
        elif at == ("provider",):
            at = ()
    if at:
        parts.append(" › ".join(str(part) for part in at))
    return ": ".join(parts)


def _line(node: yaml.Node | None, at: Spot) -> int | None:
    """Where it stands, or what it should stand in."""
    line = None if node is None else node.start_mark.line + 1
    for part in at:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
