"""docs/adding-a-model.md, followed step by step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from providers.fal_sandbox.options import Options
from providers.fal_sandbox.replies import Reply
from providers.fal_sandbox.schema import load_endpoints
from tests.cli.test_commands import imagegate
from tests.conftest import Served, StartGateway

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text("utf-8")
HEAD, ROWS, SIDES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ID = "flux-kontext-multi"
SAMPLE = ROOT / "app" / "samples" / "coffee.jpg"


@pytest.fixture(scope="module")
def draft() -> str:
    done = imagegate(
        "models", "import", "fal-ai/flux-pro/kontext/multi", "--from", str(ROOT / "examples" / "model" / "openapi.json")
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def models(draft: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file as it is after the review."""
    folder = tmp_path_factory.mktemp("models")
    (folder / f"{ID}.yaml").write_text(HEAD + draft.partition("    params:\n")[2])
    return folder


def test_the_draft_asks_what_the_page_answers(draft: str) -> None:
    reviews = re.findall(r"# review: (.*)", draft)
    table = PAGE.partition("| review |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(reviews) == len(table) == 4
    for review, word in zip(reviews, ("who made the model", "price", "images", "seed"), strict=True):
        assert review.startswith(word)


def test_the_file_is_fine(models: Path) -> None:
    done = imagegate("models", "check", str(models / f"{ID}.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "fine" in done.stdout


def test_the_rows_of_the_page_are_rows(models: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text(HEAD + ROWS)
    done = imagegate("models", "check", str(tmp_path / "rows.yaml"))
    assert done.returncode == 0, done.stderr


def test_so_are_those_of_a_size_that_is_two_fields(tmp_path: Path) -> None:
    needed = "".join(
        line for line in ROWS.splitlines(keepends=True) if line.split(":")[0].strip() in ("prompt", "image")
    )
    head = HEAD.partition("    sizing:")[0] + "    sizing: {write: sides, multiple_of: 8}\n    params:\n"
    (tmp_path / "sides.yaml").write_text(head + needed + SIDES)
    done = imagegate("models", "check", str(tmp_path / "sides.yaml"))
    assert done.returncode == 0, done.stderr


def test_the_endpoint_that_the_page_describes_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "with-references.json").write_text(text)
    [folder] = Options.from_environment({"FAL_SANDBOX_SCHEMAS": str(tmp_path)}).schema_dirs
    endpoint = load_endpoints([folder])["someone/with-references"]
    sent = {"prompt": "x", "image_url": "https://example.org/a.png", "image_urls": ["https://example.org/b.png"]}
    assert not isinstance(endpoint.check(sent), Reply)
    assert isinstance(endpoint.check({**sent, "image_urls": "https://example.org/b.png"}), Reply)


def test_a_broken_file_is_told_with_its_line(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text((models / f"{ID}.yaml").read_text().replace("to: image_urls", "too: image_urls"))
    done = imagegate("models", "check", str(broken))
    assert done.returncode == 1
    assert re.search(r"broken\.yaml:\d+: flux-kontext-multi: .*row image", done.stderr)


def test_the_plan_is_printed(models: Path) -> None:
    done = imagegate(
        *("plan", ID, "prompt=both at one table", f"image=@{SAMPLE}", f"image=@{SAMPLE}", "size=1920x1080", "n=2"),
        IMAGEGATE_MODELS_DIR=str(models),
    )
    assert done.returncode == 0, done.stderr
    plan, _, price = done.stdout.rpartition("price: ")
    found = json.loads(plan)
    assert {"calls", "parameters", "delivery"} <= set(found)
    assert [call["aspect_ratio"] for call in found["calls"]] == ["16:9", "16:9"]
    assert price == "0.08 USD\n"


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway, models: Path) -> Served:
    return start_gateway(IMAGEGATE_MODELS_DIR=str(models))


def test_it_runs_and_is_seen_everywhere(gateway: Served) -> None:
    with gateway.client() as client:
        pictures = [SAMPLE.read_bytes(), SAMPLE.read_bytes()]
        answer = client.images.edit(model="kontext-multi", image=pictures, prompt="both", size="1920x1080")
        assert answer.size == "1920x1080"
        assert ID in {model.id for model in client.models.list()}
    metadata = (answer.model_extra or {})["metadata"]
    assert (metadata["executed_model"], metadata["cost"]) == ("fal/fal-ai/flux-pro/kontext/multi", 0.04)
    assert gateway.get(f"/models/{ID}").status_code == 200
