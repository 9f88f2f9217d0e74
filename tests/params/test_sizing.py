"""The law of sizes: shape kept, limits kept, idempotent, the same when turned by 90 degrees."""

from __future__ import annotations

from fractions import Fraction
from math import log

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.catalogue.schema import Sizing
from app.params.sizing import (
    Choice,
    ShapeNotPossible,
    Wish,
    choose,
    parse_exact,
    parse_ratio,
    parse_scale,
    shape_limits,
)

QWEN = Sizing(
    write="object",
    multiple_of=16,
    min_side=256,
    max_side=2048,
    tiers={"0.5K": 262_144, "1K": 1_048_576, "2K": 4_194_304},
)
RATIOS = Sizing(
    write="ratio", ratios=("1:1", "4:1", "8:1", "1:4", "1:8", "16:9", "9:16"), tiers={"1K": 1 << 20, "2K": 1 << 22}
)
PRESETS = Sizing(write="preset", presets={"square": "1024x1024", "wide": "1344x768", "tall": "768x1344"})
LISTED = Sizing(write="string", sizes=("1024x1024", "1536x1024", "1024x1536", "512x512"))

sides = st.integers(1, 16_000)
steps = st.sampled_from([1, 2, 8, 16, 32, 64])


@st.composite
def free_sizings(draw: st.DrawFn) -> Sizing:
    step = draw(steps)
    low = draw(st.integers(1, 1024))
    high = draw(st.integers(low + step, 4096 + step))
    return Sizing(write="object", multiple_of=step, min_side=low, max_side=high)


sizings = st.one_of(st.just(QWEN), st.just(RATIOS), st.just(PRESETS), st.just(LISTED), free_sizings())


def chosen(wish: Wish, sizing: Sizing) -> Choice:
    try:
        return choose(wish, sizing, Fraction(1))
    except ShapeNotPossible:
        assume(False)
        raise


@given(sides, sides, free_sizings())
def test_limits_are_kept(width: int, height: int, sizing: Sizing) -> None:
    got = chosen(Wish(exact=(width, height)), sizing).size
    assert sizing.min_side <= min(got)
    assert max(got) <= sizing.max_side
    assert got[0] % sizing.multiple_of == 0
    assert got[1] % sizing.multiple_of == 0


@given(sides, sides, free_sizings())
def test_the_shape_is_kept_to_within_one_step_of_the_grid(width: int, height: int, sizing: Sizing) -> None:
    got = chosen(Wish(shape=Fraction(width, height)), sizing).size
    step = sizing.multiple_of
    off = abs(log(got[0] / got[1]) - log(width / height))
    assert off <= log(1 + step / got[0]) + log(1 + step / got[1]) + 1e-9


@given(sides, sides, sizings)
def test_asking_for_what_was_answered_gives_it_again(width: int, height: int, sizing: Sizing) -> None:
    once = chosen(Wish(exact=(width, height)), sizing)
    if sizing.write == "ratio":
        assert chosen(Wish(shape=Fraction(*once.ratio or (1, 1))), sizing).ratio == once.ratio
    else:
        assert chosen(Wish(exact=once.size), sizing).size == once.size


@given(sides, sides, sizings)
def test_turned_by_90_degrees_the_answer_is_turned(width: int, height: int, sizing: Sizing) -> None:
    assume(width != height)
    one = chosen(Wish(exact=(width, height)), sizing)
    two = chosen(Wish(exact=(height, width)), sizing)
    assert two.size == one.size[::-1]


@given(sides, sides, free_sizings())
def test_a_turned_shape_at_a_scale_is_turned(width: int, height: int, sizing: Sizing) -> None:
    shape, pixels = Fraction(width, height), Fraction(700_000)
    one = chosen(Wish(shape=shape, pixels=pixels), sizing)
    two = chosen(Wish(shape=1 / shape, pixels=pixels), sizing)
    assert two.size == one.size[::-1]


