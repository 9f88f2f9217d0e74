"""The parent's side of the picture children: started when they are needed, kept warm, ended when they overstep.

A picture can keep a decoder busy for minutes inside C, where no thread can be stopped. A process can: by the kernel
when its CPU or memory is used up, by us when its time is. Nothing blocks the event loop, and no thread waits for a
child: the loop watches the socket, and threads only copy pictures in and out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import app
from app.errors import Overloaded
from app.media.pixels import CHILD_BYTES, Encode, Job, Pixels, blamed
from app.media.wire import Ended, from_job, receive, send, to_outcome

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("imagegate.media")

_START_SECONDS = 10.0
# Deaths that a picture causes. Any other, such as SIGKILL by the kernel out of memory, may have been meant for whoever.
_OWN_DOING = {
    -signal.SIGXCPU,
    -signal.SIGSEGV,
    -signal.SIGBUS,
    -signal.SIGABRT,
    -signal.SIGILL,
    -signal.SIGFPE,
    -signal.SIGSYS,
}
_TOO_LONG = "cannot be read: working on it takes too long"
_BROKEN = "cannot be read: it is broken or cut off"
# No site, no environment, no current directory: the child runs what its parent runs, and nothing that lies around.
_BOOT = (
    "import sys; parent, seconds, memory, *sys.path = sys.argv[1:]; "
    "from app.media.child import main; main(int(parent), int(seconds), int(memory))"
)
COMMAND = (sys.executable, "-I", "-S", "-c", _BOOT)
# One arena. Freed memory is kept while work comes: giving it back and taking it anew costs a tenth of a short job.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
}
_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # where Python itself may need them to start


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a job may take, and how long children are kept."""

    cpu_seconds: int = 10
    seconds: float = 15.0
    memory: int = CHILD_BYTES
    jobs: int = 1000  # after which a child is replaced
    resident: int = 192 * 1024 * 1024  # bytes that a child may still hold when its work is done
    idle_seconds: float = 60.0  # after which all but one child go
    last_seconds: float = 300.0  # after which that one goes, too
    pauses: tuple[float, ...] = (0.5, 1.0, 2.0)  # before a child is started once more for what was paid for


class _NoChild(Exception):
    """None could be started."""


class _Child:
    """One process."""

    def __init__(self, bounds: Bounds, command: Sequence[str]) -> None:
        """Start it; it is not ready yet. It ends with the thread that started it, if not before. Raises OSError."""
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(bounds.seconds + 5)  # the event loop watches it, so it is not in blocking mode
        self.since = 0.0  # idle, on the loop's clock
        self._jobs = 0
        self._busy = self._tired = False
        self._bounds = bounds
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(os.getpid()), str(bounds.cpu_seconds), str(bounds.memory), *_paths()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _INHERITED if name in os.environ} | _ENVIRONMENT,
            )
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()

    @property
    def usable(self) -> bool:
        """Alive, with nothing to do, and not yet due to be replaced."""
        fresh = not self._tired and self._jobs < self._bounds.jobs
        return fresh and not self._busy and self.process.poll() is None

    async def readable(self) -> None:
        """Until it has said something, or is gone."""
        loop = asyncio.get_running_loop()
        said: asyncio.Future[None] = loop.create_future()

        def ready() -> None:
            if not said.done():
                said.set_result(None)

        loop.add_reader(self.socket, ready)
        try:
            await said
        finally:
            loop.remove_reader(self.socket)

    def taken(self) -> None:
        """From now on it has a job, until it has answered."""
        self._busy = True
        self._jobs += 1

    def ask(self, job: Job) -> None:
        """Hand it a job. Blocks for the copies. Raises Ended."""
        send(self.socket, from_job(job), [picture.read() for picture in job.pictures])

    def answer(self, pixels: Pixels[T]) -> T:
        """What became of the job. Blocks for the copies. Raises Ended, and what the work raises."""
        line, pictures = receive(self.socket)
        self._busy = False
        if "defect" in line:
            raise RuntimeError(f"a picture child failed: {line['defect']}")
        memory = line.pop("memory", 0)
        self._tired = isinstance(memory, int) and memory > self._bounds.resident
        return pixels.settle(to_outcome(line, pictures))

    def kill(self) -> None:
        """End it; it has nothing to tidy up."""
        self.process.kill()

    def reap(self) -> int:
        """How it ended. Blocks for the moment that it takes a killed process to go."""
        return self.process.wait()


