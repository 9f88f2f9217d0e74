"""Every model of the catalogue against the schema that the sandbox has of its endpoint, and through a gateway.

A new file in app/catalogue/models is covered by these as it is. The schemas (providers/fal_sandbox/schemas) were
written from fal's published documents by themselves: a row that says otherwise fails here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.catalogue.describe import overview
from app.catalogue.load import HERE, load_common, load_model
from app.catalogue.schema import Converted, Emulated, Model, Offer, Passthrough, Renamed, Row, field_of
from app.errors import InvalidSize, TooManyImages
from app.media.blob import MemoryBlob
from app.params.engine import compile_plan
from app.types import Caller, EditRequest, Given, Plan, Slot
from providers.base import Media
from providers.fal_sandbox.schema import Endpoint, load_endpoints
from tests.conftest import Json, Served

ROOT = Path(__file__).parents[2]
FILES = {path: load_model(path, load_common()) for path in sorted((HERE / "models").glob("*.yaml"))}
MODELS = list(FILES.values())
ENDPOINTS = load_endpoints()
OFFERS = [(model, offer) for model in MODELS for offer in model.offers]
AT_FAL = [pair for pair in OFFERS if pair[1].provider == "fal"]
PHOTO = Media(MemoryBlob(b"x"), "image/jpeg", 1200, 800, "photo")
MASK = Media(MemoryBlob(b"x"), "image/png", 1200, 800, "mask", alpha=True, mode="RGBA")

each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
at_fal = pytest.mark.parametrize(("model", "offer"), AT_FAL, ids=[f"{m.id}-{o.endpoint}" for m, o in AT_FAL])
Schema = Mapping[str, Any]


def compiled(model: Model, offer: Offer, pictures: int = 1, **given: Any) -> Plan:
    params = {"prompt": "a quiet harbour", **given}
    if "image" in offer.params and offer.params["image"].how != "rejected":
        params["image"] = (PHOTO,) * pictures
    if offer.params["mask"].required:
        params.setdefault("mask", (MASK,))
    mode = (offer.modes or model.modes)[0]
    words = {name: Given(name, value) for name, value in params.items()}
    return compile_plan(EditRequest("req_1", mode, model.id, words, Caller("key", "name")), model.id, offer)


def sent(value: Any) -> Any:
    """A payload as the adapter fills it in."""
    if isinstance(value, Slot):
        return "data:image/png;base64,"
    return [sent(item) for item in value] if isinstance(value, list) else value


def accepted(offer: Offer, plan: Plan) -> None:
    endpoint = ENDPOINTS[offer.endpoint]
    for call in plan.calls:
        payload = {name: sent(value) for name, value in call.payload.items()}
        assert set(payload) <= set(endpoint.model.model_fields), "the schema would let it pass, and the model ignore it"
        answer = endpoint.check(payload)
        assert isinstance(answer, dict), answer


def refusal(model: Model, offer: Offer, **given: Any) -> str | None:
    """The word that is refused as a size that cannot be made; None: it is accepted."""
    try:
        plan = compiled(model, offer, **given)
    except InvalidSize as error:
        return error.param
    accepted(offer, plan)
    return None


def properties(endpoint: Endpoint) -> dict[str, Schema]:
    """The fields as JSON schema, one that may be null as what it is otherwise."""
    found = {}
    for name, field in endpoint.model.model_json_schema()["properties"].items():
        kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
        found[name] = {**field, **kinds[0]} if len(kinds) == 1 else field
    return found


def written(offer: Offer) -> Iterator[tuple[str, Row, Schema]]:
    """Rows that write one field of the schema."""
    fields = properties(ENDPOINTS[offer.endpoint])
    for name, row in offer.params.items():
        to = name if isinstance(row, Passthrough) else field_of(row)
        if to is not None and to in fields:
            yield name, row, fields[to]


def words_of(schema: Schema) -> set[str]:
    return set(schema.get("enum", ()))


def test_the_catalogue_is_there() -> None:
    assert len(AT_FAL) >= 12
    assert {mode for model in MODELS for mode in model.modes} == {"image-edit", "text-to-image"}


def test_files_are_called_as_their_models() -> None:
    assert [path.stem for path in FILES] == [model.id for model in MODELS]


@at_fal
def test_the_sandbox_has_a_schema_of_the_endpoint(model: Model, offer: Offer) -> None:
    assert offer.endpoint in ENDPOINTS


@at_fal
def test_the_common_parameters_are_accepted(model: Model, offer: Offer) -> None:
    common: Json = {"n": 3, "size": "1536x1024", "quality": "auto", "output_format": "webp", "output_compression": 80}
    common |= {"seed": 7, "response_format": "b64_json", "background": "auto", "user": "somebody"}
    if offer.params["mask"].how != "rejected":
        common["mask"] = (MASK,)
    plan = compiled(model, offer, **common)
    accepted(offer, plan)
    assert sum(call.count for call in plan.calls) == 3
    assert set(common) <= {note.name for note in plan.notes}, "nothing is dropped in silence"
    assert plan.delivery.exact == (1536, 1024)
    assert plan.delivery.format == "webp"
    seeds = [call.payload["seed"] for call in plan.calls if "seed" in call.payload]
    assert seeds == ([] if offer.params["seed"].how == "ignored" else [7, 8, 9])


@at_fal
@pytest.mark.parametrize("size", [None, "auto", "1:1", "16:9", "9:16", "3:2", "21:9", "1:2", "640x360", "2048x2048"])
def test_a_size_is_accepted_or_refused_by_name(model: Model, offer: Offer, size: str | None) -> None:
    refused = refusal(model, offer, **({} if size is None else {"size": size}))
    assert refused is None or (refused, size) == ("size", "21:9"), "only shapes that are beyond a model"


@at_fal
def test_whatever_pixels_are_asked_for_the_endpoint_makes_what_it_is_sent(model: Model, offer: Offer) -> None:
    sides = (48, 256, 500, 1024, 1360, 2000, 2048, 2896, 3072, 4096, 6000)
    for width in sides:
        for height in sides:
            refused = refusal(model, offer, size=f"{width}x{height}")
            assert refused is None or (refused == "size" and max(width / height, height / width) > 2)


@at_fal
def test_every_scale_and_word_for_a_size_is_accepted(model: Model, offer: Offer) -> None:
    assert offer.sizing is not None
    for scale in (*offer.sizing.tiers, "1K", "0.25", "4K"):
        accepted(offer, compiled(model, offer, resolution=scale))
        accepted(offer, compiled(model, offer, resolution=scale, aspect_ratio="9:16"))
    for word in offer.sizing.presets:
        accepted(offer, compiled(model, offer, size=word))
    for width, height in (*offer.sizing.ratios, *offer.sizing.sizes):
        accepted(offer, compiled(model, offer, aspect_ratio=f"{width}:{height}"))


@at_fal
def test_every_value_and_both_ends_of_every_bound_are_accepted(model: Model, offer: Offer) -> None:
    for name, row in offer.params.items():
        values: list[Any] = [*row.values, *(row.words if isinstance(row, Converted) else ())]
        if row.type in ("integer", "number") and row.how != "ignored":
            whole = row.type == "integer"
            values += [int(bound) if whole else bound for bound in (row.min, row.max) if bound is not None]
        if row.type == "boolean":
            values += [True, False]
        for value in values:
            accepted(offer, compiled(model, offer, **{name: value}))
    many = compiled(model, offer, pictures=offer.accepts.images)
    accepted(offer, many)


@at_fal
def test_bounds_words_and_defaults_are_the_schemas(model: Model, offer: Offer) -> None:
    for name, row, schema in written(offer):
        if isinstance(row, Passthrough | Renamed) and row.type not in ("image", "images"):
            assert set(row.values) == words_of(schema), name
            if row.type in ("integer", "number") and name != "seed":
                assert (row.min, row.max) == (schema.get("minimum"), schema.get("maximum")), name
            if "maxLength" in schema:
                assert row.max_length == schema["maxLength"], name
            kinds = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
            assert kinds[row.type] == schema["type"], name
            assert row.default == schema.get("default"), name
        if isinstance(row, Converted) and row.by == "words":
            assert {word for word in row.words.values() if word is not None} == words_of(schema), name
            assert row.default == schema["default"], name
        if isinstance(row, Emulated) and name == "output_format":
            assert (set(row.native), row.default) == (words_of(schema), schema["default"])
        if isinstance(row, Emulated) and name == "n":
            assert row.max_per_call == schema["maximum"]


@at_fal
def test_shapes_and_scales_are_the_schemas(model: Model, offer: Offer) -> None:
    sizing = offer.sizing
    assert sizing is not None
    for name, row, schema in written(offer):
        if not (isinstance(row, Converted) and row.by == "dimensions"):
            continue
        if sizing.write == "ratio" and name == "aspect_ratio":
            of_whole_numbers = {word for word in words_of(schema) if re.fullmatch(r"\d+:\d+", word)}
            assert {f"{width}:{height}" for width, height in sizing.ratios} == of_whole_numbers
        if sizing.write == "ratio" and name == "resolution":
            assert set(sizing.tiers) == words_of(schema)
        if sizing.write == "string":
            assert {f"{width}x{height}" for width, height in sizing.sizes} == words_of(schema) - {"auto"}


@at_fal
def test_no_field_of_the_schema_is_without_a_row(model: Model, offer: Offer) -> None:
    fields = ENDPOINTS[offer.endpoint].model.model_fields
    without = set(fields) - set(offer.words)
    assert {name for name in without if fields[name].annotation is not Any} == set(), "lists pass straight through"
    for name, row, _ in written(offer):
        if fields[field_of(row) or name].is_required():
            assert row.required, name


@at_fal
def test_the_number_of_pictures_is_the_endpoints(model: Model, offer: Offer) -> None:
    endpoint = ENDPOINTS[offer.endpoint]
    row = offer.params["image"]
    if endpoint.images_field is None:
        assert row.how == "rejected"
        return
    assert field_of(row) == endpoint.images_field
    one = properties(endpoint)[endpoint.images_field]["type"] == "string"
    assert (row.type, one) in (("image", True), ("images", False))
    if not one and endpoint.max_images is not None:
        assert offer.accepts.images == endpoint.max_images, "what is beyond it the endpoint drops in silence"
    with pytest.raises(TooManyImages):
        compiled(model, offer, pictures=offer.accepts.images + 1)


@at_fal
def test_a_mask_goes_to_the_endpoint_that_takes_one_and_is_laid_here_elsewhere(model: Model, offer: Offer) -> None:
    field, row = ENDPOINTS[offer.endpoint].mask_field, offer.params["mask"]
    if field is not None:
        assert field_of(row) == field
        plan = compiled(model, offer, mask=(MASK,))
        assert plan.delivery.mask is None
        assert plan.inputs[-1].media is MASK
        assert plan.inputs[-1].mask == offer.accepts.mask != "openai", "fal's toolkit drops transparency"
    else:
        assert row.how == ("rejected" if offer.params["image"].how == "rejected" else "emulated")


@pytest.mark.parametrize(("path", "model"), FILES.items(), ids=[model.id for model in MODELS])
def test_a_price_has_its_source_and_date_and_an_unknown_one_is_said_to_be(path: Path, model: Model) -> None:
    for offer in model.offers:
        if offer.price is not None:
            assert re.search(r"\b20\d\d-\d\d\b", offer.price.source)
    unknown = sum(offer.price is None for offer in model.offers)
    assert len(re.findall(r"price: (?:unknown|null +#.*unknown)", path.read_text("utf-8"))) == unknown


@each_model
def test_it_runs_through_a_gateway_at_the_price_that_it_said(
    model: Model, gateway: Served, new_jobs: Callable[[], list[Json]], picture: bytes
) -> None:
    offer = model.offers[0]
    mode = (offer.modes or model.modes)[0]
    path = f"/openai/v1/images/{'edits' if mode == 'image-edit' else 'generations'}"
    body: Json = {"model": model.id, "prompt": "a quiet harbour, warmer", "response_format": "b64_json", "seed": 3}
    if mode == "image-edit":
        body["image"] = data_uri(picture)
    if offer.params["mask"].required:
        body["mask"] = data_uri(picture)
    smallest = min(offer.sizing.tiers, key=offer.sizing.tiers.__getitem__, default=None) if offer.sizing else None
    if smallest is not None:
        body["resolution"] = smallest
    said = gateway.post(body, f"{path}?dryRun=true").json()
    answer = gateway.post(body, path)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert len(told["data"]) == 1
    assert told["metadata"]["executed_model"] == f"{offer.provider}/{offer.endpoint}"
    micros = said["total_cost_micros"]
    assert (told["metadata"]["cost"] is None) == (micros is None) == (offer.price is None)
    if micros is not None:
        assert round(told["metadata"]["cost"] * 1_000_000) == micros
    [job] = new_jobs()
    assert job["endpoint"] == offer.endpoint


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_the_page_of_models_is_the_catalogue() -> None:
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    table = re.search(r"<!-- table: imagegate models overview -->\n(.*?)<!-- end of table -->", page, re.DOTALL)
    assert table
    assert table[1].strip() == overview(MODELS).strip(), "run: imagegate models overview"
