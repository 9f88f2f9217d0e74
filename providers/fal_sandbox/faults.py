"""Everything the sandbox can be told to do wrong, and the script that says when.

A fault is named in three ways: a script of rules (`POST /sandbox/script`), a request header `X-Sandbox-Fault`, or a
query parameter `sandbox_fault`. Header and query hold `name` or `name;argument=value;...`, several joined by commas.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Point(StrEnum):
    """The calls that a rule can be about."""

    SUBMIT = "submit"
    STATUS = "status"
    STREAM = "stream"
    RESULT = "result"
    CANCEL = "cancel"
    RUN = "run"
    INITIATE = "initiate"
    """Upload ticket or upload token."""
    PUT = "put"
    """The bytes of an upload, by ticket or by token."""
    CDN = "cdn"
    LIST = "list"


EVERYWHERE = frozenset(Point)
JOB = frozenset({Point.SUBMIT, Point.RUN})
PICTURE = JOB | {Point.CDN}
WHOLE = EVERYWHERE - {Point.STREAM}
"""Where the answer is one body."""


class UnknownFault(ValueError):
    """The name, an argument or the place of a fault is not known; the message lists what is."""


class Fault(StrEnum):
    """What can go wrong. `FAULTS` says what each one does, with which arguments, and where."""

    DELAY = "delay"
    QUEUE_FOR = "queue_for"
    RUN_FOR = "run_for"

    HTTP = "http"
    RATE_LIMIT = "rate_limit"
    LOCKED = "locked"
    UNAUTHORIZED = "unauthorized"
    UNAVAILABLE_NGINX = "unavailable_nginx"
    MODEL_ERROR = "model_error"
    INFRA_ERROR = "infra_error"
    COMPLETED_WITH_ERROR = "completed_with_error"
    REDIRECT = "redirect"

    DROP_BEFORE = "drop_before"
    DROP_AFTER = "drop_after"
    TRUNCATE = "truncate"
    HANG = "hang"
    DRIP = "drip"
    HUGE = "huge"

    GARBAGE_JSON = "garbage_json"
    STATUS_WORD = "status_word"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    FOREIGN_URLS = "foreign_urls"
    BAD_REQUEST_ID = "bad_request_id"
    LOSE_RESULT = "lose_result"

    NSFW = "nsfw"
    EMPTY_IMAGES = "empty_images"
    CORRUPT_IMAGE = "corrupt_image"
    LIE_CONTENT_TYPE = "lie_content_type"
    LIE_SIZE = "lie_size"

    CANCEL_TOO_LATE = "cancel_too_late"
    CANCEL_IGNORED = "cancel_ignored"

    LIST_LAG = "list_lag"
    LIST_NO_PAYLOADS = "list_no_payloads"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """`line` says what happens, `arguments` holds the defaults, `points` is where it can be asked for."""

    line: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    points: frozenset[Point] = EVERYWHERE


_SUBMIT = frozenset({Point.SUBMIT})
_CANCEL = frozenset({Point.CANCEL})
_LIST = frozenset({Point.LIST})
_MEBIBYTE = 1024 * 1024

FAULTS: Mapping[Fault, Behaviour] = MappingProxyType(
    {
        Fault.DELAY: Behaviour("Answers `seconds` later; nothing else is wrong.", {"seconds": 1.0}),
        Fault.QUEUE_FOR: Behaviour("The job stays IN_QUEUE for `seconds`.", {"seconds": 1.0}, JOB),
        Fault.RUN_FOR: Behaviour(
            "The job stays IN_PROGRESS for `seconds`; a large number is a job that never ends.", {"seconds": 1.0}, JOB
        ),
        Fault.HTTP: Behaviour(
            "Answers `status` with `body` (JSON, or text when it is a string) and `headers`.",
            {"status": 500, "body": None, "headers": {}},
        ),
        Fault.RATE_LIMIT: Behaviour(
            "429 concurrent_requests_limit with Retry-After: `retry_after`.", {"retry_after": 1}
        ),
        Fault.LOCKED: Behaviour(
            "403 User is locked: the account has no money.",
            {"reason": "Exhausted balance. Top up your balance at fal.ai/dashboard/billing."},
        ),
        Fault.UNAUTHORIZED: Behaviour("401 No user found for Key ID and Secret."),
        Fault.UNAVAILABLE_NGINX: Behaviour(
            "The ingress's HTML page with `status`, without x-fal-request-id.", {"status": 503}
        ),
        Fault.MODEL_ERROR: Behaviour(
            "Error shape 1 with `type`. At submit and run the job ends so, unbilled; elsewhere, or with at=reply, "
            "this call answers so.",
            {"type": "content_policy_violation", "at": "job"},
        ),
        Fault.INFRA_ERROR: Behaviour(
            "Error shape 2 and X-Fal-Error-Type with `error_type`, its status by fal's table. At submit and run the "
            "job ends so, unbilled; elsewhere, or with at=reply, this call answers so.",
            {"error_type": "runner_disconnected", "at": "job"},
        ),
        Fault.COMPLETED_WITH_ERROR: Behaviour(
            "The job is COMPLETED with `error` and `error_type` in its status; its result answers 500, unbilled.",
            {"error": "Internal error", "error_type": "internal_error"},
            _SUBMIT,
        ),
        Fault.REDIRECT: Behaviour("307 to `location`.", {"location": "http://169.254.169.254/latest/meta-data/"}),
        Fault.DROP_BEFORE: Behaviour(
            "Closes the connection before anything is done: nothing is accepted, nothing is in the books."
        ),
        Fault.DROP_AFTER: Behaviour(
            "Does everything (the job is accepted, the file stored), then closes without a byte of answer."
        ),
        Fault.TRUNCATE: Behaviour("The right headers, half of the body, then the connection closes.", {}, WHOLE),
        Fault.HANG: Behaviour(
            "Takes the call and never answers. Nothing is done, unless `late`: then everything is.", {"late": False}
        ),
        Fault.DRIP: Behaviour("The right answer at `bytes_per_second`.", {"bytes_per_second": 100}, WHOLE),
        Fault.HUGE: Behaviour(
            "A well-formed answer blown up to `bytes` bytes; with `chunked` without Content-Length.",
            {"bytes": 64 * _MEBIBYTE, "chunked": False},
            WHOLE,
        ),
        Fault.GARBAGE_JSON: Behaviour("200, application/json, and a body that is not JSON."),
        Fault.STATUS_WORD: Behaviour("The status's word is `word`.", {"word": "PAUSED"}, frozenset({Point.STATUS})),
        Fault.WRONG_CONTENT_TYPE: Behaviour("The right answer labelled `content_type`.", {"content_type": "text/html"}),
        Fault.FOREIGN_URLS: Behaviour(
            "status_url, response_url and cancel_url point to `origin`.",
            {"origin": "https://queue.fal.example"},
            frozenset({Point.SUBMIT, Point.STATUS}),
        ),
        Fault.BAD_REQUEST_ID: Behaviour(
            "The answer's request_id is `request_id`.", {"request_id": "../../../sandbox/books?x="}, _SUBMIT
        ),
        Fault.LOSE_RESULT: Behaviour(
            "The job completes and is billed, its result is 404. At the result, only this one fetch is.",
            {},
            frozenset({Point.SUBMIT, Point.RESULT}),
        ),
        Fault.NSFW: Behaviour("Picture number `image` is black, of its size, flagged, and billed.", {"image": 0}, JOB),
        Fault.EMPTY_IMAGES: Behaviour("The job succeeds with an empty list of images, unbilled.", {}, JOB),
        Fault.CORRUPT_IMAGE: Behaviour("The pictures' bytes end in the middle; billed.", {}, PICTURE),
        Fault.LIE_CONTENT_TYPE: Behaviour(
            "The pictures are labelled `content_type`, whatever they are.", {"content_type": "image/webp"}, PICTURE
        ),
        Fault.LIE_SIZE: Behaviour(
            "The output claims `width` x `height`, whatever the pictures are.", {"width": 640, "height": 480}, JOB
        ),
        Fault.CANCEL_TOO_LATE: Behaviour(
            "The job completes at this moment: 400 ALREADY_COMPLETED, and it is billed.", {}, _CANCEL
        ),
        Fault.CANCEL_IGNORED: Behaviour(
            "202 CANCELLATION_REQUESTED, but the job runs on, completes and is billed.", {}, _CANCEL
        ),
        Fault.LIST_LAG: Behaviour("Jobs of the last `seconds` are not listed yet.", {"seconds": 3600.0}, _LIST),
        Fault.LIST_NO_PAYLOADS: Behaviour("Jobs are listed without their payloads.", {}, _LIST),
    }
)


LOST_ON_THE_WAY = frozenset({Fault.DROP_AFTER, Fault.HANG, Fault.TRUNCATE, Fault.GARBAGE_JSON})
"""The answer was made and does not arrive: what it carries is not in the client's hands."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that is about to happen, with all its arguments."""

    fault: Fault
    arguments: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