class Workers:
    """At most `most` children at once; who comes when all are busy waits for its turn."""

    def __init__(
        self,
        most: int,
        bounds: Bounds | None = None,
        command: Sequence[str] = COMMAND,
        observe: Callable[[str, float], None] = lambda format, seconds: None,
    ) -> None:
        """`observe` is told of each job that was done: the format that it wrote ("none": it only read), and seconds."""
        self._observe = observe
        self.bounds = bounds or Bounds()
        self._command = command
        self._slots = asyncio.Semaphore(most)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="pixels")
        self._idle: list[_Child] = []  # the warmest last
        self._children: set[_Child] = set()  # all that are not reaped yet
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """Of the children that there are."""
        return [child.process.pid for child in self._children]

    async def run(self, pixels: Pixels[T], *, owed: bool = False) -> T:
        """Have a child do it. Cancelled meanwhile, the child is killed.

        Raises what the work raises; Overloaded if no child can be started, for what is `owed` only after several tries.
        """
        async with self._slots:
            tries = 2 + (len(self.bounds.pauses) if owed else 0)
            for number in range(1, tries + 1):
                if number > 2:
                    await asyncio.sleep(self.bounds.pauses[number - 3])
                child = await self._ready_child(owed)
                began = asyncio.get_running_loop().time()
                child.taken()  # here, not in the thread: a cancellation can come before that has begun
                try:
                    async with asyncio.timeout(self.bounds.seconds):
                        await self._blocking(child.ask, pixels.job)
                        await child.readable()
                        done = await self._blocking(child.answer, pixels)
                        self._observe(_written(pixels.job), asyncio.get_running_loop().time() - began)
                        return done
                except TimeoutError:
                    raise pixels.blame(blamed(pixels.job, _TOO_LONG, "its picture child was killed")) from None
                except Ended as error:
                    child.kill()
                    code = await self._blocking(child.reap)
                    detail = f"its picture child ended with {code}: {error}"
                    if code in _OWN_DOING:
                        says = _TOO_LONG if code == -signal.SIGXCPU else _BROKEN
                        raise pixels.blame(blamed(pixels.job, says, detail)) from None
                    if number == tries:  # killed from outside, as by the kernel out of memory: no fault of the picture
                        raise Overloaded(
                            "Pictures cannot be worked on at the moment.", detail=detail, retry_after=5
                        ) from None
                    log.warning("a picture child ended with %s; its work is done once more", code)
                finally:
                    self._rest(child)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End all children; returns when they are gone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for child in self._idle:
            child.socket.close()
        self._idle.clear()
        children = list(self._children)
        for child in children:
            child.kill()
        for child in children:
            child.reap()
        self._children.clear()
        self._threads.shutdown(wait=False)

    async def _blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise Overloaded("The gateway is stopping.", retry_after=1)
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    async def _ready_child(self, owed: bool) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
            self._end(child)
        for pause in self.bounds.pauses if owed else ():
            with suppress(_NoChild):
                return await self._start()
            await asyncio.sleep(pause)
        try:
            return await self._start()
        except _NoChild as error:
            raise Overloaded(
                "Pictures cannot be worked on at the moment.", detail=f"no picture child: {error}", retry_after=1
            ) from error

    async def _start(self) -> _Child:
        if self._closed:
            raise Overloaded("The gateway is stopping.", retry_after=1)
        try:
            child = _Child(self.bounds, self._command)  # half a millisecond
        except OSError as error:
            raise _NoChild(repr(error)) from error
        self._children.add(child)
        ready = False
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child.readable()
            line, _ = receive(child.socket)  # a few bytes that were sent at once
            ready = "ready" in line
        except (TimeoutError, Ended) as error:
            raise _NoChild(repr(error)) from error
        finally:
            if not ready:
                self._end(child)
        return child

    def _rest(self, child: _Child) -> None:
        """It has done what it can: keep it for the next job, if it is fit for one."""
        if self._closed or not child.usable:
            self._end(child)
            return
        loop = asyncio.get_running_loop()
        child.since = loop.time()
        self._idle.append(child)
        if self._timer is None:
            self._timer = loop.call_later(self.bounds.idle_seconds, self._tidy)

    def _tidy(self) -> None:
        """Let go of those that nobody has needed for long."""
        loop, bounds = asyncio.get_running_loop(), self.bounds
        now, kept = loop.time(), self._idle
        self._timer = None
        while kept and now - kept[0].since >= (bounds.idle_seconds if len(kept) > 1 else bounds.last_seconds):
            self._end(kept.pop(0))
        if kept:
            after = bounds.idle_seconds if len(kept) > 1 else bounds.last_seconds
            self._timer = loop.call_at(kept[0].since + after, self._tidy)

    def _end(self, child: _Child) -> None:
        child.kill()
        with suppress(OSError):
            child.socket.shutdown(socket.SHUT_RDWR)  # a thread may still be at it: not closed under its hands

        def reap() -> None:
            child.reap()
            child.socket.close()
            self._children.discard(child)

        try:
            self._threads.submit(reap)
        except RuntimeError:  # closed: they are reaped there
            child.socket.close()


def _written(job: Job) -> str:
    last = job.steps[-1]
    return last.format if isinstance(last, Encode) else "none"


def _paths() -> list[str]:
    """Where the child finds its modules: where we found ours."""
    root = Path(app.__file__).parents[1]
    return list(dict.fromkeys([str(root), *(str(Path(path).absolute()) for path in sys.path if path)]))
