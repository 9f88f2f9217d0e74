"""The parts of docs/ that are derived from the code: `python -m tools.pages` (or `make docs`) writes them anew.

docs/configuration.md is the settings, as app/config.py and the adapters declare them. The tables in docs/parameters.md
are the rows of the catalogue, and those of one model. A test fails when one of them is stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.catalogue.describe import markdown
from app.catalogue.load import HERE, load_common, load_model, model_paths
from app.catalogue.schema import Model
from app.config import Config
from app.fields import Strict, parse_bytes
from app.live import LIVE
from app.registry import provider_classes
from app.secretfile import SUFFIX

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = "qwen-image-edit-2509"  # the model whose parameters docs/parameters.md shows in full

HEAD = "| setting | variable | type | default | meaning | change |\n|---|---|---|---|---|---|"

INTRODUCTION = """\
# All settings

<!-- Written by `make docs` from app/config.py and the adapters: change those. -->

Settings come from `config.yaml` (or the file that `IMAGEGATE_CONFIG` names), and the environment over it. All have a default. An
unknown name in the file stops the start; an `IMAGEGATE_` variable that nothing reads is a warning.

- A group's setting `limits.images` is `images` below `limits` in the file, and `IMAGEGATE_LIMITS_IMAGES` in the environment.
- `${NAME}` and `${NAME:-default}` in the file's values are filled from the environment.
- A secret can lie in a file: the variable that ends in `_FILE` names it. Both variables at once are an error.
- Bytes are a number, or one with a unit: `20MB` is 20,000,000, `20MiB` is 20,971,520.
- In a variable a list is separated by commas, and a mapping is YAML: `IMAGEGATE_ALIASES='{gpt-image-*: qwen-image-edit-2509}'`.
- *live*: a change in the file is taken in while the gateway runs ([live.md](live.md)). *restart*: it takes one.
"""  # noqa: E501

ELSEWHERE = """\
## Variables that are not settings

