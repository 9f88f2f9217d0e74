"""Drafts of model files: each loads, says what is to be reviewed, and sends only what its document allows."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from app.catalogue.files import ModelFiles
from app.catalogue.load import HERE, load_common, load_model
from app.catalogue.schema import Model, field_of
from app.errors import GatewayError
from app.media.blob import MemoryBlob
from app.models import model_files
from app.params.engine import compile_plan
from app.registry import provider_classes
from app.types import Caller, EditRequest, Given, Slot
from providers.base import Media
from providers.fal_import import IMPORTER
from tests.importing.documents import DOCUMENTS, FLUX_DEV, QWEN_2509, SEEDREAM, STRANGE, Json

DRAFTS = Path(__file__).parent / "drafts"
PHOTO = Media(MemoryBlob(b""), "image/jpeg", 1500, 1000, "digest")
MASK = Media(MemoryBlob(b""), "image/png", 1500, 1000, "digest", alpha=True, mode="RGBA")


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return model_files(provider_classes())


def file_of(endpoint: str) -> Path:
    return DRAFTS / f"{endpoint.replace('/', '_')}.yaml"


@pytest.mark.parametrize("endpoint", DOCUMENTS)
def test_a_document_becomes_this_draft_each_time(endpoint: str) -> None:
    """Look at what has changed before you write the file anew."""
    document = json.loads(json.dumps(DOCUMENTS[endpoint]))
    assert IMPORTER.draft(document) == file_of(endpoint).read_text("utf-8")
    assert IMPORTER.draft(document, endpoint) == IMPORTER.draft(document)


def test_no_draft_is_left_over() -> None:
    assert {path.name for path in DRAFTS.iterdir()} == {file_of(endpoint).name for endpoint in DOCUMENTS}


REQUESTS: dict[str, Json] = {
    "nothing": {},
    "pixels": {"size": "1024x1024"},
    "odd pixels": {"size": "1000x700"},
    "a shape": {"size": "16:9"},
    "auto": {"size": "auto"},
    "a scale": {"resolution": "2K"},
    "a shape and a scale": {"aspect_ratio": "2:3", "resolution": "1K"},
    "three": {"n": "3", "seed": "7"},
    "webp": {"output_format": "webp"},
    "knobs": {"cfg_scale": "4", "num_inference_steps": "20", "negative_prompt": "fog", "seed": "0"},
    "switches": {"sync_mode": "true", "enable_safety_checker": "false", "quality": "low"},
}


@pytest.mark.parametrize("words", REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.parametrize("endpoint", DOCUMENTS)
def test_what_a_draft_sends_is_what_its_document_allows(files: ModelFiles, endpoint: str, words: Json) -> None:
    model, schema = files.model(file_of(endpoint)), input_of(DOCUMENTS[endpoint])
    rows = model.offers[0].params
    # what has no row would pass through as it is, whatever it is
    given = {"prompt": "make it night", **{name: value for name, value in words.items() if name in rows}}
    needed = [name for name, row in rows.items() if row.required and row.type not in ("image", "images")]
    given |= {name: rows[name].default for name in needed if name not in given}
    params = {name: Given(name, value, text=isinstance(value, str)) for name, value in given.items()}
    if "image-edit" in model.modes:
        params["image"] = Given("image", (PHOTO,))
    if rows["mask"].required:
        params["mask"] = Given("mask", (MASK,))
    request = EditRequest("req_1", model.modes[0], model.id, params, Caller("key", "name"))
    try:
        plan = compile_plan(request, model.id, model.offers[0])
    except GatewayError as refused:
        pytest.fail(f"{refused.param}: {refused}")
    assert len(plan.calls) == int(words.get("n", 1))
    if "size" in words and "x" in words["size"]:
        assert plan.delivery.exact == tuple(map(int, words["size"].split("x")))
    for call in plan.calls:
        payload = without_slots(call.payload)
        assert set(payload) <= set(schema["properties"])
        validate(DOCUMENTS[endpoint], payload)


def input_of(document: Json) -> Json:
    schemas = document["components"]["schemas"]
    return next(schema for name, schema in schemas.items() if name.endswith("Input"))


def without_slots(value: Any) -> Any:
    match value:
        case Slot():
            return "https://example.com/a.png"
        case Mapping():
            return {key: without_slots(one) for key, one in value.items()}
        case list() | tuple():
            return [without_slots(one) for one in value]
    return value


def validate(document: Json, payload: Json) -> None:
    schema = copy.deepcopy(input_of(document)) | {"components": document["components"]}
    for one in schema["properties"].values():
        if one.get("exclusiveMinimum") is True:  # 3.0's way to write it
            one["exclusiveMinimum"] = one.pop("minimum")
    jsonschema_rs.validator_for(schema).validate(payload)


def verdicts(model: Model) -> dict[str, tuple[str, str, str | None]]:
    return {name: (row.how, row.type, field_of(row)) for name, row in model.offers[0].params.items()}


def test_the_draft_of_a_model_that_we_have_agrees_with_our_file(files: ModelFiles) -> None:
    ours = load_model(HERE / "models" / "qwen-image-edit-2509.yaml", load_common())
    draft = files.model(file_of("fal-ai/qwen-image-edit-2509"))
    assert verdicts(draft) == verdicts(ours)
    mine, yours = draft.offers[0], ours.offers[0]
    for name, row in yours.params.items():
        other = mine.params[name]
        assert (row.min, row.max, row.values, row.aliases) == (other.min, other.max, other.values, other.aliases)
    assert mine.accepts.images == yours.accepts.images
    assert mine.sizing is not None
    assert yours.sizing is not None
    assert mine.sizing == yours.sizing.model_copy(update={"tiers": {}})
    assert mine.price is None


@pytest.mark.parametrize("endpoint", DOCUMENTS)
def test_every_field_is_a_row_a_size_or_a_review(files: ModelFiles, endpoint: str) -> None:
    text, document = file_of(endpoint).read_text("utf-8"), DOCUMENTS[endpoint]
    rows = yaml.safe_load(text)["offers"][0]["params"]
    reached = {str(name) for name in rows} | {row["to"] for row in rows.values() if "to" in row}
    for name in input_of(document)["properties"]:
        assert name in reached or f"field {name} " in text, name


def test_what_is_not_known_is_said_with_the_documents_own_facts() -> None:
    text = file_of("someone/strange-model").read_text("utf-8")
    for word in ("wobble", "count", "true", "reference_image_url", "control", "anything"):
        lines = text.partition(f"      {word}:\n" if word != "true" else '      "true":\n')[0].splitlines()
        assert "# review: not known to the importer" in lines[-1], word
    assert "number; from -0.5 to 0.5; default 1e-07; required" in text
    assert "webhook_url cannot be reached" in text
    known = file_of("fal-ai/qwen-image-edit-2509").read_text("utf-8")
    assert "not known to the importer" not in known
    assert "price: unknown" in known


def test_a_price_is_drafted_where_the_document_names_one() -> None:
    def drafted(unit: str, amount: Any) -> Any:
        priced = {"models": [{"endpoint_id": "fal-ai/flux/dev", "metadata": META, "openapi": FLUX_DEV}]}
        prices = [{"endpoint_id": "fal-ai/flux/dev", "unit_price": amount, "unit": unit, "currency": "USD"}]
        return IMPORTER.draft({**priced, "prices": prices})

    megapixel = yaml.safe_load(drafted("megapixels", 0.025))
    assert megapixel["offers"][0]["price"]["per"] == "megapixel"
    assert megapixel["offers"][0]["price"]["amount"] == "0.025"
    assert (megapixel["name"], megapixel["released"]) == ("FLUX.1 [dev]", 1722470400)
    assert yaml.safe_load(drafted("images", "0.04"))["offers"][0]["price"]["per"] == "image"
    for text in (drafted("seconds", 0.001), drafted("images", "free")):
        assert "price" not in yaml.safe_load(text)["offers"][0]
        assert "review: price:" in text


META = {"display_name": "FLUX.1 [dev]", "category": "text-to-image", "date": "2024-08-01T00:00:00Z"}


def test_one_of_several_documents_is_picked_by_its_endpoint() -> None:
    several = [{"endpoint_id": id, "openapi": document} for id, document in DOCUMENTS.items()]
    assert IMPORTER.draft(several, "fal-ai/flux/dev") == IMPORTER.draft(FLUX_DEV)
    with pytest.raises(ValueError, match="is about fal-ai/bytedance"):
        IMPORTER.draft(several)


def broken(change: str) -> Any:
    document = copy.deepcopy(QWEN_2509)
    match change:
        case "no prompt":
            del input_of(document)["properties"]["prompt"]
        case "no body":
            document["paths"] = {path: one for path, one in document["paths"].items() if "/requests/" in path}
        case "a dangling reference":
            del document["components"]["schemas"]["ImageSize"]
        case "a circle":
            document["components"]["schemas"]["ImageSize"] = {"$ref": "#/components/schemas/ImageSize"}
    return document


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "no OpenAPI document"),
        ("text", "no OpenAPI document"),
        ({"openapi": "3.0.4", "paths": 5}, "no OpenAPI document"),
        ({"openapi": "3.0.4", "paths": {}}, "does not say which endpoint"),
        (broken("no prompt"), "has no field `prompt`"),
        (broken("no body"), "no POST with an object"),
        (broken("a dangling reference"), "#/components/schemas/ImageSize: there is nothing"),
        (broken("a circle"), "circle"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_its_reason(document: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        IMPORTER.draft(document)


@pytest.mark.parametrize("endpoint", ["", "flux", "../etc", "fal-ai/x?y=z", "fal-ai/ x", "https://fal.ai/x"])
def test_what_is_no_endpoint_is_not_asked_for(endpoint: str) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        IMPORTER.url(endpoint)


@pytest.mark.parametrize("document", [SEEDREAM, STRANGE])
def test_a_draft_loads_whatever_a_description_holds(files: ModelFiles, tmp_path: Path, document: Json) -> None:
    for number, text in enumerate(["a: b # c\n- d", "'\"\\", "\x00\x85\u2028é😀", "{{%}}", "&a *b !c"]):
        hostile = copy.deepcopy(document)
        for one in input_of(hostile)["properties"].values():
            one["description"] = text
        path = tmp_path / f"{number}.yaml"
        path.write_text(IMPORTER.draft(hostile), encoding="utf-8")
        files.model(path)
