"""A real PostgreSQL server of the tests' own, which they may stop, kill, freeze and bring back.

The fixtures `postgres_server` and `postgres` (tests/conftest.py) give one to each worker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import pytest

PASSWORD = "s3cret/of?the#tests"
_IN_A_URL = "s3cret%2Fof%3Fthe%23tests"
_START_SECONDS = 30.0
# Nothing here has to outlive the machine. What a killed server wrote is kept by the operating system.
_SETTINGS = ("fsync=off", "shared_buffers=16MB", "max_connections=60", "listen_addresses=127.0.0.1")


def find_programs() -> Path | None:
    """The folder of PostgreSQL's server programs: Debian keeps it off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if shutil.which("setpriv") is None:
        return None
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def postgres_servers() -> Iterator[PostgresServer]:
    """For a fixture: one server. Skips loudly where none is installed, and fails there in CI."""
    programs = find_programs()
    if programs is None:
        lacking = "PostgreSQL's server programs are not installed (apt-get install postgresql): NOT TESTED"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    with PostgresServer(programs) as server:
        yield server


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # dead, and only not yet noticed by its parent


class PostgresServer:
    """One server with an empty data folder, on loopback and on a Unix socket."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not in pytest's folder: that is closed to the user whom the server runs as.
        self._home = Path(tempfile.mkdtemp(prefix="imagegate-postgres-"))
        self._as_whom: list[str] = []
        if os.getuid() == 0:  # which PostgreSQL refuses to run as
            user = pwd.getpwnam("postgres")
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as_whom = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        password = self._home / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb",
            *("--pgdata=data", "--username=gate", "--pwfile=password"),
            *("--auth-host=scram-sha-256", "--auth-local=trust", "--no-sync", "--encoding=UTF8", "--locale=C"),
        ).wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._home)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        # setpriv: the server goes when the tests do, even if they are killed.
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", *self._as_whom, "--pdeathsig=KILL", str(self._programs / program), *arguments],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def url(self, *, database: str = "postgres", password: str = _IN_A_URL, schema: str = "public") -> str:
        """Where the server is reached over TCP."""
        return f"postgresql://gate:{password}@127.0.0.1:{self.port}/{database}?search_path={schema}"

    def socket_url(self, schema: str = "public") -> str:
        """Where it is reached over its Unix socket."""
        return f"postgresql://gate@/postgres?host={self._home}&port={self.port}&search_path={schema}"

    async def new_database(self, *, over_socket: bool = False) -> str:
        """The URL of what a gateway takes for an empty database. A schema: it is made in 1 ms, a true one in 100."""
        name = f"test{next(self._numbers)}"
        await self.execute(f"CREATE SCHEMA {name}")
        return self.socket_url(name) if over_socket else self.url(schema=name)

    async def execute(self, sql: str) -> list[tuple[object, ...]]:
        """What a statement answers, on a connection of its own."""
        connection = await asyncpg.connect(self.socket_url(), timeout=5)
        try:
            return [tuple(record) for record in await connection.fetch(sql)]
        finally:
            await connection.close(timeout=5)

    def start(self) -> None:
        """Return when it answers."""
        assert self._process is None
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        self._process = self._run("postgres", "-D", "data", "-p", str(self.port), "-k", str(self._home), *settings)
        deadline = time.monotonic() + _START_SECONDS
        while self._ask_ready() != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("PostgreSQL does not start:\n" + (self._home / "log").read_text())
            time.sleep(0.02)

    def _ask_ready(self) -> int:
        return self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "5").wait()

    def stop(self) -> None:
        """As an administrator does: connections are told, then closed."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """As the machine does that runs out of memory: every process at once."""
        assert self._process is not None
        pids = self._pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        while any(_is_alive(pid) for pid in pids):  # its memory is still in use
            time.sleep(0.01)

    def revive(self) -> None:
        """Whatever was done to it: it runs."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    def pause(self) -> None:
        """It takes connections (the kernel does), and never answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after a pause."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pids(self) -> list[int]:
        """The server's processes, the first of them first: so no new ones appear meanwhile."""
        assert self._process is not None
        first = self._process.pid
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
