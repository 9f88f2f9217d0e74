"""A model whose size is two fields: every way to say a size leads to both of them and to those pixels."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest
from PIL import Image

from tests.conftest import Json
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import EDITS, PICTURE, Gate

SCHEMA = {
    "endpoints": ["example/sides"],
    "source": "invented",
    "fields": {
        "prompt": {"type": "string", "required": True},
        "image_url": {"type": "string", "required": True},
        "image_width": {"type": "integer", "ge": 256, "le": 2048, "multiple_of": 8, "default": 512},
        "height": {"type": "integer", "ge": 256, "le": 2048, "multiple_of": 8, "default": 512},
    },
    "roles": {"images": "image_url", "max_images": 1},
    "size": {"sides": ["image_width", "height"]},
}
MODEL = """
id: sides
name: Sides
creator: Tests
modes: [image-edit]
offers:
  - provider: fal
    endpoint: example/sides
    sizing: {write: sides, multiple_of: 8, min_side: 256, max_side: 2048}
    params:
      prompt: {how: passthrough, type: string, required: true}
      image: {how: renamed, to: image_url, type: image, required: true}
      size: {how: converted, by: dimensions, type: string}
      aspect_ratio: {how: converted, by: dimensions, type: string}
      resolution: {how: converted, by: dimensions, type: string}
      width: {how: converted, by: dimensions, to: image_width, type: integer}
      height: {how: converted, by: dimensions, to: height, type: integer}
"""


@dataclass(frozen=True)
class Asked:
    """An answer, and what was sent for it."""

    answer: httpx2.Response
    sent: tuple[int, int]
    made: tuple[int, int]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("sides")
    for name in ("schemas", "models"):
        (folder / name).mkdir()
    (folder / "schemas" / "sides.json").write_text(json.dumps(SCHEMA))
    (folder / "models" / "sides.yaml").write_text(MODEL)
    with (
        SandboxServer(schema_dirs=[folder / "schemas"]) as sandbox,
        Gate(sandbox, folder / "gate", models_dir=str(folder / "models")) as gate,
    ):
        yield gate


def ask(gate: Gate, **words: str) -> httpx2.Response:
    return gate.http.post(EDITS, data={"model": "sides", "prompt": "night", **words}, files={"image": PICTURE})


def asked(gate: Gate, **words: str) -> Asked:
    gate.sandbox.reset()
    answer = ask(gate, **words)
    assert answer.status_code == 200, answer.text
    [job] = gate.sandbox.jobs()
    picture = Image.open(io.BytesIO(gate.http.get(answer.json()["data"][0]["url"]).content))
    return Asked(answer, (job["payload"]["image_width"], job["payload"]["height"]), picture.size)


@pytest.mark.parametrize(
    ("words", "sent", "made"),
    [
        ({"size": "1024x768"}, (1024, 768), (1024, 768)),
        ({"size": "1000x701"}, (1000, 704), (1000, 701)),
        ({"width": "1000", "height": "701"}, (1000, 704), (1000, 701)),
        ({"image_width": "640", "height": "480"}, (640, 480), (640, 480)),
        ({"width": "3000", "height": "1500"}, (2048, 1024), (3000, 1500)),
        ({"aspect_ratio": "1:2", "resolution": "0.25"}, (360, 720), (360, 720)),
        ({"width": "512", "height": "512", "aspect_ratio": "16:9"}, (512, 512), (512, 512)),
        ({"size": "auto", "width": "512", "height": "256"}, (512, 256), (512, 256)),
    ],
)
def test_each_way_to_say_a_size(gate: Gate, words: Json, sent: tuple[int, int], made: tuple[int, int]) -> None:
    found = asked(gate, **words)
    assert (found.sent, found.made) == (sent, made)
    told = {one["name"]: one for one in found.answer.json()["metadata"]["parameters"]}
    assert set(words) - {"image_width"} <= set(told)  # which is the row `width`, in the provider's own word
    if "width" in words and "aspect_ratio" in words:
        assert (told["aspect_ratio"]["how"], told["width"]["how"]) == ("ignored", "converted")


def test_without_a_size_it_is_the_pictures_shape_and_said(gate: Gate) -> None:
    found = asked(gate)
    [note] = [one for one in found.answer.json()["metadata"]["parameters"] if one["name"] == "size"]
    assert f"image_width {found.sent[0]}, height {found.sent[1]}" in note["why"]


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ({"width": "512"}, "width"),
        ({"height": "512"}, "height"),
        ({"image_width": "512"}, "image_width"),
        ({"width": "512", "height": "512", "size": "512x512"}, "width"),
        ({"width": "512", "height": "0"}, "height"),
        ({"width": "-1", "height": "512"}, "width"),
        ({"width": "wide", "height": "512"}, "width"),
        ({"width": "20000", "height": "512"}, "width"),
        ({"width": "512", "height": "20000"}, "height"),
        ({"width": "512", "height": "512", "image_width": "512"}, "image_width"),
    ],
)
def test_what_cannot_be_is_refused_by_name(gate: Gate, words: Json, param: str) -> None:
    gate.sandbox.reset()
    answer = ask(gate, **words)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert gate.sandbox.jobs() == []


@pytest.mark.parametrize("field", ["image_width", "height"])
@pytest.mark.parametrize(
    ("words", "param"),
    [
        ({"size": "1000x701"}, "size"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio"),
        ({"width": "512", "height": "512"}, ""),
    ],
)
def test_what_the_provider_refuses_is_named_in_the_callers_word(
    gate: Gate, words: Json, param: str, field: str
) -> None:
    gate.sandbox.reset()
    detail = [{"loc": ["body", field], "msg": "Too odd", "type": "value_error"}]
    gate.sandbox.script({"on": "submit", "fault": "http", "args": {"status": 422, "body": {"detail": detail}}})
    answer = ask(gate, **words)
    own = {"image_width": "width", "height": "height"}[field]
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param or own), answer.text
    gate.sandbox.clear_script()


def test_numbers_in_json_are_as_good_as_a_forms_text(gate: Gate) -> None:
    plan = gate.http.post(
        f"{EDITS}?dryRun=true",
        json={"model": "sides", "prompt": "x", "width": 640, "height": 480, "image": "data:image/png;base64,"},
    )
    assert plan.status_code == 400  # the picture is empty, the numbers are fine
    assert plan.json()["error"]["param"] == "image"
