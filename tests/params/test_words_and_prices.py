"""What a model file can say beyond sizes: words for words, prices of what is asked, how a mask is read."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import pricing
from app.catalogue.load import load_common, load_model
from app.errors import ImageTooLarge, InvalidValue
from app.media.blob import MemoryBlob
from app.params.engine import compile_plan
from app.records import dump_plan, load_plan
from app.types import Caller, EditRequest, Given, Plan
from providers.base import Media

MODEL = """
id: painter
name: Painter
creator: tests
modes: [image-edit]
offers:
  - provider: fal
    endpoint: tests/painter
    price: %(price)s
    accepts: {images: 3, mask: %(mask)s}
    sizing: {write: object, max_side: 4096}
    params:
      prompt: {how: passthrough, type: string, required: true}
      image: {how: renamed, to: image_urls, type: images, required: true}
      mask: {how: renamed, to: mask_url, type: image}
      size: {how: converted, by: dimensions, to: image_size, type: string}
      quality:
        {how: converted, by: words, to: effort, type: string, words: {auto: null, standard: medium, high: high}}
      look_up: {how: passthrough, type: boolean}
"""
UNKNOWN = "null"
BY_CASE = """{per: image, amount: "0.10", cases: [{when: {effort: high, look_up: "true"}, amount: "0.35"},
              {when: {effort: high}, amount: "0.30"}]}"""
INPUTS = '{per: megapixel, amount: "0.01", rounding: up, inputs: 4}'
FIRST = '{per: megapixel, amount: "0.015", first: "0.03", rounding: up, inputs: 4}'


def picture(width: int = 1024, height: int = 1024, **facts: Any) -> Media:
    return Media(MemoryBlob(b"x"), "image/png", width, height, "digest", **facts)


def compiled(
    folder: Path, *pictures: Media, price: str = UNKNOWN, read: str = "openai", strict: bool = False, **given: Any
) -> Plan:
    (folder / "painter.yaml").write_text(MODEL % {"price": price, "mask": read})
    model = load_model(folder / "painter.yaml", load_common())
    values = {"prompt": "p", "image": pictures or (picture(),), "size": "1024x1024", **given}
    words = {name: Given(name, value) for name, value in values.items()}
    request = EditRequest("req_1", "image-edit", "painter", words, Caller("key", "name"), strict=strict)
    return compile_plan(request, "painter", model.offers[0])


def payload(plan: Plan) -> dict[str, Any]:
    return dict(plan.calls[0].payload)


class TestWords:
    def test_a_word_becomes_the_providers_own(self, tmp_path: Path) -> None:
        plan = compiled(tmp_path, quality="standard")
        assert payload(plan)["effort"] == "medium"
        assert "quality" not in payload(plan)
        [note] = [note for note in plan.notes if note.name == "quality"]
        assert (note.how, note.sent_as, note.why) == ("converted", "effort", "asked for medium")

    def test_a_word_for_the_models_own_default_is_not_sent_and_noted(self, tmp_path: Path) -> None:
        plan = compiled(tmp_path, quality="auto", strict=True)
        assert "effort" not in payload(plan)
        [note] = [note for note in plan.notes if note.name == "quality"]
        assert (note.sent_as, "default" in note.why) == (None, True)

    @pytest.mark.parametrize("word", ["low", "medium"])  # the second is the provider's word, which callers do not say
    def test_another_word_is_refused_with_those_that_there_are(self, tmp_path: Path, word: str) -> None:
        with pytest.raises(InvalidValue, match="Supported values are: 'auto', 'standard', and 'high'") as caught:
            compiled(tmp_path, quality=word)
        assert caught.value.param == "quality"

    def test_nothing_said_is_nothing_sent(self, tmp_path: Path) -> None:
        assert "effort" not in payload(compiled(tmp_path))


class TestPrices:
    @pytest.mark.parametrize(
        ("given", "each"),
        [
            ({}, "0.10"),
            ({"quality": "standard"}, "0.10"),
            ({"quality": "high"}, "0.30"),
            ({"quality": "high", "look_up": False}, "0.30"),
            ({"quality": "high", "look_up": True}, "0.35"),
            ({"look_up": True}, "0.10"),
        ],
    )
    def test_what_is_asked_for_makes_the_price(self, tmp_path: Path, given: dict[str, Any], each: str) -> None:
        plan = compiled(tmp_path, price=BY_CASE, n=2, **given)
        quote = pricing.quote(plan)
        assert (quote.unit_price, quote.total) == (Decimal(each), Decimal(each) * 2)
        again, _ = load_plan(dump_plan(plan))  # as a gateway that was killed finds it
        cost = pricing.cost(again.offer.price, [(1024, 1024)], Decimal(9), again.besides)
        assert cost == Decimal(each), "what a unit is then is not known"

    def test_input_pictures_are_counted_for_each_job_up_to_a_limit(self, tmp_path: Path) -> None:
        plan = compiled(tmp_path, picture(1100, 1024), picture(4000, 4000), price=INPUTS, n=2)
        assert plan.besides == 2 + 4
        quote = pricing.quote(plan)
        assert (quote.billable, quote.total) == (14, Decimal("0.14"))
        again, _ = load_plan(dump_plan(plan))
        assert pricing.cost(again.offer.price, [(1024, 1024)], None, again.besides) == Decimal("0.07")
        assert pricing.cost(again.offer.price, [(1024, 1024)], Decimal(6), again.besides) == Decimal("0.06")
        assert pricing.cost(again.offer.price, [], None, again.besides) == 0, "nothing made, nothing charged"

    def test_the_first_megapixel_of_each_job_has_a_price_of_its_own(self, tmp_path: Path) -> None:
        plan = compiled(tmp_path, price=FIRST, n=2)
        quote = pricing.quote(plan)
        assert (quote.billable, quote.unit_price, quote.total) == (4, None, Decimal("0.09"))
        assert pricing.cost(plan.offer.price, [(2048, 1024)], Decimal(1), plan.besides) == Decimal("0.06")

    def test_a_plan_of_before_knows_of_no_inputs(self, tmp_path: Path) -> None:
        text = dump_plan(compiled(tmp_path, price=INPUTS)).replace(',"besides":"1"', "")
        assert "besides" not in text
        assert load_plan(text)[0].besides == 0


class TestMasks:
    @pytest.mark.parametrize("read", ["white", "black", "both"])
    def test_a_mask_is_brought_to_what_the_provider_reads(self, tmp_path: Path, read: str) -> None:
        mask = picture(alpha=True, mode="RGBA")
        plan = compiled(tmp_path, read=read, mask=(mask,))
        step = plan.inputs[-1]
        assert (step.media, step.mask, step.to_format, step.flatten) == (mask, read, "png", False)
        [note] = [note for note in plan.notes if note.name == "mask"]
        assert note.why.endswith(" where it edits")
        assert ("black" if read == "black" else "white") in note.why

    def test_a_provider_that_reads_openais_masks_gets_them_as_they_are(self, tmp_path: Path) -> None:
        step = compiled(tmp_path, mask=(picture(alpha=True, mode="RGBA"),)).inputs[-1]
        assert (step.mask, step.touches_pixels) == ("", False)

    def test_a_mask_of_another_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValue, match="Both must have the same size") as caught:
            compiled(tmp_path, mask=(picture(512, 512),))
        assert caught.value.param == "mask"

    def test_a_mask_is_held_to_the_limits_of_pictures(self, tmp_path: Path) -> None:
        huge = picture(10_000, 10_000)
        with pytest.raises(ImageTooLarge):
            compiled(tmp_path, huge, mask=(huge,))
