"""Sizes on models of every kind, each a small file in models/: free, presets, listed, ratios, tiers, none, and a file
without a word of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from app.catalogue.load import load_common, load_model
from app.errors import InvalidSize
from app.media.blob import MemoryBlob
from app.params.engine import compile_plan
from app.pricing import quote
from app.types import Caller, EditRequest, Given, Plan
from providers.base import Media

HERE = Path(__file__).parent
MODELS = {path.stem: load_model(path, load_common()) for path in (HERE / "models").glob("*.yaml")}
CASES = yaml.safe_load((HERE / "cases_of_kinds.yaml").read_text("utf-8"))
NO_SIZE, OWN_SIZE = "this model takes no size", "this model makes pictures of a size of its own"
PHOTO = Media(MemoryBlob(b""), "image/jpeg", 4000, 3000, "digest")


def compiled(kind: str, size_words: dict[str, str], photo: Media = PHOTO) -> Plan:
    params = {name: Given(name, value, text=True) for name, value in {"prompt": "p", **size_words}.items()}
    params["image"] = Given("image", (photo,))
    request = EditRequest("req_1", "image-edit", kind, params, Caller("key", "name"))
    return compile_plan(request, kind, MODELS[kind].offers[0])


def test_every_kind_has_its_cases() -> None:
    assert set(CASES) == set(MODELS)


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in CASES.items() for case in cases])
def test_a_size_becomes(kind: str, case: dict[str, Any]) -> None:
    assert set(case) <= {"given", "sends", "lacks", "exact", "error"}
    if "error" in case:
        with pytest.raises(InvalidSize) as caught:
            compiled(kind, case["given"])
        assert caught.value.param == case["error"]
        return
    plan = compiled(kind, case["given"])
    payload = plan.calls[0].payload
    for name, value in case.get("sends", {}).items():
        assert payload[name] == value
    for name in case.get("lacks", []):
        assert name not in payload
    assert plan.delivery.exact == (tuple(case["exact"]) if "exact" in case else None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": "300x200"}, {"size": ("emulated", f"{NO_SIZE}: the result is fitted to exactly 300x200")}),
        ({"size": "16:9"}, {"size": ("ignored", OWN_SIZE)}),
        ({"aspect_ratio": "16:9"}, {"aspect_ratio": ("ignored", OWN_SIZE)}),
        ({"resolution": "2K"}, {"resolution": ("ignored", OWN_SIZE)}),
        ({"size": "auto"}, {"size": ("converted", "auto: the model's own size, nothing is sent")}),
    ],
)
@pytest.mark.parametrize("kind", ["fixed", "unsized"])
def test_a_model_that_takes_no_size_says_what_becomes_of_one(
    kind: str, given: dict[str, str], told: dict[str, tuple[str, str]]
) -> None:
    plan = compiled(kind, given)
    assert {note.name: (note.how, note.why) for note in plan.notes if note.name in told} == told
    # What it will make nobody knows, so no quote is made up and nothing is booked by it.
    assert plan.size is None
    assert quote(plan).total is None


@given(st.sampled_from(sorted(MODELS)), st.integers(1, 8000), st.integers(1, 6000))
def test_exact_pixels_are_owed_on_every_kind_or_refused_by_name(kind: str, width: int, height: int) -> None:
    owed: object
    try:
        owed = compiled(kind, {"size": f"{width}x{height}"}).delivery.exact
    except InvalidSize as refusal:
        owed = refusal.param
    assert owed in ((width, height), "size")


@given(st.sampled_from(sorted(MODELS)), st.integers(1, 4000), st.integers(1, 4000))
def test_a_turned_picture_gives_a_turned_plan(kind: str, width: int, height: int) -> None:
    assume(width != height)
    assume(kind not in ("presets", "ratios"))  # their lists are not the same when turned
    landscape = Media(MemoryBlob(b""), "image/png", width, height, "digest")
    portrait = Media(MemoryBlob(b""), "image/png", height, width, "digest")
    one, two = compiled(kind, {}, landscape).size, compiled(kind, {}, portrait).size
    assert (one is None) == (two is None)
    if one and two:
        assert one == two[::-1]


def test_a_raw_seed_moves_even_where_no_row_knows_it() -> None:
    params = {name: Given(name, value, text=True) for name, value in {"prompt": "p", "n": "3", "seed": "7"}.items()}
    params["image"] = Given("image", (PHOTO,))
    request = EditRequest("req_1", "image-edit", "free", params, Caller("key", "name"))
    plan = compile_plan(request, "free", MODELS["free"].offers[0])
    assert [call.payload["seed"] for call in plan.calls] == ["7", "8", "9"]
