"""Drives the gateway with openai 1.x: drive_openai_1.py BASE_URL PHOTO. Prints one JSON object."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI, OpenAI

base_url, photo = sys.argv[1], Path(sys.argv[2])
MODEL = "qwen-image-edit-2509"
client = OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=30)
results: dict[str, Any] = {"version": openai.__version__}


def shown(answer: Any) -> dict[str, Any]:
    return {"keys": [sorted(one.model_dump(exclude_none=True)) for one in answer.data], "size": answer.size}


def edit(**more: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"model": MODEL, "prompt": "sepia", "size": "256x256", **more}
    return shown(client.images.edit(**request))


def failure(**more: Any) -> dict[str, Any]:
    try:
        edit(**more)
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "code": error.code, "param": error.param}
    raise AssertionError("no error")


async def edit_async() -> dict[str, Any]:
    async with AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as asynchronous:
        request: dict[str, Any] = {"model": MODEL, "prompt": "sepia", "size": "256x256", "image": photo}
        return shown(await asynchronous.images.edit(**request))


with photo.open("rb") as file:
    results["file"] = edit(image=file)
results["path"] = edit(image=photo)
results["bytes"] = edit(image=photo.read_bytes())
results["bytes_io"] = edit(image=io.BytesIO(photo.read_bytes()))
results["nameless"] = edit(image=(None, photo.read_bytes(), "image/jpeg"))
results["list_of_one"] = edit(image=[photo])
results["b64"] = edit(image=photo, response_format="b64_json", n=2)
results["extras"] = edit(image=photo, extra_body={"seed": 3, "loras": [{"path": "a", "scale": 1}]})
raw = client.images.with_raw_response.edit(model=MODEL, prompt="sepia", image=photo, size="256x256")
results["raw"] = {"type": raw.headers["content-type"], "id": raw.headers["x-request-id"], **shown(raw.parse())}
streaming = client.images.with_streaming_response
with streaming.edit(model=MODEL, prompt="sepia", image=photo, size="256x256") as response:
    results["streaming_response"] = {"status": response.status_code, **shown(response.parse())}
results["async"] = asyncio.run(edit_async())
results["events"] = [event.type for event in client.images.edit(model=MODEL, prompt="sepia", image=photo, stream=True)]
results["too_many"] = failure(image=photo, n=11)
results["no_prompt"] = failure(image=photo, prompt="")  # version 1 leaves an empty string out of the form
results["models"] = [model.id for model in client.models.list()]
results["slashed"] = client.models.retrieve(f"fal/{MODEL}").id  # version 1 sends the slash raw
sys.stdout.write(json.dumps(results) + "\n")
