"""A fal model that is not ours: one YAML file outside the repo, and it works, sizes, prices and all."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path

import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from app.children import Child
from app.demo import SAMPLE
from tests.fakes.sandbox import SandboxServer

BANANA = """
id: nano-banana
name: Nano Banana
creator: Google
modes: [image-edit]
offers:
  - provider: fal
    endpoint: fal-ai/nano-banana/edit
    price: {per: image, amount: "0.039"}
    accepts: {images: 8, formats: [png, jpeg, webp]}
    sizing:
      write: ratio
      ratios: ["21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"]
    params:
      prompt: {how: passthrough, type: string, required: true}
      image: {how: renamed, to: image_urls, type: images, required: true}
      seed: {how: passthrough, type: integer, min: 0}
      size: {how: converted, by: dimensions, type: string}
      aspect_ratio: {how: converted, by: dimensions, to: aspect_ratio, type: string}
      n: {how: emulated, to: num_images, type: integer, min: 1, max: 10, per_call: 4, max_per_call: 4}
      output_format: {how: emulated, to: output_format, type: string, values: [png, jpeg, jpg, gif, webp, avif],
                      native: [png, jpeg, webp]}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("outside")
    models = folder / "models"
    models.mkdir()
    (models / "nano-banana.yaml").write_text(BANANA)
    with SandboxServer(run_seconds=0) as sandbox:
        settings = sandbox.settings
        environ = {
            "IMAGEGATE_CONFIG": "",
            "IMAGEGATE_DATA_DIR": str(folder / "data"),
            "IMAGEGATE_MODELS_DIR": str(models),
            "IMAGEGATE_API_KEY": "",
            "FAL_KEY": settings["key"],
            "FAL_QUEUE_URL": settings["queue_url"],
            "FAL_RUN_URL": settings["run_url"],
            "FAL_REST_URL": settings["rest_url"],
            "FAL_MEDIA_ORIGINS": settings["media_origins"],
        }
        with Child(["serve", "--port", "0"], environ) as gateway:
            client = OpenAI(base_url=f"{gateway.said['url']}/openai/v1", api_key="x", max_retries=0)
            with client:
                yield sandbox, client


def opened(url: str | None) -> Image.Image:
    with urllib.request.urlopen(url or "", timeout=10) as response:
        return Image.open(io.BytesIO(response.read()))


def test_it_edits_with_its_own_words(running: tuple[SandboxServer, OpenAI]) -> None:
    sandbox, client = running
    sandbox.reset()
    answer = client.images.edit(
        model="nano-banana", image=Path(SAMPLE), prompt="sepia", n=6, size="16:9", extra_body={"seed": 3}
    )
    assert len(answer.data or []) == 6
    jobs = sorted((job["payload"] for job in sandbox.jobs()), key=lambda payload: payload["seed"])
    assert [(job["num_images"], job["seed"]) for job in jobs] == [(4, 3), (2, 7)]
    assert {job["aspect_ratio"] for job in jobs} == {"16:9"}
    assert "image_size" not in jobs[0]
    assert (answer.model_extra or {})["metadata"]["executed_model"] == "fal/fal-ai/nano-banana/edit"


def test_exact_pixels_are_fitted_from_the_nearest_shape(running: tuple[SandboxServer, OpenAI]) -> None:
    sandbox, client = running
    sandbox.reset()
    answer = client.images.edit(
        model="nano-banana", image=Path(SAMPLE), prompt="sepia", size="1000x600", output_format="webp"
    )
    assert answer.data
    picture = opened(answer.data[0].url)
    assert (picture.format, picture.size) == ("WEBP", (1000, 600))
    [job] = sandbox.jobs()
    assert job["payload"]["aspect_ratio"] == "16:9"  # 5:3 lies nearer to 16:9 than to 3:2
    assert job["payload"]["output_format"] == "png"


def test_what_it_lacks_passes_or_is_refused_by_its_own_rows(running: tuple[SandboxServer, OpenAI]) -> None:
    sandbox, client = running
    sandbox.reset()
    client.images.edit(
        model="nano-banana", image=Path(SAMPLE), prompt="warmer", extra_body={"limit_generations": "true"}
    )
    assert sandbox.jobs()[0]["payload"]["limit_generations"] == "true"
    with pytest.raises(BadRequestError) as caught:
        client.images.edit(model="nano-banana", image=[Path(SAMPLE)] * 9, prompt="x")
    assert (caught.value.code, caught.value.param) == ("too_many_images", "image")


def test_it_is_listed_beside_ours(running: tuple[SandboxServer, OpenAI]) -> None:
    _, client = running
    assert {"nano-banana", "qwen-image-edit-2509"} <= {model.id for model in client.models.list()}
