"""curl against a real gateway: the example that people paste, and what curl does by itself."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import KEY, MODEL, Json, Served
from tests.media.pictures import sample, saved

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(
    CURL is None and not os.environ.get("CI"), reason="NO CURL ON THIS MACHINE: the examples of the README are untested"
)


@dataclass(frozen=True)
class Said:
    status: int
    headers: dict[str, str]
    body: bytes
    trace: str  # the lines of -v

    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found


def curl(folder: Path, *arguments: str) -> Said:
    assert CURL is not None
    heads, body = folder / "heads", folder / "body"
    done = subprocess.run(
        [CURL, "--silent", "--verbose", "--noproxy", "*", "--max-time", "30", "-D", heads, "-o", body, *arguments],
        capture_output=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr.decode()
    last = heads.read_text().replace("\r\n", "\n").strip().split("\n\n")[-1].splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in last[1:])}
    return Said(int(last[0].split()[1]), headers, body.read_bytes(), done.stderr.decode("utf-8", "replace"))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A picture above the megabyte from which curl asks first whether it may send."""
    from random import Random

    path = tmp_path / "large.png"
    path.write_bytes(saved(Image.frombytes("RGB", (800, 600), Random(3).randbytes(800 * 600 * 3)), "png"))
    assert path.stat().st_size > 1_200_000
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.png"
    path.write_bytes(sample("png"))
    return path


def test_the_example_that_everybody_pastes(
    locked_gateway: Served, tmp_path: Path, photo_path: Path, new_jobs: Callable[[], list[Json]]
) -> None:
    said = curl(
        tmp_path,
        f"{locked_gateway.base_url}/images/edits",
        *("-H", f"Authorization: Bearer {KEY}"),
        *("-F", f"model={MODEL}"),
        *("-F", f"image=@{photo_path}"),
        *("-F", "prompt=Make it a snowy night"),
        *("-F", "size=1920x1080"),
        *("-F", "n=2"),
        *("-F", "seed=7"),
        *("-F", "cfg_scale=4"),
        *("-F", "output_format=webp"),
        *("-F", "output_compression=80"),
    )
    assert said.status == 200
    body = said.json()
    assert (body["size"], body["output_format"], len(body["data"])) == ("1920x1080", "webp", 2)
    assert said.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", said.headers["x-request-id"])
    assert said.headers["x-request-id"] == body["id"]
    assert said.headers["x-imagegate-provider"] == "fal"
    assert said.headers["x-imagegate-model"] == MODEL
    assert float(said.headers["x-imagegate-cost"]) == body["metadata"]["cost"]
    assert int(said.headers["openai-processing-ms"]) > 0
    assert [job["payload"]["seed"] for job in new_jobs()] in ([7, 8], [8, 7])
    fetched = curl(tmp_path, body["data"][0]["url"])
    assert fetched.headers["content-type"] == "image/webp"
    picture = tmp_path / "picture.webp"
    picture.write_bytes(fetched.body)
    with Image.open(picture) as image:
        assert (image.format, image.size) == ("WEBP", (1920, 1080))


def test_it_asks_before_a_large_body_and_is_told_to_go_on(gateway: Served, tmp_path: Path, large: Path) -> None:
    said = curl(
        tmp_path,
        f"{gateway.base_url}/images/edits?dryRun=true",
        *("-H", "Expect: 100-continue", "-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image=@{large}"),
    )
    assert said.status == 200
    assert "HTTP/1.1 100 Continue" in said.trace
    assert said.json()["estimated"] is True


def test_it_asks_before_a_large_body_and_is_refused_instead(
    locked_gateway: Served, tmp_path: Path, large: Path
) -> None:
    said = curl(
        tmp_path,
        f"{locked_gateway.base_url}/images/edits",
        *("-H", "Expect: 100-continue", "-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image=@{large}"),
    )
    assert said.status == 401
    assert "100 Continue" not in said.trace
    assert said.json()["error"]["code"] == "invalid_api_key"


def test_a_body_in_chunks(gateway: Served, tmp_path: Path, large: Path) -> None:
    said = curl(
        tmp_path,
        f"{gateway.base_url}/images/edits?dryRun=true",
        *("-H", "Transfer-Encoding: chunked", "-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image=@{large}"),
    )
    assert said.status == 200
    assert "800x600" in said.json()["plan"]["calls"][0]["image_urls"][0]


