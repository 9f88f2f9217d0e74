"""What every provider must do, whatever its upstream speaks: one suite for all adapters.

A test module applies it by a class of its own (it needs pytest and anyio):

    class TestKeepsTheContract(ProviderContract):
        @pytest.fixture
        async def upstream(self, ...) -> AsyncIterator[Upstream]: ...

`Upstream` is what the suite needs to know: how to build the adapter, how to make its upstream behave, and what the
upstream itself has on its books. A provider without jobs or without uploads says so there.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import time

import pytest
from PIL import Image

from providers.base import Fault, Finder, Provider, ProviderCall, Ticket, payload_mark
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, large_picture, picture, revived, same_as, until
from providers.testing.upstream import Upstream, needs_cancelling, needs_jobs


class ProviderContract:
    """The suite. Subclasses bring the `upstream` fixture."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_a_job_is_submitted_and_collected(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        result = ticket.result or await provider.collect(ticket, until(10))
        assert ticket.provider == provider.name
        assert len(result.images) == 1
        assert upstream.jobs() == 1

    async def test_results_come_as_a_url(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        (image,) = (ticket.result or await provider.collect(ticket, until(10))).images
        assert (image.url is None) != (image.data is None)
        if image.url is not None:
            assert image.url.startswith(("http://", "https://"))

    async def test_results_come_as_bytes(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture(), inline=True))
        (image,) = (ticket.result or await provider.collect(ticket, until(10))).images
        assert image.url is None
        assert image.data is not None
        Image.open(io.BytesIO(image.data)).load()

    async def test_a_ticket_survives_a_restart_and_can_be_collected(self, upstream: Upstream) -> None:
        needs_jobs(upstream)
        ticket = await upstream.provider().submit(upstream.call(picture()))
        if ticket.result is None:
            assert (await upstream.provider().collect(revived(ticket), until(10))).images

    async def test_a_ticket_survives_a_restart_and_can_be_cancelled(self, upstream: Upstream) -> None:
        needs_cancelling(upstream)
        upstream.answer_late(job=60)
        ticket = await upstream.provider().submit(upstream.call(picture()))
        if ticket.result is None:
            assert await upstream.provider().cancel(revived(ticket)) is True
            assert await same_as(upstream.cancelled, 1)

    async def test_a_job_can_be_collected_twice(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        if ticket.result is None:
            first = await provider.collect(ticket, until(10))
            assert await provider.collect(ticket, until(10)) == first

    async def test_a_job_can_be_collected_twice_by_two_processes_at_once(self, upstream: Upstream) -> None:
        ticket = await upstream.provider().submit(upstream.call(picture()))
        if ticket.result is None:
            both = (upstream.provider().collect(revived(ticket), until(10)) for _ in range(2))
            first, second = await asyncio.gather(*both)
            assert first == second

    async def test_a_job_that_failed_fails_alike_when_it_is_collected_again(self, upstream: Upstream) -> None:
        needs_jobs(upstream)
        upstream.fail_job()
        ticket = await upstream.provider().submit(upstream.call(picture()))
        if ticket.result is None:
            first, second = [await failure_of(upstream.provider().collect(ticket, until(10))) for _ in range(2)]
            assert (first.fault, first.charged, first.lost) == (second.fault, second.charged, second.lost)
            assert (first.charged, first.lost, first.cancelled) == (False, False, False)

    async def test_a_result_that_a_restart_took_is_lost_and_perhaps_charged(self, upstream: Upstream) -> None:
        if not upstream.synchronous:
            pytest.skip("its results can be collected again")
        ticket = await upstream.provider().submit(upstream.call(picture()))
        assert ticket.result is not None
        error = await failure_of(upstream.provider().collect(revived(ticket), until(10)))
        assert (error.accepted, error.charged, error.lost, error.cancelled) == (True, None, True, False)

    # ---- failures: does a job exist?

    async def test_a_job_that_nobody_wants_any_more_is_not_started(self, upstream: Upstream) -> None:
        call = dataclasses.replace(upstream.call(picture()), wanted=lambda: False)
        error = await failure_of(upstream.provider().submit(call))
        assert (error.accepted, error.final) == (False, True)
        assert upstream.jobs() == 0

    async def test_unreachable_means_that_no_job_was_made(self, upstream: Upstream) -> None:
        error = await failure_of(upstream.provider(reachable=False).submit(upstream.call(picture())))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)

    async def test_refused_means_that_no_job_was_made(self, upstream: Upstream) -> None:
        upstream.refuse()
        error = await failure_of(upstream.provider().submit(upstream.call(picture())))
        assert error.accepted is False
        assert upstream.jobs() == 0

    async def test_a_lost_reply_leaves_it_open_and_is_not_tried_again(self, upstream: Upstream) -> None:
        upstream.lose_reply()
        error = await failure_of(upstream.provider().submit(upstream.call(picture())))
        assert error.accepted is None
        assert upstream.jobs() == 1

    async def test_a_job_that_failed_did_exist(self, upstream: Upstream) -> None:
        upstream.fail_job()
        provider = upstream.provider()

        async def whole() -> None:
            ticket = await provider.submit(upstream.call(picture()))
            await provider.collect(ticket, until(10))

        assert (await failure_of(whole())).accepted is True
        assert upstream.jobs() == 1

    async def test_collecting_what_cannot_be_reached_says_that_the_job_exists(self, upstream: Upstream) -> None:
        provider = upstream.provider(reachable=False)
        ticket = Ticket(provider.name, "00000000-dead", self.unreachable_ticket_data())
        error = await failure_of(provider.collect(ticket, until(0.3)))
        assert error.accepted is True

    async def test_a_result_that_cannot_be_had_is_lost_and_perhaps_charged(self, upstream: Upstream) -> None:
        upstream.lose_result()
        clock = FakeClock()
        provider = upstream.provider(clock=clock)
        ticket = await provider.submit(upstream.call(picture()))
        if ticket.result is None:
            await upstream.finished()
            error = await failure_of(provider.collect(ticket, clock.now + 180))
            assert (error.accepted, error.charged, error.lost, error.cancelled) == (True, None, True, False)

    def unreachable_ticket_data(self) -> dict[str, str]:
        """The ticket of a job at an upstream that does not listen."""
        return {}

    async def test_text_that_no_json_can_carry_is_refused_before_anything_is_sent(self, upstream: Upstream) -> None:
        call = upstream.call(picture())
        for value in ("\ud800", float("nan")):
            odd = ProviderCall(call.endpoint, {**call.payload, "prompt": value}, "req_odd")
            error = await failure_of(upstream.provider().submit(odd))
            assert (error.fault, error.accepted) == (Fault.INVALID, False)
        assert upstream.jobs() == 0

    # ---- time

    async def test_collect_keeps_its_deadline(self, upstream: Upstream) -> None:
        needs_jobs(upstream)
        upstream.answer_late(job=60)
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        began = time.monotonic()
        error = await failure_of(provider.collect(ticket, began + 0.4))
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)
        assert 0.2 < time.monotonic() - began < 0.8

    async def test_a_deadline_that_is_over_is_not_waited_for(self, upstream: Upstream) -> None:
        needs_jobs(upstream)
        upstream.answer_late(job=60)
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        began = time.monotonic()
        assert (await failure_of(provider.collect(ticket, began - 1))).fault is Fault.TIMEOUT
        assert time.monotonic() - began < 0.2

    async def test_nothing_is_submitted_after_the_calls_deadline(self, upstream: Upstream) -> None:
        for pictures in ((), (picture(),)):
            error = await failure_of(upstream.provider().submit(upstream.call(*pictures, deadline=until(-1))))
            assert (error.fault, error.accepted) == (Fault.TIMEOUT, False)
        assert upstream.jobs() == 0

    # ---- cancelling

    async def test_cancelling_may_be_repeated(self, upstream: Upstream) -> None:
        needs_cancelling(upstream)
        upstream.answer_late(job=60)
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        assert await provider.cancel(ticket) is True
        assert await same_as(upstream.cancelled, 1)
        assert await provider.cancel(ticket) in (True, False)
        assert upstream.cancelled() == 1

    async def test_cancelling_a_finished_job_is_too_late_but_no_error(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        await provider.collect(ticket, until(10))
        assert await provider.cancel(ticket) is False

    async def test_collecting_a_cancelled_job_tells_that_it_was_cancelled(self, upstream: Upstream) -> None:
        needs_cancelling(upstream)
        upstream.answer_late(job=60)
        provider = upstream.provider()
        ticket = await provider.submit(upstream.call(picture()))
        if ticket.result is None:
            assert await provider.cancel(ticket) is True
            error = await failure_of(provider.collect(ticket, until(10)))
            assert (error.accepted, error.cancelled, error.charged, error.lost) == (True, True, False, False)

    # ---- finding what a lost reply has made

    async def find(self, provider: Provider, call: ProviderCall, *known: str) -> Ticket | None:
        """By what a journal keeps of an intent."""
        if not isinstance(provider, Finder):
            pytest.skip("it cannot list its jobs")
        mark = payload_mark(call.payload)
        return await provider.find(call.endpoint, mark, time.time() - 10, time.time() + 10, frozenset(known))

    async def test_the_job_of_a_lost_reply_is_found_and_collected(self, upstream: Upstream) -> None:
        upstream.lose_reply()
        call = upstream.call(picture())
        assert (await failure_of(upstream.provider().submit(call))).accepted is None
        provider = upstream.provider()
        ticket = await self.find(provider, call)
        assert ticket is not None
        assert (await provider.collect(revived(ticket), until(10))).images
        assert upstream.jobs() == 1

    async def test_a_job_that_is_known_is_not_found_again(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        call = upstream.call(picture())
        ticket = await provider.submit(call)
        assert await self.find(provider, call, ticket.job) is None
        found = await self.find(provider, call)
        assert found is not None
        assert found.job == ticket.job

    async def test_a_submit_that_never_arrived_is_not_found(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        await provider.submit(upstream.call(picture()))
        call = upstream.call(picture(), picture())
        assert await self.find(provider, call) is None
        assert await self.find(provider, ProviderCall("another/endpoint", call.payload, "req")) is None

    async def test_a_job_that_failed_is_found_all_the_same(self, upstream: Upstream) -> None:
        needs_jobs(upstream)
        upstream.fail_job()
        provider = upstream.provider()
        call = upstream.call(picture())
        ticket = await provider.submit(call)
        await failure_of(provider.collect(ticket, until(10)))
        found = await self.find(provider, call)
        assert found is not None
        assert found.job == ticket.job

    async def test_a_list_that_cannot_be_reached_tells_nothing(self, upstream: Upstream) -> None:
        error = await failure_of(self.find(upstream.provider(reachable=False), upstream.call(picture())))
        assert (error.accepted, error.charged, error.final) == (None, None, False)

    # ---- pictures on their way in

    async def test_the_jobs_of_one_request_upload_a_picture_once(self, upstream: Upstream) -> None:
        if upstream.uploads_above is None:
            pytest.skip("it never uploads")
        media = large_picture(upstream.uploads_above)
        provider = upstream.provider()
        tickets = await asyncio.gather(*(provider.submit(upstream.call(media)) for _ in range(4)))
        assert len({ticket.job for ticket in tickets}) == upstream.jobs() == 4
        assert upstream.uploads() == 1
        await provider.submit(upstream.call(media))
        assert upstream.uploads() == 1

    async def test_one_jobs_cancellation_does_not_take_the_upload_from_the_others(self, upstream: Upstream) -> None:
        if upstream.uploads_above is None:
            pytest.skip("it never uploads")
        media = large_picture(upstream.uploads_above)
        provider = upstream.provider()
        upstream.answer_late(upload=0.2)
        first, second = (asyncio.create_task(provider.submit(upstream.call(media))) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second).job
        with pytest.raises(asyncio.CancelledError):
            await first
        assert upstream.uploads() == upstream.jobs() == 1

    # ---- secrets

    async def test_no_failure_tells_the_key_or_the_picture(self, upstream: Upstream) -> None:
        media = picture()
        raw = media.blob.read()
        text = base64.b64encode(raw).decode()
        errors = []
        for trouble in (upstream.refuse, upstream.lose_reply, upstream.echo_secrets):
            trouble()
            errors.append(await failure_of(upstream.provider().submit(upstream.call(media))))
        errors.append(await failure_of(upstream.provider(reachable=False).submit(upstream.call(media))))
        upstream.fail_job()
        provider = upstream.provider()

        async def whole() -> None:
            await provider.collect(await provider.submit(upstream.call(media)), until(10))

        errors.append(await failure_of(whole()))
        for error in errors:
            told = " ".join((error.message, error.detail, str(error), repr(error), repr(error.__dict__)))
            assert not any(secret in told for secret in upstream.secrets), told
            assert "base64," not in told
            assert not any(text[at : at + 24] in told for at in range(0, len(text) - 24, 8)), told

    async def test_the_key_goes_to_no_media_host(self, upstream: Upstream) -> None:
        provider = upstream.provider()
        media = large_picture(upstream.uploads_above) if upstream.uploads_above is not None else picture()
        ticket = await provider.submit(upstream.call(media))
        await provider.collect(ticket, until(10))
        assert upstream.key_leaks() == 0

    # ---- leaving

    @pytest.mark.parametrize("step", ["submit", "job", "upload"])
    async def test_cancelling_the_task_leaves_nothing_behind(self, upstream: Upstream, step: str) -> None:
        if step == "upload" and upstream.uploads_above is None:
            pytest.skip("it never uploads")
        if step == "job":
            needs_jobs(upstream)
        media = large_picture(upstream.uploads_above or 0) if step == "upload" else picture()
        call = upstream.call(media)
        provider = upstream.provider()
        upstream.answer_late(**{step: 30.0})
        tasks, connections = asyncio.all_tasks(), upstream.connections()

        async def whole() -> None:
            await provider.collect(await provider.submit(call), until(30))

        working = asyncio.create_task(whole())
        await asyncio.sleep(0.15)
        assert asyncio.all_tasks() - tasks
        assert step == "job" or upstream.connections() > connections
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert asyncio.all_tasks() == tasks
        assert await same_as(upstream.connections, connections)
