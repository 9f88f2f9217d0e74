"""What the tests of OpenAI's SDK share."""

from __future__ import annotations

import io
from typing import Any

import httpx2
from openai import OpenAI
from PIL import Image

from tests.conftest import MODEL
from tests.media.pictures import sample

SMALL = "256x256"


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def fetched(url: str | None) -> bytes:
    assert url is not None
    answer = httpx2.get(url, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("image/")
    return answer.content


def edit(client: OpenAI, **more: Any) -> Any:
    return client.images.edit(
        **{"model": MODEL, "prompt": "make it night", "image": sample("png"), "size": SMALL, **more}
    )


def only(pictures: Any) -> Any:
    assert pictures is not None
    assert len(pictures) == 1
    return pictures[0]
