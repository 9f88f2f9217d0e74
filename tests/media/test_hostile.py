"""Whatever the bytes, nobody sees an exception that is not ours, and nothing takes long."""

from __future__ import annotations

import functools
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.media.avif import Uncuttable
from app.media.blob import MemoryBlob
from app.media.decode import decode
from app.media.finish import BadPicture, finish
from app.media.sniff import inspect, size_of, sniff_format
from app.media.strip import strip_metadata
from app.types import Delivery
from tests.media.pictures import FORMATS, animated, sample

LIMIT = 1_000_000


@functools.cache
def seeds(format: str) -> list[bytes]:
    whole = [sample(format, size=(24, 18), metadata=True, orientation=6), sample(format, size=(24, 18))]
    return whole + ([animated(format)] if format != "jpeg" else [])


def tried(data: bytes) -> None:
    """All doors that a stranger's bytes can come through."""
    kind = sniff_format(data[:64])
    size_of(data)
    with suppress(InvalidRequest):
        inspect(MemoryBlob(data), "", index=0, param="image", max_pixels=LIMIT)
    if kind in FORMATS:
        with suppress(InvalidRequest, Uncuttable):
            clean = strip_metadata(data, f"image/{kind}")
            assert strip_metadata(clean, f"image/{kind}") is clean
    with suppress(InvalidRequest):
        image = decode(data, max_pixels=LIMIT, upright=True)
        assert image.mode in ("L", "LA", "RGB", "RGBA")
    with suppress(BadPicture):
        finish(MemoryBlob(data), Delivery(), 0, max_pixels=LIMIT)
    with suppress(BadPicture):
        finish(MemoryBlob(data), Delivery(exact=(9, 7)), 0, max_pixels=LIMIT)


@settings(max_examples=120, deadline=3000, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FORMATS), st.integers(0, 2), st.data())
def test_flipped_bytes(format: str, which: int, data: st.DataObject) -> None:
    seed = bytearray(seeds(format)[which % len(seeds(format))])
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers are where it hurts: half of the flips go into the first 200 bytes.
        limit = min(200, len(seed)) if data.draw(st.booleans()) else len(seed)
        seed[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    tried(bytes(seed))


def test_an_avif_whose_table_of_places_is_of_a_new_kind() -> None:
    whole = sample("avif", size=(24, 18))
    at = whole.index(b"iloc") + 4
    tried(whole[:at] + b"\3" + whole[at + 1 :])


@settings(max_examples=80, deadline=3000, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FORMATS), st.integers(0, 2), st.data())
def test_pieces_missing_or_doubled(format: str, which: int, data: st.DataObject) -> None:
    seed = seeds(format)[which % len(seeds(format))]
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(len(seed), start + 400)))
    piece = seed[start:end] * data.draw(st.sampled_from((0, 2, 5)))
    tried(seed[:start] + piece + seed[end:])


@settings(max_examples=60, deadline=3000)
@given(st.binary(max_size=300))
@example(b"")
def test_noise(data: bytes) -> None:
    tried(data)


@settings(max_examples=100, deadline=3000)
@given(st.sampled_from(FORMATS), st.binary(max_size=300))
def test_noise_behind_a_true_beginning(format: str, data: bytes) -> None:
    tried(seeds(format)[0][:12] + data)
    tried(seeds(format)[0][:60] + data)


@pytest.mark.parametrize("format", FORMATS)
def test_every_cut(format: str) -> None:
    seed = seeds(format)[0]
    for end in range(0, len(seed), max(1, len(seed) // 120)):
        tried(seed[:end])