def strike(name: str, given: Mapping[str, Any], point: Point | None) -> Strike:
    """Check a fault's name, place and arguments. Raises UnknownFault."""
    try:
        fault = Fault(name)
    except ValueError:
        raise UnknownFault(f"unknown fault {name!r}; known: {', '.join(Fault)}") from None
    if point is not None and point not in FAULTS[fault].points:
        places = ", ".join(sorted(FAULTS[fault].points))
        raise UnknownFault(f"fault {name!r} cannot happen at {point!s}; it can at: {places}")
    unknown = set(given) - set(FAULTS[fault].arguments)
    if unknown:
        known = ", ".join(FAULTS[fault].arguments) or "none"
        raise UnknownFault(f"fault {name!r} has no argument {', '.join(sorted(unknown))}; known: {known}")
    for key, value in given.items():
        default = FAULTS[fault].arguments[key]
        if isinstance(default, int | float) and not isinstance(default, bool) and not isinstance(value, int | float):
            raise UnknownFault(f"argument {key!r} of fault {name!r} must be a number")
    return Strike(fault, {**FAULTS[fault].arguments, **given})


def parse(text: str, point: Point | None) -> tuple[Strike, ...]:
    """`rate_limit;retry_after=3, delay;seconds=0.2` -> strikes. A value is JSON if it parses as JSON, else text."""
    strikes = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, *pairs = (piece.strip() for piece in part.split(";"))
        given = {}
        for key, _, value in (pair.partition("=") for pair in pairs if pair):
            try:
                given[key.strip()] = json.loads(value)
            except ValueError:
                given[key.strip()] = value.strip()
        strikes.append(strike(name, given, point))
    return tuple(strikes)


