"""Input -> plan, as tables: cases/*.yaml. No network, no files but the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.catalogue.load import HERE, load_common, load_model
from app.errors import GatewayError
from app.media.blob import MemoryBlob
from app.params.engine import compile_plan
from app.types import Caller, EditRequest, Given, Plan, Slot
from providers.base import Media

CASES = Path(__file__).parent / "cases"
MODEL = load_model(HERE / "models" / "qwen-image-edit-2509.yaml", load_common())


class Heavy(MemoryBlob):
    """Says that it is large."""

    @property
    def size(self) -> int:
        return 60_000_000


def picture(mime: str, width: int, height: int, **facts: Any) -> Media:
    return Media(facts.pop("blob", MemoryBlob(b"bytes")), f"image/{mime}", width, height, "digest", **facts)


PICTURES = {
    "photo": picture("jpeg", 4000, 3000),
    "square": picture("png", 512, 512),
    "wide": picture("webp", 1600, 900),
    "panorama": picture("jpeg", 9000, 600),
    "turned": picture("jpeg", 3000, 4000, orientation=6),
    "alpha": picture("png", 512, 512, alpha=True, mode="RGBA"),
    "gif": picture("gif", 512, 512, mode="P"),
    "avif": picture("avif", 512, 512),
    "animated": picture("webp", 512, 512, frames=12),
    "cmyk": picture("jpeg", 512, 512, mode="CMYK"),
    "deep": picture("png", 512, 512, mode="I;16"),
    "linked": picture("jpeg", 512, 512, url="https://example.com/a.jpg"),
    "giant": picture("png", 10_000, 4_001),
    "heavy": picture("png", 512, 512, blob=Heavy(b"")),
    "square_mask": picture("png", 512, 512, alpha=True, mode="RGBA"),
}


def cases() -> list[Any]:
    found = []
    for path in sorted(CASES.glob("*.yaml")):
        found += [
            pytest.param(case, id=f"{path.stem}: {case['name']}") for case in yaml.safe_load(path.read_text("utf-8"))
        ]
    return found


def compiled(case: dict[str, Any]) -> Plan:
    text = "given" in case
    params = {}
    for name, value in (case.get("given") or case["json"]).items():
        if name in ("image", "mask"):
            named = value if isinstance(value, list) else [value]
            params[name] = Given(name, tuple(PICTURES[one] for one in named))
        else:
            params[name] = Given(name, "x" * 32_001 if value == "LONG" else value, text)
    request = EditRequest(
        "req_1",
        "image-edit",
        MODEL.id,
        params,
        Caller("key", "name"),
        strict=case.get("strict", False),
        response_format=case.get("default_response_format", "url"),
    )
    return compile_plan(request, MODEL.id, MODEL.offers[0])


def plain(value: Any) -> Any:
    if isinstance(value, Slot):
        return f"#{value.index}"
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def test_tables_are_there() -> None:
    assert len(cases()) > 100


@pytest.mark.parametrize("case", cases())
def test_request_compiles_to(case: dict[str, Any]) -> None:
    known = {
        "name",
        "given",
        "json",
        "strict",
        "default_response_format",
        "error",
        "payloads",
        "asks",
        "sends",
        "lacks",
    }
    known |= {"delivery", "notes", "steps"}
    assert set(case) <= known, "a typo in the table would check nothing"
    if expected := case.get("error"):
        with pytest.raises(GatewayError) as caught:
            compiled(case)
        for name, value in expected.items():
            assert getattr(caught.value, name) == value
        return
    plan = compiled(case)
    payloads = [{name: plain(value) for name, value in call.payload.items()} for call in plan.calls]
    if "payloads" in case:
        assert payloads == case["payloads"]
    if "asks" in case:
        width, height = case["asks"]
        assert payloads[0]["image_size"] == {"width": width, "height": height}
        assert plan.size == (width, height)
    for name, value in case.get("sends", {}).items():
        assert payloads[0][name] == value
    for name in case.get("lacks", []):
        assert name not in payloads[0]
    for name, value in case.get("delivery", {}).items():
        assert plain(getattr(plan.delivery, name)) == value, name
    notes = {note.name: note.how for note in plan.notes}
    for name, how in case.get("notes", {}).items():
        assert notes.get(name) == how, name
    for step, expected_step in zip(plan.inputs, case.get("steps", []), strict=False):
        for name, value in expected_step.items():
            assert getattr(step, name) == value, name


@pytest.mark.parametrize("case", [case for case in cases() if "error" not in case.values[0]])
def test_every_given_parameter_has_a_note(case: dict[str, Any]) -> None:
    plan = compiled(case)
    noted = {note.spelled or note.name for note in plan.notes}
    assert set(case.get("given") or case["json"]) <= noted


def test_compiling_twice_gives_the_same_plan() -> None:
    case = {"given": {"prompt": "p", "image": "photo", "n": "3", "seed": "1", "size": "16:9", "output_format": "avif"}}
    assert compiled(case) == compiled(case)


def test_ignored_parameters_are_refused_in_strict_mode_by_the_callers_word() -> None:
    with pytest.raises(GatewayError, match="Unknown parameter: 'quality'"):
        compiled({"given": {"prompt": "p", "image": "square", "quality": "high"}, "strict": True})


def test_a_seed_that_moves_is_told() -> None:
    moving = compiled({"given": {"prompt": "p", "image": "square", "seed": "1", "n": "2"}})
    fixed = compiled({"given": {"prompt": "p", "image": "square", "seed": "1"}})
    assert [note.why for plan in (moving, fixed) for note in plan.notes if note.name == "seed"] == [
        "moves by one for each picture, starting over past its maximum",
        "",
    ]