| variable | meaning |
|---|---|
| `IMAGEGATE_CONFIG` | the settings file, if it is not `config.yaml` in the current folder; it then has to be there |
| `FORWARDED_ALLOW_IPS` | proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; `127.0.0.1` if it is not set (uvicorn's) |
| `OTEL_EXPORTER_OTLP_ENDPOINT` and others of OpenTelemetry | traces ([metrics.md](metrics.md)) |
| `AWS_…`, `AZURE_STORAGE_…`, `GOOGLE_APPLICATION_CREDENTIALS` | credentials of a bucket, if the settings have none ([storage.md](storage.md)) |
"""  # noqa: E501


def configuration() -> str:
    """docs/configuration.md."""
    parts = [INTRODUCTION, "## General\n\n" + _table(Config, "", "IMAGEGATE")]
    for name, field in Config.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Strict):
            doc = (group.__doc__ or "").strip()
            parts.append(f"## `{name}`\n\n{doc}\n\n" + _table(group, f"{name}.", f"IMAGEGATE_{name.upper()}"))
    parts.append(
        "## `providers`\n\nSettings of the adapters. Another instance of an adapter under a name of its own "
        "(`providers.local.adapter`) reads\n`IMAGEGATE_PROVIDERS_LOCAL_…` instead ([providers.md](providers.md)).\n"
    )
    for adapter in sorted(provider_classes()):
        parts.append(f"### `{adapter}`\n\n{HEAD}\n" + "\n".join(_adapter(adapter)) + "\n")
    return "\n".join([*parts, ELSEWHERE])


def _table(model: type[Strict], prefix: str, variables: str) -> str:
    lines = [HEAD]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            continue
        variable, top = f"{variables}_{name.upper()}", (prefix or name).rstrip(".")
        live = "live" if top in LIVE else "restart"
        if name == "providers":
            live = "secrets: live; others: restart"
        read = _variables(variable, secret=_is_secret(field))
        meaning = _cell(field.description or "")
        lines.append(f"| `{prefix}{name}` | {read} | {_type(field)} | {_default(field)} | {meaning} | {live} |")
    return "\n".join(lines) + "\n"


def _adapter(name: str) -> Iterator[str]:
    for one in provider_classes()[name].settings:
        kind = "secret" if one.secret else "text"
        default = "none: it has to be set" if one.required else f"`{one.default}`" if one.default else "empty"
        live = "live" if one.secret else "restart"
        yield (
            f"| `providers.{name}.{one.name}` | {_variables(one.env, secret=one.secret)} | {kind} | {default} "
            f"| {_cell(one.doc)} | {live} |"
        )


def _variables(name: str, *, secret: bool) -> str:
    return f"`{name}` or `{name}{SUFFIX}`" if secret else f"`{name}`"


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def _is_bytes(field: FieldInfo) -> bool:
    return any(getattr(one, "func", None) is parse_bytes for one in field.metadata)


def _type(field: FieldInfo) -> str:
    kind: Any = field.annotation
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(f"`{word}`" for word in get_args(kind))
    if origin is tuple:
        return "list of secrets" if _is_secret(field) else "list"
    if origin is dict:
        return "mapping"
    if _is_secret(field):
        return "secret"
    if _is_bytes(field):
        return "bytes"
    if kind not in (bool, int, float):
        return "path" if "Path" in str(kind) else "text"
    word = {bool: "`true` or `false`", int: "integer", float: "number"}[kind]
    return ", ".join([word, *_bounds(field)])


def _bounds(field: FieldInfo) -> list[str]:
    bounds = {name: getattr(one, name) for one in field.metadata for name in ("gt", "ge", "le") if hasattr(one, name)}
    words = {"gt": "above {}", "ge": "from {}", "le": "up to {}"}
    return [words[name].format(value) for name, value in bounds.items()]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or value in ("", (), None) or isinstance(value, SecretStr):
        return "empty"
    if _is_bytes(field) and value:
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value % size == 0:
                return f"`{value // size}{unit}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{json.dumps(list(value)) if isinstance(value, tuple) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def models() -> list[Model]:
    """Those that come with the gateway: the one that the page shows first, then by id."""
    common = load_common()
    found = (load_model(path, common) for path in model_paths(HERE / "models"))
    return sorted(found, key=lambda model: (model.id != SHOWN, model.id))


def parameters() -> str:
    """Every parameter of the catalogue: what becomes of it, and what it means."""
    hows: dict[str, dict[str, int]] = {}
    docs: dict[str, str] = {}
    rows = [(name, row) for model in models() for offer in model.offers for name, row in offer.params.items()]
    for name, row in rows:
        counted = hows.setdefault(name, {})
        counted[row.how] = counted.get(row.how, 0) + 1
        if row.doc or name not in docs:
            docs.setdefault(name, "")
            docs[name] = docs[name] or row.doc
    for name, row in rows:
        docs[name] = docs[name] or getattr(row, "why", "")
    lines = ["| parameter | what becomes of it | what it is |", "|---|---|---|"]
    for name in sorted(hows, key=str.lower):
        became = ", ".join(f"{how} ({count})" for how, count in sorted(hows[name].items(), key=lambda one: -one[1]))
        lines.append(f"| `{name}` | {became} | {_cell(docs[name])} |")
    return "\n".join(lines)


def of_one_model() -> str:
    """The rows of the model that the page shows, as `imagegate models table` prints them."""
    return markdown(next(model for model in models() if model.id == SHOWN).offers[0])


def filled(page: str) -> str:
    """docs/parameters.md with its two tables anew."""
    for mark, table in (("parameters", parameters()), (SHOWN, of_one_model())):
        before, begin, rest = page.partition(f"<!-- table: {mark} -->\n")
        _, end, after = rest.partition("<!-- end of table -->")
        if not end:
            raise SystemExit(f"docs/parameters.md: there is no table {mark}")
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


def main() -> int:
    """Write them."""
    (DOCS / "configuration.md").write_text(configuration(), "utf-8")
    page = DOCS / "parameters.md"
    page.write_text(filled(page.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