@dataclass(slots=True)
class Rule:
    """One line of a script. Passes the first `after` calls that it matches, then strikes `times` of them (None: for
    ever).

    `chance` (0 to 1) lets a live rule pass a call by the throw of a die, seeded by the rule's place in the script, so a
    flaky upstream repeats.
    """

    point: Point | None
    strikes: tuple[Strike, ...]
    times: int | None = 1
    after: int = 0
    endpoint: str | None = None
    chance: float = 1.0
    seen: int = 0
    struck: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311  not a secret

    def matches(self, point: Point, endpoint: str | None) -> bool:
        """An `any` rule is about the calls where its fault can happen."""
        return (
            (self.point is None or self.point is point)
            and (self.endpoint is None or self.endpoint == endpoint)
            and all(point in FAULTS[s.fault].points for s in self.strikes)
        )

    def describe(self) -> dict[str, Any]:
        return {
            "on": str(self.point or "any"),
            "faults": [{"fault": str(s.fault), "args": dict(s.arguments)} for s in self.strikes],
            "times": self.times,
            "after": self.after,
            "endpoint": self.endpoint,
            "chance": self.chance,
            "seen": self.seen,
            "struck": self.struck,
        }


_RULE_KEYS = {"on", "fault", "args", "times", "after", "endpoint", "chance"}


def rule_from(line: Any) -> Rule:
    """`{"on": "status", "fault": "http", "args": {"status": 500}, "times": 2, "after": 1}` -> Rule."""
    if not isinstance(line, dict) or "fault" not in line or set(line) - _RULE_KEYS:
        raise UnknownFault(f"a rule is an object with {', '.join(sorted(_RULE_KEYS))}; `fault` is required: {line!r}")
    on = line.get("on", "any")
    try:
        point = None if on == "any" else Point(on)
    except ValueError:
        raise UnknownFault(f"unknown point {on!r}; known: any, {', '.join(Point)}") from None
    times, after, chance = line.get("times", 1), line.get("after", 0), line.get("chance", 1.0)
    if not (times is None or (isinstance(times, int) and times >= 1)) or not (isinstance(after, int) and after >= 0):
        raise UnknownFault(f"`times` is null or an integer from 1, `after` an integer from 0: {line!r}")
    if not isinstance(chance, int | float) or not 0 <= chance <= 1:
        raise UnknownFault(f"`chance` is a number from 0 to 1: {line!r}")
    name, args = str(line["fault"]), line.get("args") or {}
    strikes = (strike(name, args, point),) if args or name in set(Fault) else parse(name, point)
    if not strikes:
        raise UnknownFault(f"unknown fault {name!r}; known: {', '.join(Fault)}")
    return Rule(point, strikes, times, after, line.get("endpoint"), float(chance))


class Script:
    """Rules in order. A call takes the first live rule that matches it; the others do not see it."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, lines: Iterable[Any]) -> None:
        """Append rules, all or none. Raises UnknownFault."""
        rules = [rule_from(line) for line in lines]
        for place, rule in enumerate(rules, len(self._rules)):
            rule.dice = random.Random(place)  # noqa: S311  with the same dice all flaky rules would strike together
        self._rules += rules

    def clear(self) -> None:
        self._rules.clear()

    def describe(self) -> list[dict[str, Any]]:
        return [rule.describe() for rule in self._rules]

    def take(self, point: Point, endpoint: str | None) -> tuple[Strike, ...]:
        for rule in self._rules:
            if not rule.matches(point, endpoint) or (rule.times is not None and rule.struck >= rule.times):
                continue
            rule.seen += 1
            if rule.seen <= rule.after or rule.dice.random() >= rule.chance:
                continue
            rule.struck += 1
            return rule.strikes
        return ()
