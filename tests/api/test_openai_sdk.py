"""The real OpenAI SDK against a real gateway, with the sandbox behind it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from tests.api.sdk import SMALL, edit, fetched, only, opened
from tests.conftest import MODEL, Json, Served
from tests.media.pictures import FORMATS, photo, sample, saved

NewJobs = Callable[[], list[Json]]
# ---- one edit


def test_an_edit_gives_a_link_to_a_picture_that_was_edited(client: OpenAI, photo_path: Path) -> None:
    answer = client.images.edit(model=MODEL, prompt="make it night", image=photo_path)
    result = only(answer.data)
    assert result.b64_json is None
    assert "b64_json" not in result.to_dict()
    image = opened(fetched(result.url))
    assert answer.size == f"{image.width}x{image.height}"
    assert image.format == "PNG"
    assert abs(image.width / image.height - 600 / 400) < 0.02  # the photo's shape
    assert answer.created > 1_700_000_000
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")
    metadata = (answer.model_extra or {})["metadata"]
    assert metadata["model"] == MODEL
    assert metadata["provider"] == "fal"
    assert metadata["cost"] > 0
    assert metadata["cost_currency"] == "USD"


def test_the_async_client_works_too(gateway: Served) -> None:
    async def run() -> tuple[Any, Any]:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
            one, two = await asyncio.gather(
                client.images.edit(model=MODEL, prompt="a", image=sample("png"), size=SMALL),  # type: ignore[call-overload]
                client.images.edit(model=MODEL, prompt="b", image=[sample("png")] * 2, size=SMALL),  # type: ignore[call-overload]
            )
            return one, two

    for answer in asyncio.run(run()):
        assert opened(fetched(only(answer.data).url)).size == (256, 256)


def test_raw_and_streaming_responses_carry_headers_and_the_same_body(gateway: Served, client: OpenAI) -> None:
    arguments: dict[str, Any] = {"model": MODEL, "prompt": "a", "image": sample("png"), "size": SMALL}
    raw = client.images.with_raw_response.edit(**arguments)
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert raw.headers["x-imagegate-provider"] == "fal"
    assert raw.headers["x-imagegate-model"] == MODEL
    assert float(raw.headers["x-imagegate-cost"]) > 0
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert fetched(only(raw.parse().data).url)
    with client.images.with_streaming_response.edit(**arguments) as streamed:
        assert streamed.status_code == 200
        body = json.loads(b"".join(streamed.iter_bytes()))
    assert list(body["data"][0]) == ["url"]


def image_forms(folder: Path) -> dict[str, Callable[[], Any]]:
    png, jpeg = sample("png"), sample("jpeg")
    path = folder / "cat.png"
    path.write_bytes(png)
    foreign = folder / 'dög "x".png'
    foreign.write_bytes(png)

    def named(data: bytes, name: str) -> io.BytesIO:
        file = io.BytesIO(data)
        file.name = name
        return file

    return {
        "path": lambda: path,
        "open file": lambda: path.open("rb"),
        "bytes": lambda: png,
        "BytesIO": lambda: io.BytesIO(png),
        "BytesIO with a name": lambda: named(jpeg, "x.jpeg"),
        "pair": lambda: ("x.png", png),
        "pair without an extension": lambda: ("image", png),
        "pair with a wrong extension": lambda: ("x.txt", png),
        "triple": lambda: ("x.png", png, "image/png"),
        "triple of another type": lambda: ("x.gif", png, "image/gif"),
        "quadruple": lambda: ("x.png", png, "image/png", {"x-of-mine": "1"}),
        "no file name": lambda: (None, png, "image/png"),
        "no file name, octets": lambda: (None, jpeg, "application/octet-stream"),
        "name beyond ASCII": lambda: foreign,
        "hostile name": lambda: ("../../etc/passwd\u202e<script>", png),
        "webp": lambda: ("x.webp", sample("webp")),
        "gif": lambda: ("x.gif", sample("gif")),
        "avif": lambda: ("x.avif", sample("avif")),
    }


@pytest.mark.parametrize("form", sorted(image_forms(Path("/tmp"))))
def test_every_form_of_an_image(client: OpenAI, new_jobs: NewJobs, tmp_path: Path, form: str) -> None:
    given = image_forms(tmp_path)[form]()
    try:
        answer = edit(client, image=given)
    finally:
        if hasattr(given, "close"):
            given.close()
    assert only(answer.data).url
    payload = only(new_jobs())["payload"]
    seen = only(payload["image_urls"])
    assert (seen["width"], seen["height"]) == (64, 48)
    converted = form in ("gif", "avif")
    notes = {note["name"]: note for note in answer.metadata["parameters"]}
    assert ("converted" in notes["image"]["why"]) is converted


@pytest.mark.parametrize("count", [1, 3])
def test_a_list_of_images_keeps_its_order(client: OpenAI, new_jobs: NewJobs, count: int) -> None:
    images = [sample("png", size=(32 + 16 * at, 64)) for at in range(count)]
    edit(client, image=images)
    seen = only(new_jobs())["payload"]["image_urls"]
    assert [one["width"] for one in seen] == [32, 48, 64][:count]


def test_one_image_too_many_is_refused_before_anything_is_bought(client: OpenAI, new_jobs: NewJobs) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        edit(client, image=[sample("png")] * 4)
    assert (caught.value.code, caught.value.param) == ("too_many_images", "image")
    assert new_jobs() == []


# ---- parameters


def test_four_pictures_from_four_jobs_whose_seeds_move(client: OpenAI, new_jobs: NewJobs) -> None:
    answer = edit(client, n=4, extra_body={"seed": 41})
    pictures = [fetched(one.url) for one in answer.data]
    assert len(set(pictures)) == 4
    jobs = new_jobs()
    assert sorted(job["payload"]["seed"] for job in jobs) == [41, 42, 43, 44]
    assert all(job["payload"]["num_images"] == 1 for job in jobs)
    assert answer.metadata["seed"] == 41
    # the k-th picture is that of seed + k
    again = edit(client, extra_body={"seed": 43})
    assert fetched(only(again.data).url) == pictures[2]


def test_picture_in_the_answer_or_behind_a_link(client: OpenAI) -> None:
    inside = only(edit(client, response_format="b64_json").data)
    assert list(inside.to_dict()) == ["b64_json"]
    assert opened(base64.b64decode(inside.b64_json)).size == (256, 256)
    linked = only(edit(client, response_format="url").data)
    assert list(linked.to_dict()) == ["url"]
    assert opened(fetched(linked.url)).size == (256, 256)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [SMALL, "250x130"])
def test_every_output_format_is_what_it_says(client: OpenAI, format: str, size: str) -> None:
    answer = edit(client, output_format=format, size=size, response_format="b64_json")
    image = opened(base64.b64decode(only(answer.data).b64_json))
    assert image.format == format.upper()
    assert f"{image.width}x{image.height}" == size == answer.size
    assert answer.output_format == format


def test_compression_makes_smaller_files(client: OpenAI) -> None:
    def length(quality: int) -> int:
        answer = edit(
            client,
            image=sample("png", size=(400, 300)),
            output_format="webp",
            output_compression=quality,
            response_format="b64_json",
            extra_body={"seed": 1},
        )
        return len(only(answer.data).b64_json)

    assert length(10) < length(60) < length(100)


def test_an_exact_size_is_exact(client: OpenAI, new_jobs: NewJobs) -> None:
    answer = edit(client, size="1920x1080")
    assert answer.size == "1920x1080"
    assert opened(fetched(only(answer.data).url)).size == (1920, 1080)
    assert only(new_jobs())["payload"]["image_size"] == {"width": 1920, "height": 1088}  # multiples of 16


def test_a_shape_at_a_scale(client: OpenAI, new_jobs: NewJobs) -> None:
    answer = edit(client, size="auto", extra_body={"aspect_ratio": "16:9", "resolution": "0.5K"})
    image = opened(fetched(only(answer.data).url))
    assert abs(image.width / image.height - 16 / 9) < 0.05
    assert 0.8 < image.width * image.height / 262_144 < 1.2
    assert only(new_jobs())["payload"]["image_size"] == {"width": image.width, "height": image.height}


def test_our_words_become_the_providers(client: OpenAI, new_jobs: NewJobs) -> None:
    answer = edit(client, extra_body={"cfg_scale": 3.5, "acceleration": "none", "steps": 12})
    payload = only(new_jobs())["payload"]
    assert payload["guidance_scale"] == 3.5
    assert payload["acceleration"] == "none"
    assert payload["num_inference_steps"] == 12
    assert "cfg_scale" not in payload
    notes = {note["name"]: note for note in answer.metadata["parameters"]}
    assert (notes["cfg_scale"]["how"], notes["cfg_scale"]["sent_as"]) == ("renamed", "guidance_scale")


def test_unknown_parameters_arrive_untouched(client: OpenAI, new_jobs: NewJobs) -> None:
    given = {
        "a_knob_of_tomorrow": "yes",
        "loras": [{"path": "a", "scale": "0.5"}, {"path": "b", "scale": "1"}],
        "tags": ["one"],
        "deep": {"er": {"words": ["x", "y"]}},
    }
    answer = edit(client, extra_body=given)
    payload = only(new_jobs())["payload"]
    assert {name: payload[name] for name in given} == given
    notes = {note["name"]: note for note in answer.metadata["parameters"]}
    assert all(notes[name]["how"] == "passthrough" for name in given)


def test_json_keeps_the_types_of_unknown_parameters(client: OpenAI, new_jobs: NewJobs, photo: bytes) -> None:
    given: Json = {"scale": 0.5, "flag": True, "loras": [{"path": "a", "scale": 1}], "nothing": None}
    uri = "data:image/jpeg;base64," + base64.b64encode(photo).decode()
    body = {"model": MODEL, "prompt": "a", "size": SMALL, "images": [{"image_url": uri}], **given}
    client.post("/images/edits", body=body, cast_to=object)
    payload = only(new_jobs())["payload"]
    assert {name: payload[name] for name in ("scale", "flag", "loras")} == {
        name: given[name] for name in ("scale", "flag", "loras")
    }
    assert type(payload["flag"]) is bool
    assert "nothing" not in payload


def test_what_openai_has_and_the_model_has_not_is_noted(client: OpenAI, new_jobs: NewJobs) -> None:
    answer = edit(client, quality="high", background="opaque", input_fidelity="high", user="u-1")
    notes = {note["name"]: note for note in answer.metadata["parameters"]}
    assert {notes[name]["how"] for name in ("quality", "background", "input_fidelity", "user")} == {"ignored"}
    assert not {"quality", "background", "input_fidelity", "user"} & set(only(new_jobs())["payload"])


def test_a_mask_keeps_what_it_covers(client: OpenAI) -> None:
    original = photo(size=(96, 64))
    mask = Image.new("RGBA", (96, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (48, 0, 96, 64))  # transparent = edit
    answer = client.images.edit(
        model=MODEL,
        prompt="paint it black",
        image=saved(original, "png"),
        mask=saved(mask, "png"),
        response_format="b64_json",
        output_format="png",
    )
    result = opened(base64.b64decode(only(answer.data).b64_json)).convert("RGB")
    assert result.size == (96, 64)
    left, right = (0, 0, 47, 64), (49, 0, 96, 64)
    assert result.crop(left).tobytes() == original.crop(left).tobytes()
    assert result.crop(right).tobytes() != original.crop(right).tobytes()


def test_a_dry_run_shows_price_and_plan_and_buys_nothing(client: OpenAI, new_jobs: NewJobs) -> None:
    raw = client.images.with_raw_response.edit(
        model=MODEL,
        prompt="a",
        image=sample("png"),
        n=2,
        size="1024x1024",
        extra_query={"dryRun": "true"},
        extra_body={"seed": 7},
    )
    body = json.loads(raw.text)
    assert body["estimated"] is True
    assert body["total_cost_micros"] == 60_000
    assert [call["seed"] for call in body["plan"]["calls"]] == [7, 8]
    assert body["plan"]["calls"][0]["image_urls"][0].startswith("<picture 1: image/png, 64x48")
    assert new_jobs() == []
