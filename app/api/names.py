"""The names of form fields: which mean pictures, and how brackets nest.

Clients spell one and the same thing as `image`, `image[]`, `image[0]`, `images`, `images[][image_url]`, `image_url`,
`image_base64`; lists of objects come grouped (`loras[][path]`, `loras[][path]`, `loras[][scale]`, …) from Python's SDK
and interleaved from Node's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from app.errors import InvalidValue

# The word before any bracket -> the parameter.
PICTURE_WORDS = {
    "image": "image",
    "images": "image",
    "image_url": "image",
    "image_urls": "image",
    "image_base64": "image",
    "mask": "mask",
}
# Text that clients send for "nothing" (a JavaScript undefined, a Python None put into a form).
_ABSENT = frozenset({"", "null", "undefined", "None"})

_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
MAX_DEPTH = 8


def split(name: str) -> tuple[str, tuple[str, ...]]:
    """`loras[][path]` -> ("loras", ("", "path")). A name that does not nest is taken whole."""
    match = _KEY.fullmatch(name)
    if not match:
        return name, ()
    return match[1], tuple(_BRACKET.findall(match[2]))


def is_picture_field(name: str) -> bool:
    """Whether a part of this name carries a picture, with or without a file name."""
    return split(name)[0] in PICTURE_WORDS


def is_absent(text: str) -> bool:
    """Whether a form's text means that the parameter was not given."""
    return text in _ABSENT


def nest(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Form text fields -> {parameter: value}; repeats of a plain name make a list.

    Raises InvalidValue where two fields contradict each other.
    """
    tree: dict[str, Any] = {}
    counts: dict[tuple[str, ...], int] = {}
    for name, text in fields:
        base, path = split(name)
        if len(path) > MAX_DEPTH:
            raise InvalidValue(f"Invalid '{base}': nested deeper than {MAX_DEPTH} levels.", param=base)
        try:
            _put(tree, (base, *path), text, counts)
        except (TypeError, AttributeError, ValueError):
            raise InvalidValue(f"Invalid '{base}': its fields contradict each other.", param=base) from None
    return {base: _lists(value) for base, value in tree.items()}


class _Items(dict[int, Any]):
    """A list under construction, by index."""


def _put(tree: dict[str, Any], path: tuple[str, ...], text: str, counts: dict[tuple[str, ...], int]) -> None:
    """Walk down, making what is missing; the last step sets the text."""
    here: Any = tree
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        key: Any = step
        if isinstance(here, _Items):
            # `[]` before a key: the i-th time that this very path comes, it belongs to element i.
            if step == "":
                key = counts.get(path, 0) if not last else len(here)
                if not last:
                    counts[path] = key + 1
            else:
                key = int(step)
                if key > 999:
                    raise ValueError
        if last:
            if not isinstance(here, dict):
                raise TypeError
            if depth == 0 and key in here:
                here[key] = _appended(here[key], text)
            elif key in here:
                raise ValueError
            else:
                here[key] = text
            return
        following = path[depth + 1]
        fresh: Any = _Items() if following == "" or following.isdigit() else {}
        child = here.setdefault(key, fresh)
        if type(child) is not type(fresh):
            raise TypeError
        here = child


def _appended(old: Any, text: str) -> Any:
    if isinstance(old, str):
        return [old, text]
    if isinstance(old, list):
        return [*old, text]
    raise TypeError


def _lists(value: Any) -> Any:
    if isinstance(value, _Items):
        return [_lists(value[index]) for index in sorted(value)]
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return value
