"""One row is one fault: what is done, what has to come of it, in words and in numbers.

The suite runs the rows, the page docs/reliability.md shows them beside what the suite has measured. A row whose test is
generic carries its script (`Step`); any other is named by the test function that covers it (`covers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Rule = Mapping[str, Any]
Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A number that may be larger."""

    least: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and other >= self.least

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"≥ {self.least:g}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number that may be smaller."""

    most: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and other <= self.most

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"≤ {self.most:g}"


_YES_NO = {"True": "yes", "False": "no"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """`id` begins with the line of the house's list of faults that it belongs to. `bug`: why it fails for now."""

    id: str
    fault: str
    done: str
    expected: str
    numbers: Mapping[str, Any]
    bug: str = ""

    def told(self, numbers: Mapping[str, Any]) -> str:
        """Numbers as the table shows them."""
        return "; ".join(f"{name} {_YES_NO.get(str(value), value)}" for name, value in numbers.items())


@dataclass(frozen=True, kw_only=True)
class Step(Row):
    """One request by OpenAI's SDK, as it comes, while the sandbox follows these rules."""

    done: str = ""
    rules: tuple[Rule, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)  # of the gateway: it gets one of its own
    large: bool = False  # the picture is uploaded, not sent inline
    own: bool = False  # needs a gateway of its own: it opens the breaker, or spends the budget of retries
    seconds: float = 6.0  # until the journal has to be as expected
    slow: bool = False  # it is played beside others that wait

    def __post_init__(self) -> None:
        if not self.done:
            object.__setattr__(self, "done", self._done())

    def _done(self) -> str:
        asked = [f"{name}: {value}" for name, value in {**self.fields, **self.headers, **self.settings}.items()]
        large = ["a picture that has to be uploaded"] if self.large else []
        return "; ".join([*map(_told, self.rules), *large, *asked])

    def told(self, numbers: Mapping[str, Any]) -> str:
        """The same numbers for every row, in short."""
        answer = str(numbers["answer"])
        if answer != "200":
            answer += f", x-should-retry {numbers['x-should-retry']}, charged: {numbers['says charged']}"
        books = f"{numbers['submits']} submitted, {numbers['billed']} billed"
        journal = f"{numbers['journal']}, {numbers['charged']} USD, {numbers['pictures']} pictures"
        return f"{answer}; {books}; journal: {journal}".replace("1 pictures", "1 picture")


def _told(rule: Rule) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in rule.get("args", {}).items())
    times = rule.get("times", 1)
    often = "for ever" if times is None else "" if times == 1 else f"{times} times"
    after = f"after {rule['after']}" if rule.get("after") else ""
    words = " ".join(filter(None, (f"`{rule['fault']}`", f"({arguments})" if arguments else "", often, after)))
    return f"{rule['on']}: {words}"


def on(point: str, fault: str, times: int | None = 1, after: int = 0, **args: Any) -> Rule:
    """A rule of the sandbox's script."""
    rule: dict[str, Any] = {"on": point, "fault": fault, "times": times, "after": after}
    return rule | ({"args": args} if args else {})


COVERED: dict[str, str] = {}
"""Rows by id, and the test that covers each."""


def covers(id: str, *also: str) -> Callable[[Test], Test]:
    """This test is about that row; and about others, whose numbers it brings along."""

    def mark(test: Test) -> Test:
        for one in (id, *also):
            assert COVERED.get(one, test.__name__) == test.__name__, f"{one} is covered twice"
            COVERED[one] = test.__name__
        test.row = id  # type: ignore[attr-defined]
        return test

    return mark
