"""Contenders that are measured in turns: A B A B …, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.contenders import IMAGEGATE, WARM, Contender, fire
from bench.machine import ROOT, cpu_seconds
from bench.pictures import photo, png

MODEL = ROOT / "app" / "catalogue" / "models" / "qwen-image-edit-2509.yaml"
_MAX_BYTES = "max_bytes: "


@dataclass(slots=True)
class Lane:
    """One started contender, one kind of request, and what its rounds gave."""

    name: str
    pid: int
    target: str
    body: bytes
    headers: Mapping[str, str]
    count: int  # requests a round
    cpu_ms: list[float] = field(default_factory=list)  # a request, by round
    p50_ms: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    def turn(self, concurrency: int, count: int = 0) -> None:
        """One round."""
        before = cpu_seconds(self.pid)
        result = fire(self.target, self.body, self.headers, concurrency, count or self.count)
        self.cpu_ms.append(1000 * (cpu_seconds(self.pid) - before) / result["requests"])
        self.p50_ms.append(result["p50_ms"])
        self.per_second.append(result["per_second"])
        for status, times in result["statuses"].items():
            self.statuses[status] = self.statuses.get(status, 0) + times

    def warm(self, concurrency: int, count: int = WARM) -> None:
        """Uncounted requests."""
        fire(self.target, self.body, self.headers, concurrency, count)

    @property
    def cpu(self) -> float:
        """Milliseconds a request, the median of the rounds."""
        return statistics.median(self.cpu_ms)

    @property
    def p50(self) -> float:
        """Milliseconds, the median of the rounds' medians."""
        return statistics.median(self.p50_ms)

    @property
    def failed(self) -> int:
        """Answers that were no 200."""
        return sum(self.statuses.values()) - self.statuses.get("200", 0)


class Field:
    """Started contenders, until the block ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, str], tuple[int, str]] = {}

    def lane(
        self,
        contender: Contender,
        upstream: str,
        fields: Mapping[str, str] | None = None,
        *,
        picture: bytes = b"",
        count: int = 0,
        name: str = "",
    ) -> Lane:
        """A lane to the contender before this upstream, which is started if it is not."""
        key = contender.name, upstream
        if key not in self._started:
            process, url = self._stack.enter_context(contender.started(upstream))
            self._started[key] = process.pid, url
        pid, url = self._started[key]
        body, headers = contender.request(picture or png(photo()), fields)
        return Lane(name or contender.name, pid, url + contender.path, body, headers, count or contender.count)


@contextmanager
def field_of() -> Iterator[Field]:
    """An empty field."""
    with ExitStack() as stack:
        yield Field(stack)


def take_turns(lanes: Sequence[Lane], rounds: int, concurrency: int) -> None:
    """Warm all, then `rounds` rounds of each, one after the other."""
    for lane in lanes:
        lane.warm(concurrency, min(WARM, lane.count))
    for _ in range(rounds):
        for lane in lanes:
            lane.turn(concurrency)


@contextmanager
def raised(max_bytes: str, env: Mapping[str, str] | None = None) -> Iterator[Contender]:
    """The gateway with our model's max_bytes raised by an operator's model file, and further settings."""
    text = MODEL.read_text()
    value = text.partition(_MAX_BYTES)[2].split()[0]
    with TemporaryDirectory(prefix="imagegate-bench-models-") as folder:
        (Path(folder) / MODEL.name).write_text(text.replace(_MAX_BYTES + value, _MAX_BYTES + max_bytes))
        more = {"IMAGEGATE_MODELS_DIR": folder, **(env or {})}
        yield replace(IMAGEGATE, name="imagegate, raised limits", env={**IMAGEGATE.env, **more})
