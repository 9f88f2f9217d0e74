"""A file that loads is a model that works; one that does not says file, place and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.catalogue.describe import describe, schema
from app.catalogue.files import SIZE_WORDS, ModelFiles
from app.catalogue.load import HERE, Catalogue, CatalogueError, load_catalogue, load_common, load_model, read_folder
from app.params.convert import CONVERTERS
from app.params.emulate import EMULATORS

QWEN = HERE / "models" / "qwen-image-edit-2509.yaml"


def load(folder: Path, *more: Path) -> Catalogue:
    return load_catalogue(
        [folder, *more], providers=frozenset({"fal"}), converters=frozenset(CONVERTERS), emulators=frozenset(EMULATORS)
    )


def changed(tmp_path: Path, change: Any) -> Path:
    raw = yaml.safe_load(QWEN.read_text("utf-8"))
    change(raw)
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return tmp_path


def test_built_in_models_load() -> None:
    catalogue = load(HERE / "models")
    assert len(catalogue) >= 1
    assert catalogue.find("qwen-image-edit-2509")


BREAKAGES: dict[str, tuple[Any, str]] = {
    "a typo in a row": (lambda raw: raw["offers"][0]["params"]["seed"].update(mx=3), "seed"),
    "renamed without to": (lambda raw: raw["offers"][0]["params"]["cfg_scale"].pop("to"), "cfg_scale"),
    "an unknown verdict": (lambda raw: raw["offers"][0]["params"]["seed"].update(how="magic"), "seed"),
    "an unknown converter": (
        lambda raw: raw["offers"][0]["params"]["size"].update(by="magic"),
        "row size: no converter",
    ),
    "an unknown emulator": (lambda raw: raw["offers"][0]["params"]["n"].update(by="magic"), "row n: no emulator"),
    "an unknown provider": (lambda raw: raw["offers"][0].update(provider="nobody"), "no provider 'nobody'"),
    "bounds upside down": (lambda raw: raw["offers"][0]["params"]["seed"].update(min=5, max=1), "seed"),
    "bounds on text": (lambda raw: raw["offers"][0]["params"]["prompt"].update(min=5), "prompt"),
    "a default outside values": (
        lambda raw: raw["offers"][0]["params"]["acceleration"].update(default="x"),
        "acceleration",
    ),
    "per_call above max_per_call": (lambda raw: raw["offers"][0]["params"]["n"].update(per_call=5), "per_call"),
    "dimensions without sizing": (lambda raw: raw["offers"][0].pop("sizing"), "sizing"),
    "sides upside down": (lambda raw: raw["offers"][0]["sizing"].update(min_side=4096), "min_side"),
    "an alias that is a name": (lambda raw: raw["offers"][0]["params"]["seed"].update(aliases=["prompt"]), "seed"),
    "n that the gateway does not count": (
        lambda raw: raw["offers"][0]["params"].update(n={"how": "renamed", "to": "num_images"}),
        "row n",
    ),
    "many per call without a field": (
        lambda raw: raw["offers"][0]["params"].update(n={"how": "emulated", "per_call": 4}),
        "row n",
    ),
    "a size without a type": (lambda raw: raw["offers"][0]["params"]["size"].pop("type"), "row size"),
    "a price for what no row sends": (
        lambda raw: raw["offers"][0]["price"].update(cases=[{"when": {"magic": "x"}, "amount": "1"}]),
        "no row sends 'magic'",
    ),
    "cases beside billed inputs": (
        lambda raw: raw["offers"][0]["price"].update(inputs=4, cases=[{"when": {"seed": "1"}, "amount": "1"}]),
        "price",
    ),
    "a first megapixel of pictures": (
        lambda raw: raw["offers"][0]["price"].update(per="image", first="1"),
        "first and inputs need per: megapixel",
    ),
    "a ratio that no row writes": (
        lambda raw: (
            raw["offers"][0]["sizing"].update(write="ratio", ratios=["1:1"]),
            raw["offers"][0]["params"]["aspect_ratio"].pop("to"),
        ),
        "row aspect_ratio: write: ratio needs it",
    ),
    "sides that no row writes": (
        lambda raw: raw["offers"][0]["sizing"].update(write="sides"),
        "row height: write: sides needs it",
    ),
    "a side without sides": (
        lambda raw: raw["offers"][0]["params"].update(
            width={"how": "converted", "by": "dimensions", "to": "width", "type": "integer"}
        ),
        "row width: converted by dimensions needs write: sides",
    ),
    "a size that goes nowhere": (
        lambda raw: [raw["offers"][0]["params"][name].pop("to") for name in ("size", "aspect_ratio", "resolution")],
        "the size's field",
    ),
    "a size for a model that takes none": (
        lambda raw: raw["offers"][0]["sizing"].update(write="none"),
        "row size: writes image_size",
    ),
    "words without words": (
        lambda raw: raw["offers"][0]["params"].update(quality={"how": "converted", "by": "words", "to": "effort"}),
        "row quality",
    ),
    "words for another converter": (
        lambda raw: raw["offers"][0]["params"]["size"].update(words={"a": "b"}),
        "row size",
    ),
    "no offers": (lambda raw: raw.update(offers=[]), "offers"),
    "a negative price": (lambda raw: raw["offers"][0]["price"].update(amount="-1"), "price"),
    "an id with a space": (lambda raw: raw.update(id="qwen edit"), "id"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_file_says_where_and_why(tmp_path: Path, name: str) -> None:
    change, place = BREAKAGES[name]
    with pytest.raises(CatalogueError) as caught:
        load(changed(tmp_path, change))
    assert "broken.yaml" in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "{a: [}", "just text", ""])
def test_what_is_no_model_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(CatalogueError, match=r"odd\.yaml"):
        load(tmp_path)


def test_an_operators_file_replaces_ours(tmp_path: Path) -> None:
    folder = changed(tmp_path, lambda raw: raw.update(name="Mine"))
    found = load(HERE / "models", folder).find("qwen-image-edit-2509")
    assert found
    assert found.model.name == "Mine"


def test_two_models_cannot_share_a_name(tmp_path: Path) -> None:
    folder = changed(tmp_path, lambda raw: raw.update(id="other"))
    with pytest.raises(CatalogueError, match="qwen-image-edit-plus-2509"):
        load(HERE / "models", folder)


@pytest.mark.parametrize(
    ("name", "forced"),
    [
        ("qwen-image-edit-2509", False),
        ("qwen-image-edit-plus-2509", False),
        ("fal/qwen-image-edit-2509", True),
        ("fal/qwen-image-edit-plus-2509", True),
        ("fal-ai/qwen-image-edit-2509", True),
        ("fal/fal-ai/qwen-image-edit-2509", True),
    ],
)
def test_names_resolve(name: str, forced: bool) -> None:
    found = load(HERE / "models").find(name)
    assert found
    assert found.model.id == "qwen-image-edit-2509"
    assert found.forced is forced


@pytest.mark.parametrize("name", ["", "qwen", "replicate/qwen-image-edit-2509", "fal/", "fal/nothing"])
def test_other_names_do_not(name: str) -> None:
    assert load(HERE / "models").find(name) is None


@pytest.mark.parametrize("name", ["qwen-image-edit", "Qwen-Image-Edit-2509", "fal/qwen-image-edit-2508"])
def test_a_near_miss_is_met_with_a_suggestion(name: str) -> None:
    assert str(load(HERE / "models").nearest(name)).startswith("qwen-image-edit-")


def test_a_models_row_replaces_the_common_row_whole() -> None:
    common = load_common()
    model = load_model(QWEN, common)
    row = model.offers[0].params["output_format"]
    assert row.how == "emulated"
    assert row.native == ("png", "jpeg")
    assert "output_compression" in model.offers[0].params


@pytest.mark.parametrize(
    ("own", "of_a_size"),
    [
        ({}, {"size", "aspect_ratio", "resolution"}),
        ({"size": {"how": "passthrough"}}, {"size"}),
        ({"size": {"how": "converted", "by": "dimensions", "type": "string"}}, {"size", "aspect_ratio", "resolution"}),
        ({"width": {"how": "passthrough", "type": "integer"}}, {"width"}),
        ({"dims": {"how": "passthrough", "aliases": ["size"]}}, set()),
        ({"dims": {"how": "renamed", "to": "resolution"}}, set()),
    ],
)
def test_the_common_rows_of_a_size_come_together_or_not_at_all(
    tmp_path: Path, own: dict[str, Any], of_a_size: set[str]
) -> None:
    def change(raw: Any) -> None:
        offer = raw["offers"][0]
        del offer["sizing"]
        offer["params"] = {"prompt": offer["params"]["prompt"], "image": offer["params"]["image"], **own}

    rows = load(changed(tmp_path, change)).find("qwen-image-edit-2509").offers[0].params
    assert rows.keys() & SIZE_WORDS == of_a_size


def test_what_the_outside_sees_comes_from_the_rows() -> None:
    model = load_model(QWEN, load_common())
    entry = describe(model, {"fal": "fal.ai"})
    assert {"id", "object", "created", "owned_by"} <= set(entry)
    assert entry["starting_price"] == 0.03
    assert entry["modes"] == ["image-edit"]
    rows = {row["name"]: row for row in schema(model, {})["providers"][0]["parameters"]}
    assert rows["cfg_scale"] == {
        "name": "cfg_scale",
        "how": "renamed",
        "type": "number",
        "required": False,
        "sent_as": "guidance_scale",
        "min": 0,
        "max": 20,
        "default": 4,
        "aliases": ["cfg"],
        "description": "How strictly the picture follows the prompt.",
    }
    assert set(rows) == set(model.offers[0].params)


def test_the_schema_tells_all_that_a_file_says(tmp_path: Path) -> None:
    def more(raw: Any) -> None:
        offer = raw["offers"][0]
        offer["constants"] = {"scheduler": "euler"}
        offer["params"]["strength"] = {
            "how": "passthrough", "type": "number", "min": 0, "max": 1.5, "along": {"start": 3}
        }  # fmt: skip

    [offer] = schema(load_model(changed(tmp_path, more) / "broken.yaml", load_common()), {})["providers"]
    rows = {row["name"]: row for row in offer["parameters"]}
    assert offer["constants"] == {"scheduler": "euler"}
    assert (offer["accepts"]["images"], offer["sizing"]["write"]) == (3, "object")
    assert (rows["strength"]["along"], rows["strength"]["max"]) == ({"start": 3}, 1.5)
    assert (rows["n"]["per_call"], rows["n"]["max_per_call"]) == (1, 4)
    assert rows["output_format"]["native"] == ["png", "jpeg"]
    assert isinstance(rows["n"]["max"], int)


def test_what_takes_no_pictures_has_no_limit_of_them() -> None:
    model = load_model(HERE / "models" / "qwen-image.yaml", load_common())
    [offer] = schema(model, {})["providers"]
    assert (offer["max_images"], offer["accepts"]) == (None, None)


def test_an_operators_alias_can_be_a_pattern_and_never_hides_a_model() -> None:
    models = list(load(HERE / "models"))
    catalogue = Catalogue(models, {"gpt-image-*": "qwen-image-edit-2509", "qwen*": "qwen-image-edit-plus-2509"})
    found = catalogue.find("gpt-image-1.5")
    assert found
    assert found.model.id == "qwen-image-edit-2509"
    assert catalogue.find("dall-e-3") is None
    with pytest.raises(CatalogueError, match="leads to 'nothing'"):
        Catalogue(models, {"gpt-image-1": "nothing"})


def test_two_files_with_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(QWEN.read_text("utf-8"), encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"b\.yaml: qwen-image-edit-2509: a\.yaml has this id"):
        load(tmp_path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = QWEN.read_text("utf-8") + "name: Another\n"
    (tmp_path / "twice.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError, match="'name' stands here twice"):
        load(tmp_path)


@pytest.mark.parametrize("nested", ["[" * 200_000, "- " * 200_000, "{a: " * 200_000])
def test_a_file_that_is_nested_too_deep_is_refused(tmp_path: Path, nested: str) -> None:
    (tmp_path / "deep.yaml").write_text(f"id: deep\nmodes:\n {nested}", encoding="utf-8")
    with pytest.raises(CatalogueError, match="nested too deep"):
        load(tmp_path)


def test_a_file_means_the_same_to_both_parsers(tmp_path: Path) -> None:
    """Long ones are read by PyYAML's own."""
    text = QWEN.read_text("utf-8") + "source: 16:9\n"
    found = []
    for name, more in (("short", ""), ("long", f"# {'-' * 100_000}\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "qwen.yaml").write_text(QWEN.read_text("utf-8") + more, encoding="utf-8")
        (tmp_path / name / "wrong.yaml").write_text(text + text + more, encoding="utf-8")
        (tmp_path / name / "broken.yaml").write_text("id: a\nname: b: c\n" + more, encoding="utf-8")
        models, problems = read_folder(ModelFiles(), tmp_path / name)
        found.append(([model for _, model in models.values()], [(one.file, one.line) for one in problems]))
    assert found[0] == found[1]
    assert len(found[0][0]) == 1
    assert len(found[0][1]) > 2


def test_a_models_rank_is_its_place_in_lists() -> None:
    ranked = [model.rank for model in load(HERE / "models")]
    assert ranked == sorted(ranked)
    assert len(set(ranked)) > 1
