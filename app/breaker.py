"""Which offers are out: after too many failures an offer is left alone, save for a probe now and then.

    closed ──────────► open ◄────────► half open
       ▲  failures       │    a probe      │
       └─────────────────┴── is a success ─┘

Only faults that speak about the offer's health count. INVALID and REFUSED are a word about one request, which a
provider's front door says while the machines behind it are down: they prove neither health nor illness. RATE_LIMITED is
an answer of a provider that works; it has its own pace (`retry_after`), and to shut the door would be to punish it.

An attempt has two steps, the submit and the job, and each can fail alone. A submit's verdict is there at once, a job's
perhaps in two minutes: so a job that ends well says nothing about submits now, nor a submit that was taken about jobs.
An offer that is out because of submits is back as soon as one is taken: its recovery does not wait for a whole job.

All reads and changes are O(1) or a sum over 30 numbers, without I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from providers.base import Clock, Fault

# Envoy's outlier detection (5 in a row) and a share, with probes every 5 s instead of its 30: a probe is a real request
# that somebody wants, so it costs nothing extra, and all traffic is back <= 10 s after recovery.
IN_A_ROW = 5
SHARE, SHARE_OF, SHARE_SECONDS = 0.5, 20, 30
CHANCE = 1e-6  # a row of failures that is likelier than this, as failures go lately, is no sign
# Before the first probe, then twice as long each time: where an offer is a model's only one, its callers have no other
# way, and a hiccup should not cost them seconds.
FIRST_PROBE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 1.0
PROBE_SECONDS = 5.0  # a probe not heard of for so long does not hold the next one back
PROBE_JOB_SECONDS = 60.0  # a probe whose job was taken has so long to finish it

LOCKS = frozenset({Fault.UNAUTHORIZED, Fault.MISCONFIGURED})  # at once, until somebody mends it
HEALTH = frozenset({Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.MALFORMED}) | LOCKS

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerView:
    """How an offer is."""

    state: State
    why: str = ""  # what the failure said by which it is out
    since: float = 0.0  # seconds that it has been out (open, half open) or in (closed)
    probe_due: float | None = None  # seconds until the next probe may go; None: closed
    fault: Fault | None = None  # by which it is out

    @property
    def locked(self) -> bool:
        """The provider refuses our account, or does not know the endpoint: somebody has to mend that."""
        return self.fault in LOCKS


OnChange = Callable[[str, BreakerView], None]


class Breakers:
    """All offers' breakers. One for the whole process."""

    def __init__(
        self,
        clock: Clock,
        on_change: OnChange = lambda offer, view: None,
        *,
        first_probe: float = FIRST_PROBE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """`on_change` is told when an offer goes out and when it comes back, not of each probe. It must not raise.
        `first_probe`: seconds after an offer went out; then twice as long each time, up to `longest_pause`."""
        self._pauses = first_probe, longest_pause
        self._clock = clock
        self._on_change = on_change
        self._offers: dict[str, _Offer] = {}

    def of(self, offer: str) -> Breaker:
        """The breaker of an offer ("provider/endpoint"), for one attempt."""
        if offer not in self._offers:
            self._offers[offer] = _Offer(offer, self._clock, self._on_change, *self._pauses)
        return Breaker(self._offers[offer])

    def unlock(self, provider: str) -> None:
        """The provider's key has changed: what was out because of the old one is in again, until the new one fails."""
        for name, offer in self._offers.items():
            if offer.locked and name.startswith(f"{provider}/"):
                offer.come_back()

    def keep(self, offers: Collection[str]) -> None:
        """Forget the offers that are none any more; those that remain stay as they are."""
        self._offers = {name: offer for name, offer in self._offers.items() if name in offers}

    def states(self) -> Mapping[str, BreakerView]:
        """Every offer that was ever asked for."""
        return {name: offer.view() for name, offer in self._offers.items()}


class Breaker:
    """One attempt's way through the breaker: `admit`, then exactly one of `succeeded`, `failed`, `left`.

    It knows when it was admitted. So the failures of attempts that were under way when the offer went out change
    nothing, neither while it is out nor after it has come back; nor can they be taken for the probe's.
    """

    __slots__ = ("_began", "_era", "_offer", "_taken")

    def __init__(self, offer: _Offer) -> None:
        self._offer = offer
        self._taken: int | None = None  # the second in which the provider took the job
        self._begin()

    @property
    def locked(self) -> bool:
        """See BreakerView."""
        return self._offer.locked

    @property
    def reason(self) -> str:
        """What the failure said by which the offer is out; empty if it is not."""
        return self._offer.why

    def peek(self) -> float | None:
        """As `admit`, but takes no probe's place: for a refusal before a request is worked on."""
        return self._offer.wait() or None

    def admit(self) -> float | None:
        """None: go ahead. Else the seconds until the next probe may go."""
        offer = self._offer
        wait = offer.wait()
        if wait:
            return wait
        self._begin()
        if offer.out:
            offer.probe, offer.probed = self, offer.now()
            offer.due = offer.probed + PROBE_SECONDS
            offer.probes += 1
        return None

    def succeeded(self, *, accepted_only: bool = False) -> None:
        """The provider has done the job; or, `accepted_only`, has taken it (then the job's own end follows)."""
        offer = self._offer
        if self._era != offer.era:
            return
        if offer.out:
            if accepted_only and offer.by_jobs:
                self._taken = offer.second()
                if offer.probe is self:
                    offer.due = offer.now() + PROBE_JOB_SECONDS
                return
            offer.come_back()
            self._begin()
        if self._taken is None:  # else its submit has had its say already
            offer.submits.worked(self._began)
        taken = self._count(failed=False)
        if accepted_only:
            self._taken = taken
        else:
            offer.jobs.worked(self._began)

    def failed(self, fault: Fault, message: str) -> None:
        """The attempt failed. `message` is the public one: it becomes the reason."""
        offer = self._offer
        if self._era != offer.era:
            return
        if fault not in HEALTH:
            self._give_way(at_once=fault is not Fault.RATE_LIMITED)
        elif not offer.out:
            by_job = self._taken is not None
            (offer.jobs if by_job else offer.submits).broke(self._began)
            self._count(failed=True)
            if fault in LOCKS:
                offer.go_out(fault, message, by_jobs=by_job)
            elif offer.is_ill():
                offer.go_out(fault, message, by_jobs=offer.jobs.row > 0)
        elif offer.probe is self:
            offer.why, offer.fault = message, fault
            offer.by_jobs = self._taken is not None  # the step that failed last has to be seen to work
            self._give_way(at_once=False)

    def left(self) -> None:
        """The attempt ended without a verdict: it was cancelled, or nothing was sent. Harmless after a verdict."""
        if self._era == self._offer.era:
            self._give_way(at_once=True)

    def _begin(self) -> None:
        self._era = self._offer.era
        self._began = self._offer.now()
        self._taken = None

    def _give_way(self, *, at_once: bool) -> None:
        """The next probe may go: now, or when it would be due anyway."""
        if self._offer.probe is self:
            self._offer.probe = None
            self._offer.due = self._offer.now() if at_once else self._offer.probed + self._offer.pause()

    def _count(self, *, failed: bool) -> int:
        """Each attempt counts once, by the last that is known of it. The second under which it counts."""
        recent, second = self._offer.recent, self._offer.second()
        if self._taken is not None and self._taken in recent:
            recent[self._taken].fine -= 1
        tally = recent.setdefault(second, _Tally())
        tally.failed += failed
        tally.fine += not failed
        if len(recent) > SHARE_SECONDS:
            self._offer.forget()
        return second


@dataclass(slots=True)
class _Tally:
    """Attempts of one second."""

    fine: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Step:
    """How one step of the attempts went lately."""

    row: int = 0  # failures since it last worked
    newest: float = -math.inf  # when the newest attempt began for which it worked

    def worked(self, began: float) -> None:
        self.row, self.newest = 0, max(self.newest, began)

    def broke(self, began: float) -> None:
        """If it has worked since for an attempt that began later, the failure is old news: requests that hung in a
        short outage end together, long after it."""
        self.row += began >= self.newest


class _Offer:
    """What all attempts at one offer share."""

    def __init__(self, name: str, clock: Clock, on_change: OnChange, first_probe: float, longest_pause: float) -> None:
        self.name = name
        self._first_probe = first_probe
        self._longest_pause = longest_pause
        self.probes = 0  # since it went out
        self._clock = clock
        self._on_change = on_change
        self.era = 0  # one more each time it goes out or comes back
        self.out = False
        self.since = self.now()
        self.why = ""
        self.fault: Fault | None = None
        self.by_jobs = False  # out because of jobs that had been taken, not (only) of submits
        self.due = 0.0  # when the next probe may go
        self.probed = 0.0  # when the last one went
        self.probe: Breaker | None = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.submits, self.jobs = _Step(), _Step()
        self.recent: dict[int, _Tally] = {}  # by second, oldest first

    @property
    def locked(self) -> bool:
        return self.fault in LOCKS

    def now(self) -> float:
        return self._clock.monotonic()

    def second(self) -> int:
        return int(self.now())

    def wait(self) -> float:
        """Seconds until an attempt may go; 0: now."""
        return max(self.due - self.now(), 0.0) if self.out else 0.0

    def pause(self) -> float:
        """Seconds from one probe to the next. An account that is locked may be unlocked at any moment, to ask costs
        nothing, and the answer is the same as ours would be. To ask for an endpoint that is not known costs an upload.
        """
        if self.fault is Fault.UNAUTHORIZED:
            return 0.0
        return min(self._first_probe * 2.0**self.probes, self._longest_pause)

    def view(self) -> BreakerView:
        wait = self.wait()
        state: State = "closed" if not self.out else "half_open" if self.probe is not None and wait else "open"
        return BreakerView(state, self.why, self.now() - self.since, wait if self.out else None, self.fault)

    def is_ill(self) -> bool:
        """Whether the failures so far are too many. 5 in a row are, where failures are rare; where they are common the
        same row is chance, and takes to be longer (30 % flaky: 12)."""
        self.forget()
        failed = sum(tally.failed for tally in self.recent.values())
        total = failed + sum(tally.fine for tally in self.recent.values())
        if total >= SHARE_OF and failed > SHARE * total:
            return True
        row = self.submits.row + self.jobs.row
        failed, total = failed - row, total - row  # before the row; the share of failures was at most a half
        common = failed > 0 and total >= SHARE_OF
        return row >= (max(IN_A_ROW, math.ceil(math.log(CHANCE, failed / total))) if common else IN_A_ROW)

    def forget(self) -> None:
        """Drop what is older than the time that counts."""
        oldest = self.second() - SHARE_SECONDS
        while self.recent and (first := next(iter(self.recent))) <= oldest:
            del self.recent[first]

    def go_out(self, fault: Fault, message: str, *, by_jobs: bool) -> None:
        self.why, self.fault, self.by_jobs = message, fault, by_jobs
        self.probes = 0
        self.due = self.now() + self.pause()
        self._turn(out=True)

    def come_back(self) -> None:
        self.why, self.fault = "", None
        self._start_afresh()
        self._turn(out=False)

    def _turn(self, *, out: bool) -> None:
        self.out = out
        self.era += 1
        self.since = self.now()
        self.probe = None
        self._on_change(self.name, self.view())
