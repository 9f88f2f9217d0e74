"""How gateway and picture child talk: over a socket, a line of JSON with the lengths of the pictures that follow it.

Whole pictures go through the socket, written and read by a thread that blocks: 1.9 MB in and out take 0.4 ms of CPU on
either side, 20 MB take 4. Passing descriptors of files in memory took twice that and more, since their pages are made
anew each time; the event loop's own `sock_sendall` took 27 ms for 20 MB, and kept the loop for up to 99 (2 cores,
November 2026).

JSON, not pickle: a child that a picture has taken over shall not reach further than its answer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from app.media.pixels import STEPS, Failed, Job, Picture, Written

_MAX_LINE = 64 * 1024
_PIECE = 512 * 1024  # never made ready for more than has come
_MAX_PICTURE = 512 * 1024 * 1024


class Ended(Exception):
    """The other side is gone, or makes no sense."""


def send(sock: socket.socket, line: dict[str, Any], pictures: Sequence[bytes] = ()) -> None:
    """One message. Blocks until the other side has taken most of it. Raises Ended."""
    head = json.dumps(line | {"lengths": [len(picture) for picture in pictures]}).encode()
    try:
        sock.sendall(len(head).to_bytes(4) + head)
        for picture in pictures:
            sock.sendall(picture)
    except OSError as error:
        raise Ended(repr(error)) from error


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """One message. Blocks until all of it is there. Raises Ended."""
    try:
        length = int.from_bytes(_exactly(sock, 4))
        if length > _MAX_LINE:
            raise Ended("a line beyond all bounds")
        line = json.loads(_exactly(sock, length))
        match line:
            case {"lengths": [*lengths]} if all(isinstance(one, int) and 0 <= one <= _MAX_PICTURE for one in lengths):
                return line, [_exactly(sock, one) for one in lengths]
        raise Ended("no message")
    except (OSError, ValueError) as error:
        raise Ended(repr(error)) from error


def from_job(job: Job) -> dict[str, Any]:
    """A job's line; its pictures follow it."""
    return {
        "pictures": [(picture.max_pixels, picture.name, picture.param) for picture in job.pictures],
        "steps": [(type(step).__name__, *step) for step in job.steps],
    }


def to_job(line: dict[str, Any], pictures: Sequence[bytes]) -> Job:
    """The job that a line and its pictures are."""
    return Job(
        tuple(Picture(data, *facts) for data, facts in zip(pictures, line["pictures"], strict=True)),
        tuple(STEPS[kind](*fields) for kind, *fields in line["steps"]),
    )


def from_outcome(outcome: Written | Failed) -> dict[str, Any]:
    """An outcome's line; a written picture follows it."""
    if isinstance(outcome, Failed):
        return {"failed": astuple(outcome)}
    return {"written": (outcome.width, outcome.height, outcome.alpha, outcome.mode)}


def to_outcome(line: dict[str, Any], pictures: Sequence[bytes]) -> Written | Failed:
    """The outcome that a line and its picture are. Raises Ended for anything else."""
    match line:
        case {"failed": [str(kind), str(message), None | str() as param, str(detail), None | int() as picture]}:
            return Failed(kind, message, param, detail, picture)
        case {"written": [int(width), int(height), bool(alpha), str(mode)]} if len(pictures) == 1:
            return Written(pictures[0], width, height, alpha, mode)
    raise Ended(f"no outcome: {str(line)[:300]}")


def _exactly(sock: socket.socket, length: int) -> bytes:
    pieces = []
    while length:
        piece = sock.recv(min(length, _PIECE), socket.MSG_WAITALL)
        if not piece:
            raise Ended("no whole message")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
