"""The gateway's own OpenAPI document is true: every row is in it, and no request that it allows breaks its promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.catalogue.load import HERE, load_common, load_model
from tests.conftest import Served

QWEN = load_model(HERE / "models" / "qwen-image-edit-2509.yaml", load_common())
PROMISES = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def document(gateway: Served) -> dict[str, Any]:
    answer = gateway.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def body_of(document: dict[str, Any], kind: str) -> dict[str, Any]:
    operation = document["paths"]["/openai/v1/images/edits"]["post"]
    schema: dict[str, Any] = operation["requestBody"]["content"][kind]["schema"]
    return schema


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/json"])
def test_both_bodies_have_every_parameter_with_what_becomes_of_it(document: dict[str, Any], kind: str) -> None:
    fields = body_of(document, kind)["properties"]
    for name, row in QWEN.offers[0].params.items():
        if row.how == "rejected":
            assert name not in fields
        elif name != "image":
            assert fields[name]["x-imagegate"]["fal/qwen-image-edit-2509"] == row.how
            readings = fields[name].get("anyOf", [fields[name]])  # models differ
            assert (row.min, list(row.values)) in [(one.get("minimum"), one.get("enum", [])) for one in readings]


def test_pictures_are_files_in_a_form_and_links_in_json(document: dict[str, Any]) -> None:
    form = body_of(document, "multipart/form-data")["properties"]
    assert form["image"]["items"] == {"type": "string", "format": "binary"}
    assert {"image", "images", "image_url", "image_base64"} <= set(body_of(document, "application/json")["properties"])


def test_no_route_promises_fastapis_own_errors(document: dict[str, Any]) -> None:
    assert "422" not in json.dumps(
        [list(op["responses"]) for path in document["paths"].values() for op in path.values()]
    )
    assert "HTTPValidationError" not in json.dumps(document)


def test_requests_made_from_the_document_meet_its_promises(gateway: Served, photo: bytes) -> None:
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy()

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=strategy)
        def run(case: Any) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(base_url=gateway.url, checks=PROMISES, timeout=20)

        run()
    assert tried > 200
