"""One given value, typed and bounded by its row. Wording and codes are OpenAI's, as a public parity suite measured
them on its API in August 2026, so that clients that show messages show familiar ones.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from app.catalogue.schema import Row
from app.errors import (
    AboveMaximum,
    BelowMinimum,
    EmptyString,
    InvalidType,
    InvalidValue,
    TooLong,
)
from app.types import Given

T = TypeVar("T")

_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"false", "0", "off", "no"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_SHOWN = 80  # characters of a bad value that an error repeats


def coerce(row: Row, given: Given) -> Any:
    """The value as the row's type. Raises an InvalidRequest that names the caller's own word."""
    value = given.value
    match row.type:
        case "integer":
            value = _integer(given)
            _bounded(row, given, value, integer=True)
        case "number":
            value = _number(given)
            _bounded(row, given, value, integer=False)
        case "boolean":
            value = _boolean(given)
        case "string":
            value = _string(row, given)
        case "list":
            value = _structure(given, list, "an array")
        case "object":
            value = _structure(given, dict, "an object")
        case _:
            pass
    check_text(given.spelled, value)
    if row.values and value not in row.values:
        raise InvalidValue(
            f"Invalid value: '{shown(value)}'. Supported values are: {listed(row.values)}.", param=given.spelled
        )
    return value


def check_text(spelled: str, value: Any) -> None:
    """Refuse text that JSON, databases or providers choke on: NUL and lone surrogates, at any depth."""
    match value:
        case str():
            if _NO_TEXT.search(value):
                raise InvalidValue(f"Invalid '{spelled}': not valid text (NUL or lone surrogate).", param=spelled)
        case list() | tuple():
            for item in value:
                check_text(spelled, item)
        case dict():
            for key, item in value.items():
                check_text(spelled, key)
                check_text(spelled, item)
        case float() if not math.isfinite(value):
            raise InvalidValue(f"Invalid '{spelled}': not a finite number.", param=spelled)


def kind(value: Any) -> str:
    """What a JSON value is, in OpenAI's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal number"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
    return "a file"


def listed(values: tuple[str, ...], last: str = "and") -> str:
    """`'a'` · `'a' and 'b'` · `'a', 'b', and 'c'`."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return f" {last} ".join(quoted)
    return f"{', '.join(quoted[:-1])}, {last} {quoted[-1]}"


def shown(value: Any) -> str:
    """A caller's value as an error may repeat it: short, without control characters."""
    text = "".join(char if char.isprintable() else "?" for char in str(value)[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _wrong_type(given: Given, wanted: str) -> InvalidType:
    if given.text and isinstance(given.value, str):
        got = f"a string value that could not be converted into {wanted}"
    else:
        got = f"{kind(given.value)} instead"
    return InvalidType(f"Invalid type for '{given.spelled}': expected {wanted}, but got {got}.", param=given.spelled)


def _integer(given: Given) -> int:
    value = given.value
    if given.text and isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and not given.text:
        return value
    raise _wrong_type(given, "an integer")


def _number(given: Given) -> int | float:
    value = given.value
    if given.text and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        if math.isfinite(number):
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
    elif isinstance(value, int | float) and not isinstance(value, bool) and not given.text:
        if isinstance(value, int) or math.isfinite(value):
            return value
        raise InvalidValue(f"Invalid '{given.spelled}': not a finite number.", param=given.spelled)
    raise _wrong_type(given, "a decimal number")


def _boolean(given: Given) -> bool:
    value = given.value
    if isinstance(value, bool):
        return value
    if given.text and isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise _wrong_type(given, "a boolean")


def _structure(given: Given, kind: type[T], wanted: str) -> T:
    value = given.value
    if given.text and isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise InvalidType(
                f"Invalid type for '{given.spelled}': expected {wanted} as JSON, but got text that is no JSON.",
                param=given.spelled,
            ) from None
    if isinstance(value, kind):
        return value
    raise _wrong_type(replace(given, value=value), wanted)


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)  # NaN and its kin are no JSON


def _string(row: Row, given: Given) -> str:
    value = given.value
    if not isinstance(value, str):
        wanted = f"one of {listed(row.values, 'or')}" if row.values else "a string"
        raise InvalidType(
            f"Invalid type for '{given.spelled}': expected {wanted}, but got {kind(value)} instead.",
            param=given.spelled,
        )
    if not value and row.required:
        raise EmptyString(
            f"Invalid '{given.spelled}': empty string. Expected a string with minimum length 1, "
            "but got an empty string instead.",
            param=given.spelled,
        )
    if row.max_length is not None and len(value) > row.max_length:
        raise TooLong(
            f"Invalid '{given.spelled}': string too long. Expected a string with maximum length {row.max_length}, "
            f"but got a string with length {len(value)} instead.",
            param=given.spelled,
        )
    return value


def _bounded(row: Row, given: Given, value: float, *, integer: bool) -> None:
    noun = "integer" if integer else "decimal"
    got = shown(value) if abs(value) < 10**15 else "a much larger one" if value > 0 else "a much smaller one"
    if row.min is not None and value < row.min:
        raise BelowMinimum(
            f"Invalid '{given.spelled}': {noun} below minimum value. Expected a value >= {row.min:.17g}, "
            f"but got {got} instead.",
            param=given.spelled,
            integer=integer,
        )
    if row.max is not None and value > row.max:
        raise AboveMaximum(
            f"Invalid '{given.spelled}': {noun} above maximum value. Expected a value <= {row.max:.17g}, "
            f"but got {got} instead.",
            param=given.spelled,
            integer=integer,
        )
