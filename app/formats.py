"""What pictures are written as. Apart from `app.types`, so that a picture child knows it without loading pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ImageFormat = Literal["png", "jpeg", "gif", "webp", "avif"]
Size = tuple[int, int]  # width, height in pixels

MIME: Mapping[ImageFormat, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
}
