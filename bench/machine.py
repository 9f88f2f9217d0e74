"""What a benchmark needs of the machine: free ports, processes that are ended again, their CPU time and memory.

CPU time is the kernel's own count for the process, all its living children and those it has waited for, so neither a
thread pool nor a worker process hides work. It moves in steps of 10 ms: measure a few hundred requests at a time.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class NotStarted(Exception):
    """A contender did not answer in time, or ended."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and of all its descendants, dead ones that were waited for too."""
    total = 0.0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(field) for field in fields[11:15]) / _TICK  # utime, stime, cutime, cstime
    return total


def busy_seconds() -> float:
    """CPU time of everybody on this machine, and what its host took away."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(field) for at, field in enumerate(fields) if at not in (3, 4)) / _TICK  # idle, iowait


def rss_bytes(pid: int) -> int:
    """Resident memory of the process and its descendants; pages that they share are counted once for each."""
    total = 0
    for one in tree(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def peak_rss_bytes(pid: int) -> int:
    """The most that the process and its living descendants have ever held, each at its own time."""
    total = 0
    for one in tree(pid):
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


@dataclass(slots=True)
class Memory:
    """Megabytes of a process and its descendants, together, at one time."""

    rss: float = 0.0
    pss: float = 0.0  # shared pages divided among those who share them
    anonymous: float = 0.0  # what no file stands behind

    def at_least(self, other: Memory) -> None:
        """Keep the greater of both, each for itself."""
        for name in self.__slots__:
            setattr(self, name, max(getattr(self, name), getattr(other, name)))


def memory(pid: int) -> Memory:
    """As it is now."""
    found = Memory()
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = {name: int(size.split()[0]) * 1024 / 1e6 for name, _, size in (line.partition(":") for line in lines)}
        found.rss += sizes.get("Rss", 0.0)
        found.pss += sizes.get("Pss", 0.0)
        found.anonymous += sizes.get("Anonymous", 0.0)
    return found


@contextmanager
def peak(pid: int, every: float = 0.05) -> Iterator[Memory]:
    """The most that was seen until the block ended; looked at every 50 ms."""
    most = memory(pid)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            most.at_least(memory(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def handles(pid: int) -> tuple[int, int]:
    """(open files, threads) of the process and its descendants."""
    files = threads = 0
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            files += len(list(Path(f"/proc/{one}/fd").iterdir()))
            threads += len(list(Path(f"/proc/{one}/task").iterdir()))
    return files, threads


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


@contextmanager
def running(
    command: Sequence[str],
    ready: str,
    *,
    env: Mapping[str, str] | None = None,
    seconds: float = 60.0,
    log: Path | None = None,
    cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, from its first answer (of any status) at `ready` to the end of the block.

    Raises NotStarted. Only this process and its own group are ended.
    """
    out = log.open("wb") if log is not None else subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=out, stderr=out, start_new_session=True
    )
    try:
        _until_ready(process, ready, seconds)
        yield process
    finally:
        _end(process)
        if log is not None:
            out.close()  # type: ignore[union-attr]


def _until_ready(process: subprocess.Popen[bytes], url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStarted(f"{process.args!r} ended with {process.returncode}")
        if answers(url):
            return
        time.sleep(0.02)
    raise NotStarted(f"{process.args!r} did not answer within {seconds:.0f} s")


def answers(url: str) -> bool:
    """Whether a GET of the URL is answered at all."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path or "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
