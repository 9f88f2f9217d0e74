"""A fal.ai stand-in that speaks fal's wire protocol and really edits pictures.

It is the upstream of `make demo` and of whoever has no FAL_KEY, and the upstream the tests use: the sandbox a user
tries is the sandbox the gateway is tested against. One port stands for fal's five hosts:

    /queue/...  queue.fal.run     submit, status, result, cancel
    /run/...    fal.run           the synchronous call
    /rest/...   rest.fal.ai       upload tickets and tokens
    /cdn/...    v3.fal.media      files
    /api/...    api.fal.ai        the list of requests
    /sandbox/...                  ours: books, faults, reset, health (never part of fal)

A request whose Host header is one of fal's own names is served without the prefix, so an unmodified client behind a
proxy or a hosts file works too. The sandbox never talks to the network: an input picture is a data URI or a file of
its own `/cdn`.

Left out, because no client of ours needs it: webhooks (`fal_webhook` is accepted and ignored), multipart uploads
above 90 MB, realtime websockets, streaming models.

Importing this package is cheap; Pillow and Starlette load when `FalSandbox.app` is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["SANDBOX", "FalSandbox"]

SANDBOX_KEY = "sandbox:sandbox"
"""The sandbox takes every well-formed key; this one says in a log where it belongs."""


@dataclass(frozen=True, slots=True)
class FalSandbox:
    """What the gateway needs of an embedded sandbox: an app to serve, and settings that point the provider at it."""

    name: str = "fal"
    """The provider whose upstream this is."""
    label: str = "fal.ai sandbox"

    def app(self) -> ASGIApp:
        """A fresh sandbox with its own queue, files and books, configured by the FAL_SANDBOX_* environment."""
        import os

        from .options import Options
        from .server import create_app

        return create_app(Options.from_environment(os.environ))

    def settings(self, base_url: str) -> dict[str, str]:
        """The fal provider's settings for a sandbox served at `base_url` (`http://127.0.0.1:9100`, no trailing slash
        needed).

        `media_origins` is the comma-separated list of origins from which results may be downloaded.
        """
        base = base_url.rstrip("/")
        parts = urlsplit(base)
        return {
            "key": SANDBOX_KEY,
            "queue_url": f"{base}/queue",
            "run_url": f"{base}/run",
            "rest_url": f"{base}/rest",
            "api_url": f"{base}/api",
            "media_origins": f"{parts.scheme}://{parts.netloc}",
        }


SANDBOX = FalSandbox()
