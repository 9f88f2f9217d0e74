"""What a job says of itself: its pictures, or its own verdict, which is final."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from providers.base import Fault
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, picture, same_as, until
from tests.providers.upstream import FalUpstream

pytestmark = pytest.mark.anyio


def results_asked(fal: FalUpstream) -> int:
    return fal.asked(f"/requests/{fal.sandbox.jobs()[0]['request_id']}")


async def test_urls_sizes_seed_units_and_the_request_id_are_told(fal: FalUpstream) -> None:
    provider = fal.provider()
    size = {"width": 1088, "height": 1024}
    ticket = await provider.submit(fal.call(picture(), image_size=size, num_images=2, seed=7))
    result = await provider.collect(ticket, until(10))
    assert [(image.width, image.height, image.mime) for image in result.images] == [(1088, 1024, "image/png")] * 2
    assert all(image.url and image.url.startswith(f"{fal.sandbox.url}/cdn/") for image in result.images)
    assert (result.seed, result.billable_units, result.provider_request_id) == (7, Decimal(4), ticket.job)


async def test_the_safety_check_is_told_per_picture(fal: FalUpstream) -> None:
    fal.on("submit", "nsfw", image=1)
    result = await fal.quick_edit(num_images=3)
    assert [image.flagged for image in result.images] == [False, True, False]


async def test_sync_mode_brings_the_bytes(fal: FalUpstream) -> None:
    result = await fal.quick_edit(sync_mode=True, output_format="jpeg")
    (image,) = result.images
    assert image.data is not None
    assert image.data.startswith(b"\xff\xd8\xff")
    assert (image.url, image.mime) == (None, "image/jpeg")


@pytest.mark.parametrize(
    ("kind", "fault", "field"),
    [
        ("content_policy_violation", Fault.REFUSED, "prompt"),
        ("image_load_error", Fault.INVALID, None),
        ("generation_timeout", Fault.TIMEOUT, None),
        ("internal_server_error", Fault.UNAVAILABLE, None),
        ("downstream_service_unavailable", Fault.UNAVAILABLE, None),
    ],
)
async def test_the_models_own_verdict_is_final(fal: FalUpstream, kind: str, fault: Fault, field: str | None) -> None:
    fal.on("submit", "model_error", type=kind)
    error = await failure_of(fal.quick_edit())
    assert (error.fault, error.field, error.accepted) == (fault, field, True)
    assert (error.charged, error.lost, error.final) == (False, False, True)
    # A 5xx could be a hiccup of the queue as well: it is believed when it stays.
    assert results_asked(fal) == 1 if fault in (Fault.INVALID, Fault.REFUSED) else results_asked(fal) >= 3


async def test_a_value_that_the_model_refuses_is_told_by_its_field(fal: FalUpstream) -> None:
    error = await failure_of(fal.quick_edit(guidance_scale=99))
    assert (error.fault, error.field, error.accepted) == (Fault.INVALID, "guidance_scale", True)
    assert "20" in error.message


@pytest.mark.parametrize(
    ("error_type", "fault"),
    [
        ("internal_error", Fault.UNAVAILABLE),
        ("runner_disconnected", Fault.UNAVAILABLE),
        ("request_timeout", Fault.TIMEOUT),
        ("startup_timeout", Fault.TIMEOUT),
    ],
)
@pytest.mark.parametrize("how", ["completed_with_error", "infra_error"])
async def test_completed_with_an_error_is_a_failure(fal: FalUpstream, how: str, error_type: str, fault: Fault) -> None:
    fal.on("submit", how, error_type=error_type)
    error = await failure_of(fal.quick_edit())
    assert (error.fault, error.accepted) == (fault, True)
    assert error_type in error.detail


async def test_what_the_result_says_of_a_failed_job_is_more_than_its_status_says(fal: FalUpstream) -> None:
    fal.on("submit", "model_error", type="content_policy_violation")
    status = {"status": "COMPLETED", "error": "Invalid status code: 422", "metrics": {}}
    fal.on("status", "http", status=200, body=status, times=None)
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    error = await failure_of(provider.collect(ticket, until(10)))
    assert (error.fault, error.field) == (Fault.REFUSED, "prompt")


async def test_where_the_result_says_nothing_the_status_is_believed(fal: FalUpstream) -> None:
    status = {"status": "COMPLETED", "error": "Startup timeout", "error_type": "startup_timeout"}
    fal.on("submit", "lose_result")
    fal.on("status", "http", status=200, body=status)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    await fal.finished()
    error = await failure_of(provider.collect(ticket, clock.now + 60))
    assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)


async def test_a_result_that_is_there_counts_more_than_an_error_in_the_status(fal: FalUpstream) -> None:
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    assert await same_as(lambda: fal.sandbox.jobs()[0]["state"], "COMPLETED")
    fal.on("status", "http", status=200, body={"status": "COMPLETED", "error": "logs were lost"})
    assert (await provider.collect(ticket, until(10))).images


async def test_no_picture_at_all_is_malformed(fal: FalUpstream) -> None:
    fal.on("submit", "empty_images")
    error = await failure_of(fal.quick_edit())
    assert (error.fault, error.accepted, error.final, error.lost) == (Fault.MALFORMED, True, True, False)
    assert error.charged is False, "fal bills by what was made"
    assert results_asked(fal) >= 3, "one such answer may be a stranger's"


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"images": []},
        {"images": None},
        {"image": None},
        {"images": [], "image": None},
        {"images": "x"},
        {"images": [None]},
        {"images": [{"url": None}]},
        {"images": [{"url": ""}]},
        {"images": ["https://x.example/1.png"]},
        {"images": [{"url": "https://x.example/1.png"}, {}]},
        {"images": [{"url": "data:image/png;base64,***"}]},
        {"image": {"url": 7}},
    ],
)
async def test_an_output_without_usable_pictures_is_believed_when_it_stays(
    fal: FalUpstream, output: dict[str, Any]
) -> None:
    fal.on("result", "http", status=200, body=output)
    assert (await fal.quick_edit()).images, "one such answer may be a stranger's"
    fal.on("result", "http", times=None, status=200, body=output)
    error = await failure_of(fal.quick_edit())
    nothing = any(not output[name] for name in ("images", "image") if name in output)  # and not: in no shape of fal's
    assert (error.fault, error.accepted, error.final) == (Fault.MALFORMED, True, True)
    assert (error.charged, error.lost) == ((False, False) if nothing else (None, True))


async def test_claims_that_cannot_be_true_are_not_repeated(fal: FalUpstream) -> None:
    output = {
        "image": {"url": "https://x.example/1.png", "width": -3, "height": "high", "content_type": 5},
        "seed": True,
        "has_nsfw_concepts": {"no": "list"},
    }
    fal.on("result", "http", status=200, body=output, headers={"X-Fal-Billable-Units": "1e999999"})
    result = await fal.quick_edit()
    (image,) = result.images
    assert (image.width, image.height, image.mime, image.flagged) == (None, None, None, False)
    assert (result.seed, result.billable_units) == (None, None)


@pytest.mark.parametrize(
    ("told", "units"),
    [("1.5", Decimal("1.5")), ("0", Decimal(0)), ("-1", None), ("NaN", None), ("many", None), ("", None)],
)
async def test_billable_units_are_told_or_not_but_never_guessed(
    fal: FalUpstream, told: str, units: Decimal | None
) -> None:
    output = {"images": [{"url": "https://x.example/1.png"}]}
    fal.on("result", "http", status=200, body=output, headers={"X-Fal-Billable-Units": told})
    assert (await fal.quick_edit()).billable_units == units
