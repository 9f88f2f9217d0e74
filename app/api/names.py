"""The names of fields: which mean pictures, and how brackets nest.

Clients spell one and the same thing as `image`, `image[]`, `image[0]`, `images`, `images[][image_url]`, `image_url`,
`image_base64`; lists of objects come grouped (`loras[][path]`, `loras[][path]`, `loras[][scale]`, …) from Python's SDK
and interleaved from Node's. Both leave out which element a field belongs to: what could be read in two ways is refused,
never guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from app.errors import InvalidBody, InvalidValue

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
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_DEPTH = 8
MAX_LENGTH = 256
MAX_INDEX = 999

Path = tuple[str, ...]


def check(name: str) -> None:
    """Refuse what cannot be a parameter's name, in either encoding. Raises InvalidBody."""
    if not name:
        raise InvalidBody("A field of the request has no name.")
    if len(name) > MAX_LENGTH or _CONTROL.search(name):
        raise InvalidBody("The name of a field is too long or has control characters.")


def split(name: str) -> tuple[str, Path]:
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


def position(name: str) -> int:
    """`image[2]` -> 2; 0 without a number."""
    path = split(name)[1]
    return int(path[0]) if path and _is_index(path[0]) else 0


def nest(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Form text fields -> {parameter: value}; repeats of a plain name make a list.

    Raises InvalidValue where two fields contradict each other, or where it is unclear what belongs together.
    """
    found = [(*split(name), text) for name, text in fields]
    for base, path, _ in found:
        if len(path) > MAX_DEPTH:
            raise InvalidValue(f"Invalid '{base}': nested deeper than {MAX_DEPTH} levels.", param=base)
        if any(_is_index(step) and int(step) > MAX_INDEX for step in path):
            raise InvalidValue(f"Invalid '{base}': its elements are numbered beyond {MAX_INDEX}.", param=base)
    _check_unambiguous([(base, *path) for base, path, _ in found])
    tree: dict[str, Any] = {}
    seen: Counter[Path] = Counter()
    for base, path, text in found:
        try:
            _put(tree, (base, *path), text, seen)
        except (TypeError, ValueError):
            raise InvalidValue(f"Invalid '{base}': its fields contradict each other.", param=base) from None
    done: dict[str, Any] = {}
    for base, value in tree.items():
        try:
            done[base] = _lists(value)
        except ValueError:
            raise InvalidValue(f"Invalid '{base}': its elements are not numbered 0, 1, 2 …", param=base) from None
    return done


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 10


def _check_unambiguous(paths: Sequence[Path]) -> None:
    """Fields under one `[]` are zipped: each must come once for every element, and hold no list of its own."""
    times: dict[Path, set[int]] = {}
    for path, count in Counter(paths).items():
        for at, step in enumerate(path[:-1]):
            if step != "":
                continue
            times.setdefault(path[: at + 1], set()).add(count)
            if len(times[path[: at + 1]]) > 1 or (count > 1 and "" in path[at + 1 :]):
                raise InvalidValue(
                    f"Invalid '{path[0]}': which fields belong to the same element is unclear. "
                    f"Number the elements, as in '{path[0]}[0]…', or send JSON.",
                    param=path[0],
                )


class _Items(dict[int, Any]):
    """A list under construction, by index."""


def _put(tree: dict[str, Any], path: Path, text: str, seen: Counter[Path]) -> None:
    """Walk down, making what is missing; the last step sets the text."""
    here: Any = tree
    for depth, step in enumerate(path[:-1]):
        key: Any = step
        if isinstance(here, _Items):
            # `[]` before a key: the i-th time that this very path comes, it belongs to element i.
            key = int(step) if step else seen[path]
        following = path[depth + 1]
        fresh: Any = _Items() if following == "" or _is_index(following) else {}
        child = here.setdefault(key, fresh)
        if type(child) is not type(fresh):
            raise TypeError
        here = child
    seen[path] += 1
    last: Any = path[-1]
    if isinstance(here, _Items):
        last = int(last) if last else len(here)
    if last in here and len(path) > 1:
        raise ValueError
    here[last] = _appended(here[last], text) if last in here else text


def _appended(old: Any, text: str) -> list[str]:
    """A plain name that comes again."""
    if isinstance(old, str):
        return [old, text]
    if type(old) is list:
        return [*old, text]
    raise TypeError


def _lists(value: Any) -> Any:
    if isinstance(value, _Items):
        if sorted(value) != list(range(len(value))):
            raise ValueError  # `l[5]` alone: what stands before it would have to be made up
        return [_lists(value[index]) for index in range(len(value))]
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return value
