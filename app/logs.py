"""How log lines look: one line each, JSON or text, with the request that it was written for; and never a secret.

A line may hold what somebody else said (a provider's message, a path, a header): it is escaped, so that nobody can
forge a line or move a terminal's cursor. Secrets that the settings hold, keys in headers and signatures of URLs are
struck out whatever wrote them: a net under the rule that nobody writes them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from app.visits import Visit, current

log = logging.getLogger("imagegate.access")

LEAST_SECRET = 8  # characters; what is shorter stands in other words by chance
HIDDEN = "***"
# What a signed URL is signed with (ours, S3, GCS, Azure), and keys as headers carry them.
_SIGNED = re.compile(
    r"(?P<name>\b(?:sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature"
    r"|x-goog-credential)=)[^&\s\"'\\)>]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>\b(?:(?:Bearer|Basic)(?= +[\w.~+/=-]{8})|Key(?= +[\w-]+:[\w-])) +)[\w.~+/:=-]+", re.ASCII
)
_PASSWORD = re.compile(r"(?P<name>://[^/\s:@]*:)[^@\s/]+(?=@)")
# What moves a cursor or ends a line, for a terminal or for whoever splits lines (C0, C1, and Unicode's line ends).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ENCODER = json.JSONEncoder(default=str)  # `json.dumps` makes one for each line
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class Redactor:
    """Strikes out secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets`: the values themselves; those of a multi-line text line by line."""
        self._known: list[str] = []
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Strike these out too, from now on: keys change while the gateway runs."""
        parts = {part.strip() for secret in secrets for part in (secret, *secret.splitlines())}
        known = parts | {json.dumps(part)[1:-1] for part in parts}  # as a line of JSON spells it
        # The longest first: one may be part of another.
        known = {part for part in known if len(part) >= LEAST_SECRET} | set(self._known)
        self._known = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._known:  # a few: faster than one expression for all
            if secret in text:
                text = text.replace(secret, HIDDEN)
        if "=" in text:
            text = _SIGNED.sub(rf"\g<name>{HIDDEN}", text)
        if "://" in text:
            text = _PASSWORD.sub(rf"\g<name>{HIDDEN}", text)
        if "Bearer " in text or "Basic " in text or "Key " in text:
            text = _HEADER.sub(rf"\g<name>{HIDDEN}", text)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request, trace, then what the line is about."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        visit = current.get()
        if visit is not None:
            line["request_id"], line["trace_id"] = visit.id, visit.trace_id
        line |= _about(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ensure_ascii: no character of Unicode that ends a line somewhere is left as it is
        return self._redact(_ENCODER.encode(line))


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, request, message, and name=value for what the line is about."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; a traceback follows on lines of its own, which begin with a bar."""
        visit = current.get()
        words = [_time(record.created), record.levelname, record.name, *([] if visit is None else [visit.id])]
        about = [f"{name}={value}" for name, value in _about(record).items() if value is not None]
        lines = [" ".join([*words, record.getMessage(), *about])]
        if record.exc_info:
            lines += [f"| {line}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(_CONTROL.sub(_escaped, self._redact(line)) for line in lines)


def for_machines(format: Literal["auto", "json", "text"]) -> bool:
    """Whether lines are JSON; `auto`: unless somebody looks at them on a terminal."""
    return format == "json" or (format == "auto" and not sys.stderr.isatty())


def set_up(level: str, format: Literal["auto", "json", "text"], secrets: Iterable[str]) -> Redactor:
    """From now on every line of this process looks like this, uvicorn's and Python's own too."""
    redact = Redactor(secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(redact) if for_machines(format) else TextFormatter(redact))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    return redact


def write_access(visit: Visit) -> None:
    """One line for each request: what was asked, what was answered, what it took. The path is the route's template: a
    real one may hold a signed URL, or whatever a stranger likes."""
    level = logging.DEBUG if visit.route in PROBES and visit.status < 400 else logging.INFO
    if not log.isEnabledFor(level):
        return
    about = {
        "method": visit.method,
        "route": visit.route or None,
        "status": visit.status,
        "milliseconds": round(visit.seconds * 1000, 1),
        "bytes_in": visit.bytes_in,
        "bytes_out": visit.bytes_out,
        "key": visit.key_id,
        "model": visit.model,
        "cost": None if visit.cost is None else f"{visit.cost.normalize():f}",
        "currency": visit.currency,
        "error": visit.error_code,
        "client_gone": visit.gone or None,
        "traceparent": None if visit.caller_trace is None else str(visit.caller_trace),
    }
    log.log(level, "request", extra={"about": {name: value for name, value in about.items() if value is not None}})


def _about(record: logging.LogRecord) -> Mapping[str, Any]:
    about: Mapping[str, Any] = getattr(record, "about", None) or {}
    return about


def _time(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("imagegate").critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        trouble = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("imagegate").critical("uncaught in a thread", exc_info=trouble)
