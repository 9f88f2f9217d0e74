"""A real gateway that keeps its pictures in a bucket, through its own door."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.children import Child, ChildFailed
from tests.conftest import MODEL, Served, StartGateway
from tests.fakes.s3 import Fault, FaultyProxy, S3Server


def bucket(url: str, prefix: str, **more: str) -> dict[str, str]:
    environ = {
        "IMAGEGATE_STORAGE_URL": f"s3://pictures/{prefix}",
        "IMAGEGATE_STORAGE_ENDPOINT": url,
        "IMAGEGATE_STORAGE_REGION": "us-east-1",
        "IMAGEGATE_STORAGE_ALLOW_HTTP": "true",
        "IMAGEGATE_RESULTS_DELIVERY": "store",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "s3cret/of/the/bucket",
    }
    return environ | more


def edited(gateway: Served, photo_path: Path) -> str:
    """The URL of one edited picture."""
    with gateway.client() as client:
        answer = client.images.edit(model=MODEL, image=photo_path, prompt="night", response_format="url")
    assert answer.data
    return answer.data[0].url or ""


def ready(gateway: Served) -> dict[str, Any]:
    body: dict[str, Any] = gateway.get("/readyz").json()
    return body


def test_an_edited_picture_lies_in_the_bucket_and_is_served_from_there(
    start_gateway: StartGateway, s3: S3Server, photo_path: Path
) -> None:
    gateway = start_gateway(**bucket(s3.url, "served"))
    url = edited(gateway, photo_path)
    assert url.startswith(f"{gateway.url}/files/")
    [name] = s3.names("pictures", "served/")
    key = name.rpartition("/")[2]
    assert f"/files/{key}?" in url
    whole = httpx2.get(url, trust_env=False)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "image/png")
    assert whole.content == s3.http.get(f"/pictures/{name}").content
    part = httpx2.get(url, headers={"range": "bytes=100-299"}, trust_env=False)
    assert (part.status_code, part.content) == (206, whole.content[100:300])
    head = httpx2.head(url, trust_env=False)
    assert head.headers["content-length"] == str(len(whole.content))
    again = httpx2.get(url, headers={"if-none-match": whole.headers["etag"]}, trust_env=False)
    assert again.status_code == 304
    assert ready(gateway)["status"] == "ready"


def test_a_presigned_url_leads_to_the_bucket(start_gateway: StartGateway, s3: S3Server, photo_path: Path) -> None:
    gateway = start_gateway(**bucket(s3.url, "presigned", IMAGEGATE_STORAGE_LINKS="presigned"))
    url = edited(gateway, photo_path)
    assert url.startswith(f"{s3.url}/pictures/presigned/")
    answer = httpx2.get(url, headers={"range": "bytes=0-7"}, trust_env=False)
    assert (answer.status_code, answer.content) == (206, b"\x89PNG\r\n\x1a\n")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith('inline; filename="')


@pytest.mark.parametrize("links", ["signed", "presigned"])
def test_a_bucket_that_goes_down_costs_no_picture(
    start_gateway: StartGateway, s3: S3Server, faulty: FaultyProxy, photo_path: Path, links: str
) -> None:
    gateway = start_gateway(**bucket(faulty.url, f"down-{links}", IMAGEGATE_STORAGE_LINKS=links))
    faulty.fault = Fault(status=503)
    url = edited(gateway, photo_path)
    assert url.startswith(f"{gateway.url}/files/")
    answer = httpx2.get(url, trust_env=False)
    assert answer.status_code == 200
    body = ready(gateway)
    assert body["status"] == "degraded"
    assert "the store: " in " ".join(body["problems"])
    faulty.mend()
    end = time.monotonic() + 20
    while not s3.names("pictures", f"down-{links}/") or ready(gateway)["status"] != "ready":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert httpx2.get(url, trust_env=False).content == answer.content


def test_a_picture_that_the_bucket_loses_is_not_found_and_one_that_breaks_off_is_cut(
    start_gateway: StartGateway, s3: S3Server, faulty: FaultyProxy, photo_path: Path
) -> None:
    gateway = start_gateway(**bucket(faulty.url, "lost"))
    url = edited(gateway, photo_path)
    [name] = s3.names("pictures", "lost/")
    faulty.fault = Fault(cut=1000, methods="GET")
    answer = httpx2.get(url, trust_env=False, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    faulty.mend()
    assert s3.http.delete(f"/pictures/{name}").status_code == 204
    answer = httpx2.get(url, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"IMAGEGATE_STORAGE_URL": "s3://nowhere/x"}, "NoSuchBucket"),
        ({}, "403"),
    ],
)
def test_a_bucket_that_cannot_work_stops_the_start_with_one_clear_line(
    sandbox_environ: dict[str, str], faulty: FaultyProxy, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    if said == "403":
        faulty.fault = Fault(status=403)
    environ = {**sandbox_environ, **bucket(faulty.url, "x", **more), "IMAGEGATE_DATA_DIR": str(tmp_path)}
    with (tmp_path / "log").open("w") as log, pytest.raises(ChildFailed):
        Child(["serve", "--port", "0"], environ, stderr=log)
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("imagegate: storage.url: s3://")
    assert said in line
    assert "s3cret" not in line


def test_a_gateway_starts_without_its_bucket_and_finds_it_later(
    sandbox_environ: dict[str, str], s3: S3Server, faulty: FaultyProxy, photo_path: Path, tmp_path: Path
) -> None:
    faulty.fault = Fault(refuse=True)
    environ = {**sandbox_environ, **bucket(faulty.url, "late"), "IMAGEGATE_DATA_DIR": str(tmp_path)}
    with (
        (tmp_path / "log").open("w") as log,
        Child(["serve", "--port", "0"], environ, stderr=log) as child,
        httpx2.Client(base_url=child.said["url"], trust_env=False, timeout=30) as http,
    ):
        gateway = Served(child.said["url"], child.pid, http)
        url = edited(gateway, photo_path)
        assert s3.names("pictures", "late/") == []
        faulty.mend()
        end = time.monotonic() + 20
        while not s3.names("pictures", "late/"):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert httpx2.get(url, trust_env=False).status_code == 200
    said = (tmp_path / "log").read_text()
    assert "starting without the bucket" in said
    assert "Traceback" not in said
    assert "s3cret" not in said


def test_a_bucket_can_be_made_by_command(s3: S3Server, tmp_path: Path) -> None:
    environ = {**os.environ, **bucket(s3.url, "inside"), "IMAGEGATE_DATA_DIR": str(tmp_path)}
    environ["IMAGEGATE_STORAGE_URL"] = f"s3://made-{secrets.token_hex(4)}/inside"

    def command(action: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "app", "storage", action]
        return subprocess.run(line, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    missing = command("check")
    assert missing.returncode == 2
    assert "NoSuchBucket" in missing.stderr
    made, again = command("make-bucket"), command("make-bucket")
    assert (made.returncode, made.stdout.splitlines()[0].rpartition(": ")[2]) == (0, "made")
    assert again.returncode == 0, again.stderr
    assert command("check").returncode == 0


def test_gateways_that_share_a_bucket_and_signing_keys_serve_each_others_pictures(
    start_gateway: StartGateway, s3: S3Server, photo_path: Path
) -> None:
    old, new = "an old key of thirty-two characters", "a new key of thirty-two characters"
    first = start_gateway(**bucket(s3.url, "shared", IMAGEGATE_SIGNING_KEYS=old))
    second = start_gateway(**bucket(s3.url, "shared", IMAGEGATE_SIGNING_KEYS=f"{new},{old}"))
    stranger = start_gateway(**bucket(s3.url, "shared"))
    signed_before = edited(first, photo_path).removeprefix(first.url)
    assert second.get(signed_before).status_code == 200
    assert stranger.get(signed_before).status_code == 403
    signed_after = edited(second, photo_path).removeprefix(second.url)
    assert second.get(signed_after).status_code == 200
    assert first.get(signed_after).status_code == 403