@given(st.integers(256, 2048), st.integers(256, 2048))
def test_pixels_that_the_limits_hold_are_met_to_within_half_a_step(width: int, height: int) -> None:
    got = choose(Wish(exact=(width, height)), QWEN, Fraction(1)).size
    assert abs(got[0] - width) <= 8
    assert abs(got[1] - height) <= 8


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ((1023, 1025), (1024, 1024)),
        ((1920, 1080), (1920, 1088)),
        ((641, 479), (640, 480)),
        ((1009, 1013), (1008, 1008)),
        ((257, 300), (256, 304)),
    ],
)
def test_the_nearest_point_of_the_grid(wanted: tuple[int, int], asked: tuple[int, int]) -> None:
    assert choose(Wish(exact=wanted), QWEN, Fraction(1)).size == asked


@pytest.mark.parametrize(
    ("wanted", "ratio"),
    [("7:1", (8, 1)), ("5.6:1", (4, 1)), ("5.7:1", (8, 1)), ("1:7", (1, 8)), ("1:5.6", (1, 4)), ("1.4:1", (16, 9))],
)
def test_the_nearest_ratio_is_by_logarithms(wanted: str, ratio: tuple[int, int]) -> None:
    assert choose(Wish(shape=parse_ratio(wanted)), RATIOS, Fraction(1)).ratio == ratio


def test_ties_go_to_the_larger() -> None:
    two = Sizing(write="ratio", ratios=("1:1", "4:1"))
    assert choose(Wish(shape=Fraction(2)), two, Fraction(1)).ratio == (4, 1)
    tiers = Sizing(write="ratio", ratios=("1:1",), tiers={"small": 100, "large": 400})
    assert choose(Wish(pixels=Fraction(200)), tiers, Fraction(1)).tier == "large"


@pytest.mark.parametrize(
    ("scale", "tier"),
    [("1K", "1K"), ("1k", "1K"), ("2K", "2K"), ("4K", "2K"), ("0.25", "1K"), ("4", "2K"), ("2.1", "2K")],
)
def test_the_nearest_tier(scale: str, tier: str) -> None:
    found = parse_scale(scale, RATIOS)
    assert found
    assert found[1] == tier


def test_a_preset_is_chosen_by_shape_then_scale() -> None:
    assert choose(Wish(shape=Fraction(16, 9)), PRESETS, Fraction(1)).label == "wide"
    assert choose(Wish(exact=(500, 500)), LISTED, Fraction(1)).size == (512, 512)
    assert choose(Wish(exact=(3000, 2000)), LISTED, Fraction(1)).size == (1536, 1024)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024x768", (1024, 768)), ("1024X768", (1024, 768)), (" 1024 x 768 ", (1024, 768)), ("10:9", None)],
)
def test_exact_sizes_are_read(text: str, size: tuple[int, int] | None) -> None:
    assert parse_exact(text) == size


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("16:9", Fraction(16, 9)), ("2.39:1", Fraction(239, 100)), ("4/3", Fraction(4, 3)), ("0:1", None), ("1:", None)],
)
def test_ratios_are_read(text: str, ratio: Fraction | None) -> None:
    assert parse_ratio(text) == ratio


@given(st.text(max_size=30))
def test_no_text_breaks_the_parsers(text: str) -> None:
    parse_exact(text)
    parse_ratio(text)
    parse_scale(text, QWEN)


@given(sides, sides, st.sampled_from([262_144, 1_048_576, 4_194_304]))
def test_a_scale_is_a_ceiling(width: int, height: int, pixels: int) -> None:
    choice = chosen(Wish(shape=Fraction(width, height), pixels=Fraction(pixels)), QWEN)
    if not choice.scale_fitted:
        assert choice.size[0] * choice.size[1] <= pixels


def test_the_longest_shape_is_true_where_the_area_is_limited() -> None:
    narrow = Sizing(write="object", multiple_of=16, min_side=512, max_side=4096, max_pixels=1_048_576)
    longest = shape_limits(narrow)
    assert longest == 4
    assert choose(Wish(shape=longest), narrow, Fraction(1)).size == (2048, 512)
    with pytest.raises(ShapeNotPossible):
        choose(Wish(shape=Fraction(6)), narrow, Fraction(1))
