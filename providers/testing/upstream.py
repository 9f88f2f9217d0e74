"""What the contract suite needs to know of the upstream that an adapter is tested with."""

from __future__ import annotations

from typing import Protocol

import pytest

from providers.base import Clock, Media, Provider, ProviderCall


class Upstream(Protocol):
    """A provider's upstream, or its stand-in, in the hands of the suite. One whose running jobs nobody can stop has
    `cancels = False` as well."""

    secrets: tuple[str, ...]  # what must never be shown or logged
    uploads_above: int | None  # bytes of pictures above which the adapter uploads; None: it never does
    synchronous: bool  # its answer to a submit is the result: there is no job to wait for, to stop or to find

    def provider(self, *, reachable: bool = True, clock: Clock | None = None) -> Provider:
        """A fresh adapter, as after a restart; `reachable=False`: its upstream does not listen."""

    def call(self, *pictures: Media, inline: bool = False, deadline: float = float("inf")) -> ProviderCall:
        """A job with these pictures, whose results come as bytes (`inline`) or by URL."""

    def refuse(self) -> None:
        """The next submit is turned down: no job is made."""

    def lose_reply(self) -> None:
        """The next submit is taken, its answer never arrives."""

    def fail_job(self) -> None:
        """The next job is taken, and fails."""

    def lose_result(self) -> None:
        """The next job is taken and done, and paid for; its result cannot be had."""

    async def finished(self) -> None:
        """Wait until all jobs that it took are over."""

    def answer_late(self, *, submit: float = 0, job: float = 0, upload: float = 0) -> None:
        """The next answer to a submit comes so many seconds later, the next job runs, the next upload takes so long."""

    def echo_secrets(self) -> None:
        """The next submit is refused in words that repeat key and picture."""

    def jobs(self) -> int:
        """Jobs that the upstream took."""

    def cancelled(self) -> int:
        """Jobs that it stopped."""

    def uploads(self) -> int:
        """Pictures that it took in."""

    def key_leaks(self) -> int:
        """Requests that carried the key where it does not belong."""

    def connections(self) -> int:
        """Connections to it that are open in this process: see `connections_to`."""


def needs_cancelling(upstream: Upstream) -> None:
    """Leave a test out that stops a job, if none can be stopped."""
    needs_jobs(upstream)
    if not getattr(upstream, "cancels", True):
        pytest.skip("its running jobs cannot be stopped")


def needs_jobs(upstream: Upstream) -> None:
    """Leave a test out that is about jobs, if there are none."""
    if upstream.synchronous:
        pytest.skip("its answer to a submit is the result: there are no jobs")
