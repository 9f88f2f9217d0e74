"""`imagegate models import`, as a person types it; and a gateway that runs its drafts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import imagegate
from tests.fakes.sandbox import SandboxServer
from tests.fakes.web import WebServer
from tests.faults.gate import Gate
from tests.importing.documents import DOCUMENTS
from tests.importing.test_drafts import file_of

BANANA = "fal-ai/nano-banana-pro/edit"


def test_a_saved_document_becomes_a_draft_on_standard_output(tmp_path: Path) -> None:
    saved = tmp_path / "openapi.json"
    saved.write_text(json.dumps(DOCUMENTS[BANANA]))
    expected = file_of(BANANA).read_text("utf-8")
    # whoever asked the network here would be told that there is none
    done = imagegate("models", "import", "--from", str(saved), BANANA, HTTPS_PROXY="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert f"a draft; {expected.count('# review:')} places to review" in done.stderr
    (tmp_path / "draft.yaml").write_text(done.stdout)
    assert imagegate("models", "check", str(tmp_path / "draft.yaml")).returncode == 0


def test_a_published_document_is_fetched_when_its_address_is_named() -> None:
    with WebServer({"/openapi.json": json.dumps(DOCUMENTS[BANANA]).encode()}) as web:
        done = imagegate("models", "import", f"{web.url}/openapi.json", FAL_KEY="id:secret")
        assert done.stdout == file_of(BANANA).read_text("utf-8")
        assert imagegate("models", "import", f"{web.url}/missing").returncode == 2
        moved = imagegate("models", "import", f"{web.url}/redirect?to={web.url}/openapi.json")
        assert "302 instead of a document" in moved.stderr
        assert "more than 16 MiB" in imagegate("models", "import", f"{web.url}/huge").stderr
        assert "is not JSON" in imagegate("models", "import", f"{web.url}/html").stderr
    assert [path for path, _ in web.asked].count("/openapi.json") == 1
    assert not any("authorization" in headers or "secret" in str(headers) for _, headers in web.asked)


def test_an_endpoint_is_looked_up_where_fal_publishes_it() -> None:
    done = imagegate("models", "import", "fal-ai/flux/dev", HTTPS_PROXY="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "https://fal.ai/api/openapi/queue/openapi.json?endpoint_id=fal-ai/flux/dev: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["flux"], "is no endpoint"),
        (["fal-ai/flux/dev", "--from", "SAVED"], f"is about {BANANA}, not fal-ai/flux/dev"),
        ([BANANA, "--from", "/nowhere.json"], "/nowhere.json: No such file"),
        (["--provider", "nobody", "x/y"], "no importer for 'nobody' (installed: fal"),
    ],
)
def test_what_cannot_be_imported_is_one_clear_line(tmp_path: Path, arguments: list[str], reason: str) -> None:
    saved = tmp_path / "openapi.json"
    saved.write_text(json.dumps(DOCUMENTS[BANANA]))
    done = imagegate("models", "import", *(str(saved) if word == "SAVED" else word for word in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_drafts_edit_pictures(tmp_path: Path) -> None:
    """Against the sandbox, which validates by schemas of its own."""
    endpoints = [
        "fal-ai/qwen-image-edit-2509",
        "fal-ai/qwen-image-edit/inpaint",
        BANANA,
        "fal-ai/flux-pro/kontext",
        "fal-ai/bytedance/seedream/v4/edit",
        "fal-ai/gpt-image-1.5/edit",
    ]
    folder = tmp_path / "models"
    folder.mkdir()
    for endpoint in endpoints:
        (folder / file_of(endpoint).name).write_text(file_of(endpoint).read_text("utf-8"), encoding="utf-8")
    with SandboxServer() as sandbox, Gate(sandbox, tmp_path / "gate", models_dir=str(folder)) as gate:
        for endpoint in endpoints:
            mask = MASK if "inpaint" in endpoint else None
            answer = gate.ask("sepia", model=endpoint, size="256x192", output_format="webp", mask=mask)
            assert answer.status_code == 200, answer.text
            metadata = answer.json()["metadata"]
            assert (metadata["executed_model"], metadata["cost"]) == (f"fal/{endpoint}", None)
            assert answer.json()["size"] == "256x192"


def _mask() -> bytes:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGBA", (64, 48), (0, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


MASK = _mask()
