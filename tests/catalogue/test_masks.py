"""Models that take a mask themselves: OpenAI's callers send theirs as they are used to, and the model edits there."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image

from app.catalogue.schema import Model
from tests.catalogue.test_models import ENDPOINTS, MODELS, data_uri
from tests.conftest import Json, Served

TAKES_ONE = [model for model in MODELS if ENDPOINTS[model.offers[0].endpoint].mask_field]
LEFT = (0, 0, 480, 640)  # of a picture of 960x640


def png(picture: Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def masks() -> dict[str, bytes]:
    clear, white = Image.new("RGBA", (960, 640), "black"), Image.new("RGB", (960, 640), "black")
    clear.paste((0, 0, 0, 0), LEFT)
    white.paste("white", LEFT)
    return {"clear": png(clear), "white": png(white)}


@pytest.mark.parametrize("model", TAKES_ONE, ids=lambda model: model.id)
def test_it_edits_where_the_mask_is_transparent_or_white(model: Model, gateway: Served) -> None:
    original = Image.linear_gradient("L").resize((960, 640)).convert("RGB")
    results = []
    for mask in masks().values():
        body: Json = {"model": model.id, "prompt": "invert it", "size": "1536x1024", "response_format": "b64_json"}
        if model.offers[0].params["seed"].how != "ignored":
            body["seed"] = 1
        answer = gateway.post(body | {"image": data_uri(png(original)), "mask": data_uri(mask)})
        assert answer.status_code == 200, answer.text
        results.append(Image.open(BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).convert("L"))
    for result in results:
        expected = original.convert("L").resize(result.size)
        kept, edited = (900, 40, 1400, 240), (100, 40, 640, 240)  # the dark upper quarter of either half
        assert abs(mean(result.crop(kept)) - mean(expected.crop(kept))) < 12
        assert mean(result.crop(edited)) - mean(expected.crop(edited)) > 60


def mean(picture: Image.Image) -> float:
    values = picture.histogram()
    return sum(value * count for value, count in enumerate(values)) / sum(values)


def test_there_are_such_models() -> None:
    assert {model.id for model in TAKES_ONE} >= {"qwen-image-edit-inpaint", "gpt-image-1.5-edit", "gpt-image-2-edit"}
