"""fal's own client package, unpatched, against the sandbox: the protocol is right when its maker's client agrees.

The client forces https and knows its upload hosts by heart. So it runs in a process of its own, with fal's real host
names, behind a proxy on loopback that leads each of them to the sandbox, and trusts the certificate that the sandbox
shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.sandbox import SandboxServer
from tests.fakes.tls import write_certificate
from tests.fakes.tunnel import Tunnel

FAL_HOSTS = ["queue.fal.run", "fal.run", "rest.fal.ai", "v3.fal.media", "127.0.0.1"]
ENDPOINT = "fal-ai/qwen-image-edit-2509"


class Client:
    """Runs snippets of fal_client code; what a snippet puts into `out` comes back."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self._environ = environ
        self._folder = folder

    def run(self, code: str) -> dict[str, Any]:
        script = f"import fal_client, json, time, io\nout = {{}}\n{code}\nprint(json.dumps(out))\n"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PATH": os.environ["PATH"], **self._environ},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"), FAL_HOSTS)


@pytest.fixture(scope="module")
def sandbox(certificate: tuple[Path, Path, Path]) -> Iterator[SandboxServer]:
    with SandboxServer(certificate=certificate[0], private_key=certificate[1]) as server:
        yield server


@pytest.fixture
def tunnel(sandbox: SandboxServer) -> Iterator[Tunnel]:
    sandbox.reset()
    with Tunnel(sandbox.port) as tunnel:
        yield tunnel


@pytest.fixture
def client(tunnel: Tunnel, certificate: tuple[Path, Path, Path], tmp_path: Path) -> Client:
    environ = {"FAL_KEY": "id:secret", "HTTPS_PROXY": tunnel.url, "SSL_CERT_FILE": str(certificate[2])}
    return Client(environ, tmp_path)


PICTURE = """
from PIL import Image
picture = Image.linear_gradient("L").resize((320, 240)).convert("RGB")
picture.save("picture.png")
"""


def test_it_uploads_a_file_subscribes_and_reads_the_result(
    client: Client, sandbox: SandboxServer, tunnel: Tunnel
) -> None:
    out = client.run(
        PICTURE
        + f"""
out["url"] = fal_client.upload_file("picture.png")
seen = []
result = fal_client.subscribe(
    "{ENDPOINT}",
    {{"prompt": "make it night", "image_urls": [out["url"]], "seed": 7, "image_size": {{"width": 320, "height": 240}}}},
    with_logs=True,
    on_enqueue=lambda request_id: out.update(request_id=request_id),
    on_queue_update=lambda status: seen.append(type(status).__name__),
)
out["result"] = result
out["seen"] = seen
import httpx
file = httpx.get(result["images"][0]["url"])
out["type"] = file.headers["content-type"]
out["size"] = Image.open(io.BytesIO(file.content)).size
"""
    )
    assert out["url"].startswith("https://v3.fal.media/files/")
    assert out["result"]["seed"] == 7
    assert out["result"]["has_nsfw_concepts"] == [False]
    assert (out["type"], out["size"]) == ("image/png", [320, 240])
    assert out["seen"][-1] == "Completed"
    books = sandbox.books()
    assert [job["request_id"] for job in books["jobs"]] == [out["request_id"]]
    assert (books["uploads"], books["cdn_downloads"], books["key_leaks"]) == (1, 1, 0)
    assert set(tunnel.asked) == {"rest.fal.ai", "v3.fal.media", "queue.fal.run"}


def test_it_uploads_through_a_ticket_when_asked_for_the_other_repository(
    client: Client, sandbox: SandboxServer
) -> None:
    out = client.run(PICTURE + 'out["url"] = fal_client.upload_file("picture.png", repository="fal")')
    assert out["url"].startswith("https://v3.fal.media/files/")
    books = sandbox.books()
    assert books["uploads"] == 1
    # fal's client sends the account's key along with the signed upload; an adapter of ours must not
    assert books["key_leaks"] == 1


