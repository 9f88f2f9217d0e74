"""The picture child: a process that does one job after another, under limits, until its parent is gone.

Spawned, never forked: it inherits nothing but the socket on its standard input, so it cannot hold the gateway's port.
It knows no keys, since it gets no environment, and loads neither pydantic nor a web framework.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress

from app.media.pixels import Written, work
from app.media.wire import Ended, from_outcome, receive, send, to_job

_PR_SET_PDEATHSIG = 1
_DESCRIPTORS = 48
_NICE = 5  # the event loop goes first
_OOM_SCORE = 500  # and is spared: if memory runs out, a child is what goes
_WARM = 112 * 1024 * 1024  # bytes that it may hold between jobs: memory that is there costs the next one less
_REST_SECONDS = 2.0  # without work, after which it gives back even that


def main(parent: int, seconds: int, memory: int) -> None:
    """Serve the socket on standard input. `seconds` of CPU a job, `memory` bytes beyond what it starts with."""
    _bind_life(parent)
    control = socket.socket(fileno=0)
    with suppress(Ended):  # the parent is gone
        _load()
        _limit(memory)
        send(control, {"ready": True})
        held = 0
        while True:
            line, pictures = receive(control)
            job = to_job(line, pictures)
            del line, pictures
            _allow(seconds)
            try:
                outcome = work(job)
                data = [outcome.data] if isinstance(outcome, Written) else []
                send(control, from_outcome(outcome) | {"memory": held}, data)
                del outcome, data
            except Exception:  # noqa: BLE001 - told to the parent, who has a log
                import traceback

                send(control, {"defect": traceback.format_exc()[-2000:]})
            del job
            if _resident() > _WARM or not select.select([control], [], [], _REST_SECONDS)[0]:
                _give_back()
            held = _resident()  # told with the next answer: nobody waits for it
    os._exit(0)  # there is nothing to tidy up


def _bind_life(parent: int) -> None:
    """End with the parent, however that one ends; and only then: signals to a whole group are meant for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the kernel knew
        os._exit(0)


def _load() -> None:
    """What any job needs, before limits bite."""
    with suppress(ImportError):
        from isal import isal_zlib  # noqa: F401
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    gc.freeze()


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(OSError):
        os.nice(_NICE)
    if sys.platform == "linux":
        most = _pages(0) + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - spares pathlib
            file.write(str(_OOM_SCORE))


def _allow(seconds: int) -> None:
    """So much CPU from now on; beyond it the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + 0.999) + seconds, hard))


def _give_back() -> None:
    gc.collect()
    with suppress(AttributeError):  # glibc keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    return _pages(1) if sys.platform == "linux" else 0


def _pages(which: int) -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[which]) * resource.getpagesize()
