"""Field types that settings and model files share. A typo is an error in both."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1_000_000, "GB": 10**9, "KIB": 1024, "MIB": 1 << 20, "GIB": 1 << 30}


class Strict(BaseModel):
    """Frozen, and a typo is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_bytes(value: object) -> object:
    """`10MB` -> 10,000,000; `20MiB` -> 20,971,520; integers stay."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        if match and match[2].upper() in _UNITS:
            return int(float(match[1]) * _UNITS[match[2].upper()])
    return value


def parse_pair(value: object) -> object:
    """`1024x768` or `16:9` -> (1024, 768), (16, 9)."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,6})\s*[x:]\s*(\d{1,6})\s*", value)
        if match:
            return int(match[1]), int(match[2])
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
BytesOrNone = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Pair = Annotated[tuple[Positive, Positive], BeforeValidator(parse_pair)]
