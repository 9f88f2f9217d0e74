"""A naive proxy: the FastAPI code that one would write first, and what most small gateways look like.

UploadFile, the standard library's base64, `httpx.post(json=…)` with one shared client, a dict for an answer. It is a
peer to measure against, written as its tutorials write it.
"""

from __future__ import annotations

import argparse
import base64
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import FastAPI, Form, Request, UploadFile

ENDPOINT = "fal-ai/qwen-image-edit-2509"


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        yield {"client": client}


app = FastAPI(lifespan=_client)


@app.get("/")
async def health() -> dict[str, str]:
    """For whoever waits for the start."""
    return {}


@app.post("/v1/images/edits")
async def edit(
    request: Request,
    image: UploadFile,
    prompt: Annotated[str, Form()],
    model: Annotated[str, Form()] = "",
    response_format: Annotated[str, Form()] = "url",
) -> dict[str, Any]:
    """One edit by fal's synchronous call."""
    client: httpx.AsyncClient = request.state.client
    data = base64.b64encode(await image.read()).decode()
    answer = await client.post(
        f"{os.environ['FAL_RUN_URL']}/{ENDPOINT}",
        json={"prompt": prompt, "image_urls": [f"data:{image.content_type};base64,{data}"]},
        headers={"Authorization": f"Key {os.environ.get('FAL_KEY', '')}"},
    )
    answer.raise_for_status()
    url = answer.json()["images"][0]["url"]
    if response_format != "b64_json":
        return {"created": int(time.time()), "data": [{"url": url}]}
    picture = await client.get(url)
    return {"created": int(time.time()), "data": [{"b64_json": base64.b64encode(picture.content).decode()}]}


def main() -> None:
    """`FAL_RUN_URL=http://127.0.0.1:9010/run python -m bench.naive --port 9021`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9021)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, access_log=False, log_level="critical")


if __name__ == "__main__":
    main()
