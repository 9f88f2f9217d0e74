"""What an operator or a test can set, and where each default comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """All knobs of one sandbox. Seconds are float seconds, sizes are bytes."""

    concurrency: int = 10
    """Jobs IN_PROGRESS at once; the others wait IN_QUEUE (fal docs, concurrency: 2 for new accounts, up to 40)."""
    queue_seconds: float = 0.0
    """How long each job waits before it may start."""
    run_seconds: float = 0.15
    """The least time a job runs; the real rendering happens within it."""
    result_seconds: float = 3600.0
    """How long a result can be fetched (fal.ai/docs/inference-api/queue/result: 1 h)."""
    large_result_seconds: float = 360.0
    """The same for a payload of `large_result_bytes` or more (same page: about 6 min from 10 KB)."""
    large_result_bytes: int = 10_000
    max_jobs: int = 5_000
    """Jobs remembered in the books; the oldest finished ones are forgotten first."""
    max_file_bytes: int = 256 * MEBIBYTE
    """Uploads and outputs; the least recently used are dropped."""
    max_result_bytes: int = 64 * MEBIBYTE
    """Result bodies, in a store of their own: large uploads must not push out small answers that nobody fetched yet."""
    max_body_bytes: int = 64 * MEBIBYTE
    max_download_bytes: int = 50 * MEBIBYTE
    """An input picture (SDK fal 1.83.0 toolkit: downloads are capped at 50 MiB)."""
    max_input_pixels: int = 64_000_000
    max_output_pixels: int = 16 * MEBIBYTE
    """Above it a job ends with a 500, as a GPU out of memory does: the schema's own limit, 14142 squared, is 200 MP."""
    workers: int = 2
    """Threads that render."""
    schema_dirs: tuple[Path, ...] = ()
    """Folders with more endpoint schemas; a file there replaces a built-in endpoint of the same id."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Options:
        """FAL_SANDBOX_RUN_SECONDS, _QUEUE_SECONDS, _CONCURRENCY, _FILE_MEGABYTES, _SCHEMAS (folders joined as in PATH).

        Raises ValueError that names the variable when a value is not what it must be.
        """
        default = cls()
        return cls(
            concurrency=int(_number(environ, "FAL_SANDBOX_CONCURRENCY", default.concurrency, least=1)),
            queue_seconds=_number(environ, "FAL_SANDBOX_QUEUE_SECONDS", default.queue_seconds),
            run_seconds=_number(environ, "FAL_SANDBOX_RUN_SECONDS", default.run_seconds),
            max_file_bytes=int(
                _number(environ, "FAL_SANDBOX_FILE_MEGABYTES", default.max_file_bytes / MEBIBYTE, least=1) * MEBIBYTE
            ),
            schema_dirs=tuple(Path(part) for part in environ.get("FAL_SANDBOX_SCHEMAS", "").split(os.pathsep) if part),
        )


def _number(environ: Mapping[str, str], name: str, default: float, least: float = 0.0) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None
    if not least <= value < 1e9:  # also refuses nan and inf
        raise ValueError(f"{name} must be a number from {least:g}, not {text!r}")
    return value