def test_json(gateway: Served, tmp_path: Path, small: Path) -> None:
    body = tmp_path / "body.json"
    uri = "data:image/png;base64," + base64.b64encode(small.read_bytes()).decode()
    body.write_text(json.dumps({"model": MODEL, "prompt": "a", "images": [{"image_url": uri}], "size": "64x64"}))
    url = f"{gateway.base_url}/images/edits"
    said = curl(tmp_path, url, "-H", "Content-Type: application/json", "-d", f"@{body}")
    assert said.status == 200
    assert said.json()["size"] == "64x64"
    # without the header curl says that it is a form of another kind
    said = curl(tmp_path, url, "-d", f"@{body}")
    assert said.status == 415
    assert said.json()["error"]["code"] == "unsupported_content_type"


def test_pictures_that_are_no_file(gateway: Served, tmp_path: Path, small: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(small.read_bytes()).decode()
    written = tmp_path / "uri.txt"
    written.write_text(uri + "\n")
    url = f"{gateway.base_url}/images/edits?dryRun=true"
    for picture in (
        ("--form-string", f"image={uri}"),
        ("-F", f"image=@{written}"),
        ("-F", f"image=<{written}"),
        ("-F", f"image=<{small}"),
        ("-F", f"image[]=@{small};type=text/plain;filename=x.txt"),
    ):
        said = curl(tmp_path, url, "-F", f"model={MODEL}", "-F", "prompt=a", *picture)
        assert said.status == 200, said.body
        assert "64x48" in said.json()["plan"]["calls"][0]["image_urls"][0]


def test_a_link_in_a_file_is_read_as_a_link(gateway: Served, tmp_path: Path) -> None:
    link = tmp_path / "link.txt"
    link.write_text("https://127.0.0.1:1/a.png\n")
    url = f"{gateway.base_url}/images/edits?dryRun=true"
    said = curl(tmp_path, url, "-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image=@{link}")
    assert (said.status, said.json()["error"]["code"]) == (400, "invalid_image_url")


def test_a_forgotten_at_sign(gateway: Served, tmp_path: Path, small: Path) -> None:
    url = f"{gateway.base_url}/images/edits"
    said = curl(tmp_path, url, "-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image={small}")
    error = said.json()["error"]
    assert (said.status, error["code"], error["param"]) == (400, "invalid_type", "image")
    assert "a file" in error["message"]


def test_a_prompt_from_a_file_keeps_its_lines(gateway: Served, tmp_path: Path, small: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes("erste Zeile\r\nzweite: „schön“\r\n".encode())
    url = f"{gateway.base_url}/images/edits?dryRun=true"
    for prompt in (f"prompt=<{words}", f"prompt=@{words}"):
        said = curl(tmp_path, url, "-F", f"model={MODEL}", "-F", prompt, "-F", f"image=@{small}")
        assert said.json()["plan"]["calls"][0]["prompt"] == "erste Zeile\nzweite: „schön“\n"


def test_a_stream_of_events(gateway: Served, tmp_path: Path, small: Path) -> None:
    said = curl(
        tmp_path,
        f"{gateway.base_url}/images/edits",
        *("-N", "-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image=@{small}", "-F", "stream=true", "-F", "n=2"),
        *("-F", "size=64x64"),
    )
    assert said.status == 200
    assert said.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert said.body.count(b"event: image_edit.completed\ndata: {") == 2


def test_a_connection_is_used_again_after_a_refusal(gateway: Served, tmp_path: Path, small: Path) -> None:
    good = ["-F", f"model={MODEL}", "-F", "prompt=a", "-F", f"image=@{small}"]
    url = f"{gateway.base_url}/images/edits?dryRun=true"
    said = curl(
        tmp_path, url, *good, "-F", "n=11", "--next", "--silent", "--verbose", "-o", str(tmp_path / "two"), url, *good
    )
    assert said.trace.count("Connected to") == 1
    assert json.loads((tmp_path / "two").read_bytes())["estimated"] is True
