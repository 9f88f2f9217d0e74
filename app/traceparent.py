"""W3C Trace Context, level 1 and 2: the header `traceparent`, read as strictly as it is specified. Pure.

https://www.w3.org/TR/trace-context-2/#traceparent-header-field-values: a header that cannot be read counts as none, and
so do several of them. `tracestate` is a vendor's own business, and is neither read nor passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FORM = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
LONGEST = 256  # of a version to come
SAMPLED, RANDOM = 0x01, 0x02


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Where a caller is in its trace. Ids are lower-case hexadecimal digits, 32 and 16 of them."""

    trace_id: str
    parent_id: str
    flags: int = 0

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records it."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


def read_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> TraceParent | None:
    """The one among a request's headers (names in lower case); None if there is none that can be read."""
    found = [value for name, value in headers if name == b"traceparent"]
    if len(found) != 1 or len(found[0]) > LONGEST:
        return None
    match = _FORM.fullmatch(found[0].strip(b" \t"))
    if match is None or match["version"] == b"ff" or (match["version"] == b"00" and match["more"] is not None):
        return None
    trace, parent = match["trace"].decode(), match["parent"].decode()
    if not trace.strip("0") or not parent.strip("0"):
        return None
    # Of the flags of a version to come only those that we know mean what we think.
    return TraceParent(trace, parent, int(match["flags"], 16) & (SAMPLED | RANDOM))
