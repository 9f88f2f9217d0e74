"""Disk full, database locked, database damaged: said early, said clearly, over when the cause is."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.fakes.sandbox import SandboxServer
from tests.faults.conftest import OwnGate
from tests.faults.gate import until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import balance, mark

prompts = (f"state {number}" for number in itertools.count(1))
MEBIBYTE = 1 << 20


# ---- the disk


class Disk:
    """A small one, which can be filled to the last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(64 << 10)):
                pass
        with (self.folder / "crumbs").open("wb", buffering=0) as crumbs, suppress(OSError):
            while crumbs.write(bytes(512)):
                pass

    def empty(self) -> None:
        for name in ("ballast", "crumbs"):
            (self.folder / name).unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "faults", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        lacking = f"no tmpfs can be mounted here ({mounted.stderr.strip()}): DISK FULL IS NOT TESTED"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    try:
        yield Disk(tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@covers("D1-disk-full")
def test_a_full_disk_is_said_before_anything_is_bought(
    case: Case, own: OwnGate, upstream: SandboxServer, disk: Disk
) -> None:
    gate = own(data_dir=str(disk.folder / "data"))
    before = gate.ask(next(prompts)).status_code
    disk.fill()
    jobs = len(upstream.jobs())
    full = [gate.ask(next(prompts)), gate.ask(next(prompts), response_format="b64_json")]
    ready, lives = gate.http.get("/readyz").status_code, gate.http.get("/healthz").status_code
    meanwhile = len(upstream.jobs()) - jobs
    disk.empty()
    after = until(lambda: (one := gate.ask(next(prompts))).status_code == 200 and one, what="a picture").status_code
    case.saw(
        {
            "before": before,
            "full": ", ".join(sorted({f"{one.status_code}{' + Retry-After' * later(one)}" for one in full})),
            "/readyz": ready,
            "/healthz": lives,
            "submits meanwhile": meanwhile,
            "after": after,
            "then /readyz": gate.http.get("/readyz").status_code,
        }
    )


def later(answer: httpx2.Response) -> bool:
    return answer.headers.get("retry-after", "").isdecimal()


@covers("D1-disk-fills")
def test_a_disk_that_fills_up_under_way_costs_no_picture(
    case: Case, own: OwnGate, upstream: SandboxServer, disk: Disk
) -> None:
    gate = own(data_dir=str(disk.folder / "data"))
    since = mark(gate)
    upstream.script(on("submit", "run_for", None, seconds=2))
    answers: dict[str, httpx2.Response] = {}

    def ask(format: str) -> None:
        answers[format] = gate.ask(f"fills {format}", response_format=format)

    threads = [threading.Thread(target=ask, args=(format,)) for format in ("url", "b64_json")]
    for thread in threads:
        thread.start()
    until(lambda: len(gate.rows("SELECT 1 FROM jobs WHERE job IS NOT NULL")) == 2, what="two tickets")
    disk.fill()
    for thread in threads:
        thread.join(60)
    disk.empty()
    url = answers["url"]
    with suppress(AssertionError):
        until(lambda: balance(gate, since).states == "2 done", 10, every=0.3)
    found = balance(gate, since)
    told = {"base64": answers["b64_json"].status_code, "url": f"{url.status_code} {told_cost(url)}"}
    more = {"submits": found.submitted, "journal": found.states, "charged": str(found.charged)}
    case.saw(told | more, pictures=found.pictures)


def told_cost(answer: httpx2.Response) -> str:
    return f"{answer.headers.get('x-should-retry', '-')} {answer.headers.get('x-imagegate-cost', '-')}"


@covers("D4-corrupt")
def test_a_damaged_database_stops_the_start(case: Case, own: OwnGate, upstream: SandboxServer) -> None:
    gate = own()
    assert gate.ask(next(prompts)).status_code == 200
    gate.terminate()
    gate.ended()
    path = gate.data / "imagegate.db"
    damaged = bytearray(path.read_bytes())
    damaged[100:2000] = os.urandom(1900)
    path.write_bytes(damaged)
    start = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", "0"],
        env={**os.environ, **gate.environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    case.saw(
        {
            "exit code": start.returncode,
            "traceback": "Traceback" in start.stderr,
            "names the file": str(path) in start.stderr,
            "file untouched": path.read_bytes() == damaged,
        }
    )
