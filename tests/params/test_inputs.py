"""Which pictures may go to a provider by the caller's own URL."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalogue.schema import Accepts
from app.media.blob import MemoryBlob
from app.params.inputs import plan_inputs
from providers.base import Media

URL = "https://example.com/a.png"


@pytest.mark.parametrize(
    ("accepts", "facts", "handed_on"),
    [
        ({"urls": True}, {"url": URL}, True),
        ({"urls": False}, {"url": URL}, False),
        ({"urls": True}, {}, False),
        ({"urls": True}, {"url": URL, "orientation": 6}, False),
        ({"urls": True}, {"url": URL, "alpha": True}, False),
        ({"urls": True, "alpha": True}, {"url": URL, "alpha": True}, True),
        ({"urls": True, "formats": ("jpeg",)}, {"url": URL}, False),
    ],
)
def test_a_url_is_handed_on_if_the_row_allows_it_and_no_pixel_has_to_change(
    accepts: dict[str, Any], facts: dict[str, Any], handed_on: bool
) -> None:
    media = Media(MemoryBlob(b""), "image/png", 10, 10, "digest", **facts)
    [step] = plan_inputs((media,), Accepts(**accepts), "image")
    assert step.hand_on is handed_on
