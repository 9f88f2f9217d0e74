"""Starts the commands of the tests by forking a process in which they are imported already.

`python -m app serve` takes 0.8 s of CPU, nearly all of it for imports, and the tests start hundreds; forked it takes a
quarter. What is forked is what a start is: its own arguments, environment, folder, standard streams and signals, and
the interpreter's ordinary end. Where the start itself is tested, and where there is no fork, it is `subprocess`.

One for each process that runs tests. It ends with that process; its children end as they always do, with their standard
input.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[2]
POSSIBLE = sys.platform == "linux"
PIPE, DEVNULL, TimeoutExpired = subprocess.PIPE, subprocess.DEVNULL, subprocess.TimeoutExpired
_MESSAGE = 1 << 17


# ---- this side


class Born:
    """A child, with as much of `subprocess.Popen` as anybody asks for."""

    def __init__(self, pid: int, fate: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._fate: int | None = fate

    def poll(self) -> int | None:
        """How it ended, if it has."""
        with contextlib.suppress(TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has. Raises TimeoutExpired."""
        if self._fate is not None:
            if not select.select([self._fate], [], [], timeout)[0]:
                raise TimeoutExpired(f"child {self.pid}", timeout or 0)
            self.returncode = int(os.read(self._fate, 16) or -signal.SIGKILL)
            os.close(self._fate)
            self._fate = None
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the child, if it is still there."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks. It is started with its first child."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()  # tests start gateways from several threads at once

    def popen(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> Any:
        """subprocess.Popen for `python -m module …`."""
        if not POSSIBLE or list(command[:2]) != [sys.executable, "-m"]:
            return subprocess.Popen(command, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)
        theirs: list[int] = []
        try:
            with contextlib.ExitStack() as ours:

                def pipe(own: int) -> IO[bytes]:
                    ends = os.pipe()
                    theirs.append(ends[1 - own])
                    mode, buffering = ("wb", 0) if own else ("rb", -1)
                    return ours.enter_context(os.fdopen(ends[own], mode, buffering))

                def given(what: int | IO[Any] | None, number: int) -> None:
                    if what == DEVNULL:
                        theirs.append(os.open(os.devnull, os.O_RDWR))
                        return
                    if what is not None:
                        number = what if isinstance(what, int) else what.fileno()
                    theirs.append(os.dup(number))

                into = pipe(1) if stdin == PIPE else given(stdin, 0)
                out = pipe(0) if stdout == PIPE else given(stdout, 1)
                given(stderr, 2)
                fate, heard = os.pipe()
                theirs.append(heard)
                asked = {"command": list(command[2:]), "env": dict(env), "cwd": str(cwd or Path.cwd())}
                with self._turn:
                    channel = self._channel or self._begin()
                    socket.send_fds(channel, [json.dumps(asked).encode()], theirs)
                    pid = int(channel.recv(32))
                ours.pop_all()
                return Born(pid, fate, into, out)
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """subprocess.run, with what it says as text."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = self.popen(command, env=env, cwd=cwd, stdin=DEVNULL, stdout=out, stderr=err)
            try:
                code = child.wait(timeout)
            except TimeoutExpired:
                child.kill()
                raise
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(list(command), code, out.read(), err.read())

    def _begin(self) -> socket.socket:
        channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            clean = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEGATE_", "FAL_"))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.nursery", str(far.fileno())],
                cwd=ROOT,
                env=clean,
                stdin=DEVNULL,
                pass_fds=(far.fileno(),),
            )
        assert channel.recv(32) == b"ready"
        self._channel = channel
        return channel

    def close(self) -> None:
        """No more children."""
        if self._channel is not None and self._process is not None:
            self._channel.close()
            self._process.wait(10)
            self._channel = self._process = None


NURSERY = Nursery()
Popen, run = NURSERY.popen, NURSERY.run


# ---- the far side


def _fork_on_demand(channel: socket.socket) -> None:
    """Until nobody is at the other end. In each child it is left by the exception that ends its program."""
    fates: dict[int, int] = {}  # pid -> where to tell how it ended
    heard, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    channel.send(b"ready")
    while True:
        ready, _, _ = select.select([channel, heard], [], [])
        if heard in ready:
            os.read(heard, 4096)
            _reap(fates)
        if channel in ready:
            message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE, 4)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                channel.detach()
                _live(json.loads(message), descriptors)
            fates[pid] = descriptors.pop()
            for descriptor in descriptors:
                os.close(descriptor)
            channel.send(str(pid).encode())


def _reap(fates: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            fate = fates.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                os.write(fate, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(fate)


def _live(asked: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """In the child: be the command, as if it had just been started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors, buffering = ("backslashreplace", 1) if number == 2 else ("strict", -1)
        stream = os.fdopen(number, mode, buffering, "utf-8", errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    module, *arguments = asked["command"]
    sys.argv = [module, *arguments]
    sys.path[0] = asked["cwd"]
    sys.modules.pop(f"{module}.__main__", None)  # to be run, not to be found
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def _preload() -> None:
    """What a gateway, its commands and the sandbox import, and nothing that begins threads."""
    for name in (
        "app.__main__",
        "app.checks",
        "app.cli.importing",
        "app.cli.models",
        "app.main",
        "app.server",
        "providers.fal",
        "providers.fal_sandbox.server",
        "providers.openai_compatible",
        "uvloop",
    ):
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked"


if __name__ == "__main__":
    _preload()
    with socket.socket(fileno=int(sys.argv[1])) as end:
        _fork_on_demand(end)
