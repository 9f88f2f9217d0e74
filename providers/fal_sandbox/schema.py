"""An endpoint is data: its published input schema as a JSON file, checked the way fal's model apps check it.

A file in `schemas/` (or in a folder of FAL_SANDBOX_SCHEMAS) looks like this; everything but `endpoints` and `fields`
is optional:

    {"endpoints": ["fal-ai/qwen-image-edit-2509"],
     "source": "where the facts come from",
     "fields": {"prompt": {"type": "string", "required": true},
                "num_images": {"type": "integer", "ge": 1, "le": 4, "default": 1},
                "image_size": {"type": "image_size", "presets": [...], "max_side": 14142, "default": "square_hd"}},
     "roles": {"images": "image_urls", "max_images": 3, "keep": "first" | "last", "mask": "mask_url"},
     "size": {"absent": "square_hd" | "first_input" | "last_input" | "1024x1024", "ratios": {"16:9": "1344x768"},
              "field": "aspect_ratio", "resolutions": {"1K": 1, "2K": 2}, "sides": ["width", "height"]},
     "output": {"image": "image" | "image_file" | "file", "also": ["seed", "timings", "has_nsfw_concepts", "prompt"]},
     "default_format": "png", "unit": "megapixels" | "images", "billed_inputs": 4, "unsafe": "black" | "refuse"}

Field types: string, integer, number, boolean, strings (a list of strings), image_size, any. Field keys: required,
nullable, default, enum, ge, le, gt, lt, min_length, max_length, and for image_size presets, max_side, min_side,
side_multiple_of, min_area, max_area (pixels), max_ratio (long side / short side). `max_images` are used; `keep` says
which of more. `billed_inputs`: input pictures are billed as megapixels, too, so many at most each.

A field that is not named is tolerated, as fal does. fal's apps are FastAPI apps, so the checks are pydantic's: its
messages, its types (`missing`, `int_parsing`, `literal_error`, `greater_than_equal`) and its coercions ("4" is an
integer) are the true ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from .replies import ERROR_DOCS, Reply, as_json

PRESETS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "square_hd": (1024, 1024),
        "square": (512, 512),
        "portrait_4_3": (768, 1024),
        "portrait_16_9": (576, 1024),
        "landscape_4_3": (1024, 768),
        "landscape_16_9": (1024, 576),
    }
)
"""Width and height in pixels (SDK fal 1.83.0, toolkit image size table)."""

_BOUNDS = ("ge", "le", "gt", "lt", "min_length", "max_length", "multiple_of")
_SIZE_BOUNDS = ("side_multiple_of", "min_area", "max_area", "max_ratio")
_FIELD_KEYS = {
    *("type", "required", "nullable", "default", "enum", "presets", "max_side", "min_side"),
    *_SIZE_BOUNDS,
    *_BOUNDS,
}
_FILE_KEYS = {
    "endpoints",
    "source",
    "fields",
    "roles",
    "size",
    "output",
    "default_format",
    "unit",
    "billed_inputs",
    "unsafe",
}
_TYPES: Mapping[str, Any] = MappingProxyType(
    {"string": str, "integer": int, "number": float, "boolean": bool, "strings": list[str], "any": Any}
)
_DEFAULT_SIDE = 512
"""Each side of a size object that is left out (the model's OpenAPI, read 2026-06-11)."""


class SchemaError(ValueError):
    """A schema file cannot be used; the message names the file."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model app's address with everything the sandbox must know about it."""

    id: str
    model: type[BaseModel]
    images_field: str | None = None
    """None: text to image."""
    max_images: int | None = None
    keeps_last: bool = False
    """Of more than `max_images` the last are used, not the first."""
    mask_field: str | None = None
    size_absent: str = "square_hd"
    ratio_field: str = "aspect_ratio"
    ratios: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    resolutions: Mapping[str, float] = field(default_factory=dict)
    side_fields: tuple[str, ...] = ()
    """Where width and height are two fields: their names."""
    image_object: str = "image"
    output_also: tuple[str, ...] = ()
    default_format: str = "png"
    unit: str = "megapixels"
    billed_inputs: int = 0
    unsafe: str = "black"

    @property
    def app(self) -> str:
        """`fal-ai/qwen-image-edit` for `fal-ai/qwen-image-edit/inpaint`: where status and result are asked for."""
        return app_of(self.id)

    def check(self, payload: Any) -> dict[str, Any] | Reply:
        """The payload with defaults filled in and types coerced, or fal's 422."""
        try:
            checked = self.model.model_validate(payload)
        except ValidationError as error:
            return _refusal(error)
        return {name: getattr(checked, name) for name in self.model.model_fields}


def app_of(endpoint_id: str) -> str:
    """Owner and alias only; the namespaces `workflows` and `comfy` count one more (PY fal-client 1.0.3, AppId)."""
    parts = endpoint_id.split("/")
    return "/".join(parts[: 3 if parts[0] in ("workflows", "comfy") else 2])


def load_endpoints(folders: Sequence[Path] = ()) -> Mapping[str, Endpoint]:
    """All endpoints by id: the built-in ones, then those of `folders`, later ones replacing earlier ones."""
    endpoints: dict[str, Endpoint] = {}
    for folder in (Path(__file__).parent / "schemas", *folders):
        if not folder.is_dir():
            raise SchemaError(f"{folder}: no such folder of endpoint schemas")
        for file in sorted(folder.glob("*.json")):
            endpoints |= {endpoint.id: endpoint for endpoint in _read(file)}
    return MappingProxyType(endpoints)


def _read(file: Path) -> Iterable[Endpoint]:
    try:
        data = json.loads(file.read_text("utf-8"))
        _only(data, _FILE_KEYS, "the file")
        roles, size, output = data.get("roles", {}), data.get("size", {}), data.get("output", {})
        _only(roles, {"images", "max_images", "keep", "mask"}, "roles")
        _only(size, {"absent", "field", "ratios", "resolutions", "sides"}, "size")
        _only(output, {"image", "also"}, "output")
        model = _model(data["fields"])
        for role in ("images", "mask"):
            if role in roles and roles[role] not in model.model_fields:
                raise ValueError(f"role {role} names {roles[role]!r}, which is no field")
        return [
            Endpoint(
                id=name,
                model=model,
                images_field=roles.get("images"),
                max_images=roles.get("max_images"),
                keeps_last=_one_of(roles.get("keep", "first"), "first", "last") == "last",
                mask_field=roles.get("mask"),
                size_absent=size.get("absent", "square_hd"),
                ratio_field=size.get("field", "aspect_ratio"),
                ratios=MappingProxyType({key: pixels(value) for key, value in size.get("ratios", {}).items()}),
                resolutions=MappingProxyType(dict(size.get("resolutions", {}))),
                side_fields=tuple(size.get("sides", ())),
                image_object=output.get("image", "image"),
                output_also=tuple(output.get("also", ())),
                default_format=data.get("default_format", "png"),
                unit=_one_of(data.get("unit", "megapixels"), "megapixels", "images"),
                billed_inputs=int(data.get("billed_inputs", 0)),
                unsafe=_one_of(data.get("unsafe", "black"), "black", "refuse"),
            )
            for name in data["endpoints"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{file}: {type(error).__name__}: {error}") from error


def pixels(text: str) -> tuple[int, int]:
    """`1344x768` -> (1344, 768)."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def _only(given: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := set(given) - known:
        raise ValueError(f"unknown key in {where}: {', '.join(sorted(unknown))}")


def _one_of(value: str, *known: str) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _model(fields: Mapping[str, Mapping[str, Any]]) -> type[BaseModel]:
    definitions: dict[str, Any] = {}
    for name, row in fields.items():
        _only(row, _FIELD_KEYS, f"field {name}")
        kind = _kind(row)
        if row.get("nullable"):
            kind = kind | None
        bounds = {key: row[key] for key in _BOUNDS if key in row}
        default = ... if row.get("required") else row.get("default")
        definitions[name] = (Annotated[kind, Field(**bounds)] if bounds else kind, default)
    model: type[BaseModel] = create_model("Input", __config__=ConfigDict(protected_namespaces=()), **definitions)
    return model


def _kind(row: Mapping[str, Any]) -> Any:
    if row["type"] == "image_size":
        side = {"le": row.get("max_side", 14142)} | ({"ge": row["min_side"]} if "min_side" in row else {"gt": 0})
        if "side_multiple_of" in row:
            side["multiple_of"] = row["side_multiple_of"]
        side_kind: Any = Annotated[int, Field(**side)]
        # The class name is part of the error's `loc`, as on fal: ["body", "image_size", "ImageSize", "width"]
        size: Any = create_model("ImageSize", width=(side_kind, _DEFAULT_SIDE), height=(side_kind, _DEFAULT_SIDE))
        checked: Any = Annotated[size, AfterValidator(partial(_check_size, row))]
        presets: Any = Literal[tuple(row.get("presets", PRESETS))]
        return (checked if set(row) & set(_SIZE_BOUNDS) else size) | presets
    if "enum" in row:
        return Literal[tuple(row["enum"])]
    return _TYPES[row["type"]]


def _check_size(row: Mapping[str, Any], size: Any) -> Any:
    area = size.width * size.height
    if not row.get("min_area", 0) <= area <= row.get("max_area", area):
        raise ValueError(f"the area of {area} pixels is out of bounds")
    if max(size.width, size.height) > row.get("max_ratio", 10**9) * min(size.width, size.height):
        raise ValueError("the shape is out of bounds")
    return size


def _refusal(error: ValidationError) -> Reply:
    """FastAPI's list: `loc` begins with "body", everything else is pydantic's own, the url is fal's."""
    entries = []
    for item in error.errors(include_url=False):
        entry: dict[str, Any] = {
            "loc": ["body", *item["loc"]],
            "msg": item["msg"],
            "type": item["type"],
            "url": ERROR_DOCS + item["type"],
            "input": item["input"],
        }
        if "ctx" in item:
            entry["ctx"] = {
                key: value if isinstance(value, int | float | str) else str(value) for key, value in item["ctx"].items()
            }
        entries.append(entry)
    return as_json({"detail": entries}, 422, {"X-Fal-Retryable": "false"})
