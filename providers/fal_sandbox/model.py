"""What a runner does with a job: check the payload, read the pictures, render, store, answer."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import pybase64
from PIL import Image

from .edits import Brush, edit, imagine
from .faults import Fault
from .files import Access, FileStore, StoredFile
from .inputs import read_picture, read_url
from .options import Options
from .queue import Job, Outcome
from .replies import POLICY_TEXT, ModelRejection, Reply, as_json, infra_text, model_error, model_error_of
from .sizes import Size, output_size

log = logging.getLogger(__name__)

_ENCODERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # the lowest PNG effort: a stand-in's time belongs to the picture, not to deflate
    "png": ("PNG", {"compress_level": 1}),
    "jpeg": ("JPEG", {"quality": 92}),
    "webp": ("WEBP", {"quality": 90, "method": 2}),
}
_UNSAFE_WORDS = ("nsfw", "nude", "naked", "porn", "gore")
_MEGAPIXEL = 1024 * 1024
_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Rendering:
    """One finished picture, encoded."""

    data: bytes
    content_type: str
    size: Size
    unsafe: bool = False


def lifecycle(headers: Mapping[str, str], now: float) -> tuple[float | None, Access]:
    """Expiry (epoch seconds) and access from X-Fal-Object-Lifecycle(-Preference).

    A bad header is no preference; a duration of 0 is no expiry (PY fal-client 1.0.3).
    """
    text = headers.get("x-fal-object-lifecycle-preference") or headers.get("x-fal-object-lifecycle") or "{}"
    try:
        wish = json.loads(text)
        seconds = wish.get("expiration_duration_seconds")
        acl = wish.get("initial_acl") or {}
        return (now + float(seconds) if seconds else None), Access(acl.get("default") or "allow")
    except (ValueError, TypeError, AttributeError):
        return None, Access.ALLOW


class Model:
    """Runs jobs of every endpoint. Holds no state of its own; pictures are made in `executor`'s threads."""

    def __init__(self, files: FileStore, executor: Executor, options: Options, clock: Callable[[], float]) -> None:
        self._files = files
        self._executor = executor
        self._options = options
        self._clock = clock

    async def run(self, job: Job) -> Outcome:
        """The whole life of a job in its slot. Never raises but for a cancellation."""
        try:
            return await self._run(job)
        except ModelRejection as rejection:
            return Outcome(model_error(rejection))
        except Exception:
            log.exception("the sandbox could not render job %s", job.request_id)
            return Outcome(model_error_of("internal_server_error"))

    async def _run(self, job: Job) -> Outcome:
        if ending := _scripted_ending(job):
            return ending
        values = job.endpoint.check(job.payload)
        if isinstance(values, Reply):
            return Outcome(values)
        if job.struck(Fault.EMPTY_IMAGES):
            return Outcome(as_json(_body(job, values, [], [], 0, 0.0)))
        began = time.perf_counter()
        seed = values.get("seed")
        if seed is None:
            seed = secrets.randbelow(_SEEDS)
        loop = asyncio.get_running_loop()
        pictures, mask = await loop.run_in_executor(self._executor, self._read, job, values)
        size = output_size(job.endpoint, values, [picture.size for picture in pictures])
        if size[0] * size[1] > self._options.max_output_pixels:
            raise ModelRejection("internal_server_error", "Internal server error")
        renderings = await asyncio.gather(
            *(
                loop.run_in_executor(self._executor, self._render, job, values, pictures, mask, size, seed, index)
                for index in range(int(values.get("num_images") or 1))
            )
        )
        took = time.perf_counter() - began
        images = [self._publish(job, values, rendering) for rendering in renderings]
        body = _body(job, values, images, renderings, seed, took)
        units = _units(job, renderings, pictures)
        return Outcome(as_json(body, headers={"X-Fal-Billable-Units": f"{units:g}"}), len(images), units)

    def _read(self, job: Job, values: Mapping[str, Any]) -> tuple[list[Image.Image], Image.Image | None]:
        def stored(path: str) -> bytes | None:
            file = self._files.get(path)
            return file.data if file else None

        def load(url: str, *loc: str | int) -> Image.Image:
            where = ("body", *loc)
            data = read_url(url, where, job.origins.cdn, stored, self._options.max_download_bytes)
            return read_picture(data, where, url, self._options.max_input_pixels)

        field = job.endpoint.images_field
        if field is None:
            return [], None
        given = values[field]
        if given is not None and not given:
            message = "The list must have at least 1 item."
            raise ModelRejection("sequence_too_short", message, loc=("body", field), ctx={"min_length": 1}, given=given)
        if isinstance(given, str):
            pictures = [load(given, field)]
        else:
            urls = list(enumerate(given or []))
            most = job.endpoint.max_images or len(urls)
            used = urls[-most:] if job.endpoint.keeps_last else urls[:most]
            pictures = [load(url, field, index) for index, url in used]
        mask_field = job.endpoint.mask_field
        mask_url = values.get(mask_field) if mask_field else None
        return pictures, load(mask_url, mask_field).convert("L") if mask_url and mask_field else None

    def _render(
        self,
        job: Job,
        values: Mapping[str, Any],
        pictures: Sequence[Image.Image],
        mask: Image.Image | None,
        size: Size,
        seed: int,
        index: int,
    ) -> Rendering:
        prompt = values["prompt"]
        name = values.get("output_format") or job.endpoint.default_format
        unsafe: bool = values.get("enable_safety_checker", True) and any(
            word in prompt.lower() for word in _UNSAFE_WORDS
        )
        if unsafe and job.endpoint.unsafe == "refuse":
            raise ModelRejection(
                "content_policy_violation",
                POLICY_TEXT,
                loc=("body", "prompt"),
                given=prompt,
            )
        struck = job.struck(Fault.NSFW)
        if unsafe or (struck is not None and struck["image"] == index):
            # the checker's own answer: 200, black, same size, billed (SDK fal 1.83.0 toolkit/image filter_by)
            return _encode(Image.new("RGB", size), name, unsafe=True)
        brush = Brush(
            prompt=prompt,
            negative=values.get("negative_prompt") or "",
            guidance=values.get("guidance_scale"),
            steps=values.get("num_inference_steps"),
            # each picture of one request is its own throw of the die, and the first is the seed's own
            seed=seed + index,
        )
        picture = edit(pictures, mask, size, brush) if pictures else imagine(size, brush)
        rendering = _encode(picture, name)
        if job.struck(Fault.CORRUPT_IMAGE):
            return Rendering(rendering.data[: len(rendering.data) // 2], rendering.content_type, size)
        return rendering

    def _publish(self, job: Job, values: Mapping[str, Any], rendering: Rendering) -> dict[str, Any]:
        """Store a picture and describe it as this endpoint's output object does."""
        lie = job.struck(Fault.LIE_CONTENT_TYPE)
        content_type = str(lie["content_type"]) if lie else rendering.content_type
        suffix = rendering.content_type.removeprefix("image/")
        name = f"{secrets.token_urlsafe(16)}.{suffix}"
        if values.get("sync_mode"):
            url = f"data:{content_type};base64,{pybase64.b64encode(rendering.data).decode()}"
        else:
            expires_at, access = lifecycle(job.headers, self._clock())
            path = f"/files/sandbox/{name}"
            self._files.put(path, StoredFile(rendering.data, content_type, expires_at, access))
            url = job.origins.cdn + path
        size: tuple[int, int] | None = rendering.size
        if lie_size := job.struck(Fault.LIE_SIZE):
            size = int(lie_size["width"]), int(lie_size["height"])
        image: dict[str, Any] = {"url": url, "content_type": content_type}
        if job.endpoint.image_object != "file" and size:
            image |= {"width": size[0], "height": size[1]}
        if job.endpoint.image_object != "image":
            image |= {"file_name": name, "file_size": len(rendering.data)}
        return image


def _scripted_ending(job: Job) -> Outcome | None:
    for struck in job.strikes:
        match struck.fault:
            case Fault.MODEL_ERROR:
                return Outcome(model_error_of(struck["type"]))
            case Fault.INFRA_ERROR:
                return Outcome.infra(struck["error_type"])
            case Fault.COMPLETED_WITH_ERROR:
                error, error_type = str(struck["error"]), str(struck["error_type"])
                reply = as_json({"detail": error, "error_type": error_type}, 500, {"X-Fal-Error-Type": error_type})
                return Outcome(reply, error=error or infra_text(error_type), error_type=error_type)
            case _:
                continue
    return None


def _encode(picture: Image.Image, name: str, *, unsafe: bool = False) -> Rendering:
    encoder, settings = _ENCODERS[name]
    buffer = io.BytesIO()
    picture.save(buffer, encoder, **settings)
    return Rendering(buffer.getvalue(), f"image/{name}", picture.size, unsafe)


def _units(job: Job, renderings: Sequence[Rendering], inputs: Sequence[Image.Image]) -> float:
    """Megapixels rounded up for each picture (fal's rule for flux/dev; for Qwen not confirmed), or pictures."""
    if job.endpoint.unit == "images":
        return float(len(renderings))
    made = sum(_megapixels(rendering.size) for rendering in renderings)
    return float(made + sum(min(_megapixels(picture.size), job.endpoint.billed_inputs) for picture in inputs))


def _megapixels(size: Size) -> int:
    return math.ceil(size[0] * size[1] / _MEGAPIXEL)


def _body(
    job: Job,
    values: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    renderings: Sequence[Rendering],
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    also: dict[str, Any] = {
        "timings": {"inference": round(seconds, 4)},
        "seed": seed,
        "has_nsfw_concepts": [rendering.unsafe for rendering in renderings],
        "prompt": values["prompt"],
        "description": "",
    }
    return {"images": list(images)} | {key: also[key] for key in job.endpoint.output_also}