def test_submit_status_and_result_work_by_request_id(client: Client, sandbox: SandboxServer) -> None:
    out = client.run(
        PICTURE
        + f"""
arguments = {{"prompt": "sepia", "image_urls": [fal_client.encode_file("picture.png")]}}
handle = fal_client.submit("{ENDPOINT}", arguments)
while not isinstance(fal_client.status("{ENDPOINT}", handle.request_id), fal_client.Completed):
    time.sleep(0.02)
out["result"] = fal_client.result("{ENDPOINT}", handle.request_id)
"""
    )
    image = out["result"]["images"][0]
    assert (image["width"], image["height"]) == (1024, 1024)
    assert sandbox.totals()["collected"] == 1


def test_it_cancels_a_job(client: Client, sandbox: SandboxServer) -> None:
    sandbox.script({"on": "submit", "fault": "run_for", "args": {"seconds": 60}})
    out = client.run(
        f"""
handle = fal_client.submit("{ENDPOINT}", {{"prompt": "x", "image_urls": ["data:,"]}})
out["before"] = type(handle.status()).__name__
handle.cancel()
try:
    handle.get()
except fal_client.FalClientHTTPError as error:
    out["status"], out["type"] = error.status_code, error.error_type
"""
    )
    assert out == {"before": "InProgress", "status": 499, "type": "client_cancelled"}
    assert sandbox.totals()["cancelled"] == 1


def test_run_answers_at_once_and_a_sub_path_polls_at_its_app(client: Client, sandbox: SandboxServer) -> None:
    out = client.run(
        PICTURE
        + f"""
uri = fal_client.encode_file("picture.png")
out["run"] = fal_client.run("{ENDPOINT}", {{"prompt": "sketch", "image_urls": [uri], "sync_mode": True}})
out["inpaint"] = fal_client.subscribe(
    "fal-ai/qwen-image-edit/inpaint", {{"prompt": "snow", "image_url": uri, "mask_url": uri}}
)
out["run"]["images"][0]["url"] = out["run"]["images"][0]["url"][:22]
"""
    )
    assert out["run"]["images"][0]["url"] == "data:image/png;base64,"
    # an absent image_size means the input's own size on this model
    assert (out["inpaint"]["images"][0]["width"], out["inpaint"]["images"][0]["height"]) == (320, 240)
    assert [job["via"] for job in sandbox.jobs()] == ["run", "queue"]


def test_it_reads_a_refused_parameter_from_the_detail_list(client: Client) -> None:
    out = client.run(
        f"""
try:
    fal_client.subscribe("{ENDPOINT}", {{"prompt": "x", "image_urls": ["data:,"], "guidance_scale": 21}})
except fal_client.FalClientHTTPError as error:
    out["status"], out["detail"] = error.status_code, error.message
"""
    )
    assert out["status"] == 422
    assert out["detail"][0]["loc"] == ["body", "guidance_scale"]
    assert out["detail"][0]["type"] == "less_than_equal"


def test_its_host_variables_lead_to_the_path_prefixes_too(
    sandbox: SandboxServer, certificate: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    sandbox.reset()
    environ = {
        "FAL_KEY": "id:secret",
        "FAL_RUN_HOST": f"127.0.0.1:{sandbox.port}/run",
        "FAL_QUEUE_RUN_HOST": f"127.0.0.1:{sandbox.port}/queue",
        "SSL_CERT_FILE": str(certificate[2]),
    }
    out = Client(environ, tmp_path).run(
        PICTURE
        + f"""
arguments = {{"prompt": "x", "image_urls": [fal_client.encode_file("picture.png")]}}
out["queued"] = fal_client.subscribe("{ENDPOINT}", arguments)
out["run"] = fal_client.run("{ENDPOINT}", arguments)
"""
    )
    assert out["queued"]["images"][0]["url"].startswith(f"https://127.0.0.1:{sandbox.port}/cdn/files/")
    assert out["run"]["images"][0]["url"].startswith(f"https://127.0.0.1:{sandbox.port}/cdn/files/")


def test_its_retries_after_lost_answers_make_paid_duplicates(client: Client, sandbox: SandboxServer) -> None:
    """Why the gateway does not use this client: a submit whose answer is lost is sent again (fal-client 1.0.3)."""
    sandbox.script({"on": "submit", "fault": "drop_after"})
    client.run(
        PICTURE
        + f"""
fal_client.subscribe("{ENDPOINT}", {{"prompt": "x", "image_urls": [fal_client.encode_file("picture.png")]}})
"""
    )
    assert sandbox.totals()["submitted"] == 2
