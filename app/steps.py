"""How long each stretch of a request's way took, noted while it is covered. Logs, metrics and traces are told of it
afterwards: on the way nothing else happens than that two times are read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

# In the order in which they are covered: the body and its pictures come in; everything that can fail before something
# is bought; a place among the jobs; the provider takes the job; it is at work; its picture comes here; is brought into
# shape; is stored; the answer is put together.
Phase = Literal["receive", "prepare", "queue", "submit", "wait", "fetch", "finish", "store", "answer"]
PHASES: tuple[Phase, ...] = ("receive", "prepare", "queue", "submit", "wait", "fetch", "finish", "store", "answer")


@dataclass(frozen=True, slots=True)
class Step:
    """One stretch. Several of a phase can be under way at once: of n jobs, each has its own."""

    phase: Phase
    began: float  # on the clock's monotonic scale
    seconds: float
    about: Mapping[str, str | int] = field(default_factory=dict)  # never a prompt, a key or a signed URL
    failed: bool = False


class Steps:
    """Those of one request, as they end."""

    __slots__ = ("_now", "taken")

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` is the clock's `monotonic`."""
        self._now = now
        self.taken: list[Step] = []

    def measure(self, phase: Phase) -> Measure:
        """`with steps.measure("fetch") as step: …`; what is learned on the way goes into `step.about`."""
        return Measure(self.taken, self._now, phase)


class Measure:
    """One stretch that is being covered."""

    __slots__ = ("_began", "_now", "_phase", "_taken", "about")

    def __init__(self, taken: list[Step], now: Callable[[], float], phase: Phase) -> None:
        self._taken = taken
        self._now = now
        self._phase = phase
        self.about: dict[str, str | int] = {}

    def __enter__(self) -> Self:
        self._began = self._now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken.append(Step(self._phase, self._began, self._now() - self._began, self.about, kind is not None))


def timings(steps: Iterable[Step]) -> dict[Phase, float]:
    """Seconds by phase: from the first beginning to the last end, so that jobs side by side count once."""
    spans: dict[Phase, tuple[float, float]] = {}
    for step in steps:
        began, ended = spans.get(step.phase, (step.began, step.began))
        spans[step.phase] = min(began, step.began), max(ended, step.began + step.seconds)
    return {phase: spans[phase][1] - spans[phase][0] for phase in PHASES if phase in spans}
