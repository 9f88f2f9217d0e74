"""The gateway's journal against the provider's books: bought = charged = kept, to the unit."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from PIL import Image

from tests.conftest import Json
from tests.faults.gate import Gate

UNIT = Decimal("0.03")  # the price of a picture of SIZE
OPEN = {"intent", "submitted", "cancelling", "lost", "ambiguous"}


@dataclass(frozen=True)
class Mark:
    """What was there before."""

    jobs: frozenset[str]
    records: frozenset[str]


NOTHING = Mark(frozenset(), frozenset())


@dataclass(frozen=True)
class Balance:
    """What has come since."""

    jobs: tuple[Json, ...]  # the books'
    records: tuple[Json, ...]  # the journal's
    pictures: int  # of the journal, fetched and decoded

    @property
    def submitted(self) -> int:
        return len(self.jobs)

    @property
    def billed(self) -> int:
        return sum(job["billed"] for job in self.jobs)

    @property
    def bill(self) -> Decimal:
        """By the provider's count."""
        return sum((Decimal(str(job["billable_units"])) for job in self.jobs), Decimal(0)) * UNIT

    @property
    def cancelled(self) -> int:
        return sum(job["cancelled"] for job in self.jobs)

    @property
    def twice(self) -> int:
        """Jobs beyond the first for the same picture: tests give each picture a prompt and a seed of its own."""
        asked = Counter((job["payload"]["prompt"], job["payload"].get("seed")) for job in self.jobs)
        return sum(count - 1 for count in asked.values())

    @property
    def journal(self) -> list[Json]:
        """The journal's jobs."""
        return [job for record in self.records for job in record["jobs"]]

    @property
    def charged(self) -> Decimal:
        """By the journal's count, of what is known."""
        return sum((Decimal(str(record["cost"])) for record in self.records), Decimal(0))

    @property
    def states(self) -> str:
        """The journal's jobs, such as `2 done, 1 failed`."""
        counted = Counter(job["state"] for job in self.journal)
        return ", ".join(f"{count} {state}" for state, count in sorted(counted.items())) or "nothing"

    @property
    def is_open(self) -> bool:
        return any(job["state"] in OPEN for job in self.journal)

    @property
    def unknown(self) -> list[str]:
        """Jobs of the books that the journal has no page for."""
        known = {job["job"] for job in self.journal}
        return [job["request_id"] for job in self.jobs if job["request_id"] not in known]


def mark(*gates: Gate) -> Mark:
    """Now."""
    records = {record["id"] for gate in gates for record in gate.records()}
    jobs = {job["request_id"] for gate in gates[:1] for job in gate.sandbox.jobs()}
    return Mark(frozenset(jobs), frozenset(records))


def balance(gate: Gate, since: Mark, upto: Mark | None = None) -> Balance:
    """What has come since. Every picture of the journal is fetched, and has to be one."""
    # The journal first: what it says of a job's end, the books have said before.
    records = tuple(
        record
        for record in gate.records()
        if record["id"] not in since.records and (upto is None or record["id"] in upto.records)
    )
    jobs = tuple(
        job
        for job in gate.sandbox.jobs()
        if job["request_id"] not in since.jobs and (upto is None or job["request_id"] in upto.jobs)
    )
    return Balance(jobs, records, readable(gate, records))


def about(gate: Gate, *prompts: str) -> Balance:
    """What has come of requests with these prompts."""
    jobs = tuple(job for job in gate.sandbox.jobs() if job["payload"]["prompt"] in prompts)
    ids = {job["request_id"] for job in jobs}
    records = tuple(record for record in gate.records() if any(job["job"] in ids for job in record["jobs"]))
    return Balance(jobs, records, readable(gate, records))


def readable(gate: Gate, records: Iterable[Json]) -> int:
    """How many pictures there are; each can be had and decodes."""
    found = 0
    for record in records:
        for picture in record["data"]:
            if picture["url"] is None:
                continue  # it was given away as base64, and is kept nowhere
            answer = gate.http.get(picture["url"])
            assert answer.status_code == 200, (record, answer.text[:300])
            image = Image.open(io.BytesIO(answer.content))
            image.load()
            found += 1
    return found


def at_once_upstream(found: Balance) -> int:
    """The most jobs that the provider had at the same time."""
    steps = [(job["submitted_at"], 1) for job in found.jobs] + [(job["finished"], -1) for job in found.jobs]
    now = most = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def assert_even(found: Balance) -> None:
    """Nothing was bought twice, and all that was bought is in the journal, at its price."""
    assert found.twice == 0, "a picture was bought twice"
    assert not found.unknown, f"the journal does not know {found.unknown}"
    billed = {job["request_id"] for job in found.jobs if job["billed"]}
    priced = {job["job"] for job in found.journal if job["cost"]}
    assert priced == billed, "the journal charges other jobs than the provider does"
    assert found.charged == found.bill
