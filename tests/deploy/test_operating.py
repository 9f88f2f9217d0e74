"""docs/operating.md: a backup that is made as it says, and a restore, with a real gateway."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from app.children import Child
from tests.conftest import MODEL
from tests.fakes.postgres import PostgresServer, find_programs
from tests.media.pictures import sample

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text("utf-8")
ADMIN = "an admin's key for operating.md"


class Site:
    """A gateway with a data folder of its own, that is stopped and started."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.data = folder / "data"
        self._environ = {**environ, "IMAGEGATE_DATA_DIR": str(self.data), "IMAGEGATE_ADMIN_KEY": ADMIN}
        self._child: Child | None = None

    def start(self) -> None:
        self._child = Child(["serve", "--host", "127.0.0.1", "--port", "0"], self._environ)
        headers = {"authorization": f"Bearer {ADMIN}"}
        self.http = httpx2.Client(base_url=self._child.said["url"], headers=headers, trust_env=False, timeout=60)

    def stop(self) -> None:
        if self._child is not None:
            self.http.close()
            self._child.stop()
            self._child = None

    def edit(self) -> str:
        """The id of a request whose picture is kept."""
        form = {"model": MODEL, "prompt": "night", "output_format": "webp"}
        answer = self.http.post("/openai/v1/images/edits", data=form, files={"image": sample("png")})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def requests(self) -> set[str]:
        return {one["id"] for one in self.http.get("/v1/requests").json()["data"]}

    def keys(self) -> set[str]:
        return {one["name"] for one in self.http.get("/v1/keys").json()["data"]}


@pytest.fixture
def site(tmp_path: Path, sandbox_environ: dict[str, str]) -> Iterator[Site]:
    site = Site(tmp_path, sandbox_environ)
    yield site
    site.stop()


def test_sqlite_is_backed_up_while_it_runs_and_restored(site: Site, tmp_path: Path) -> None:
    site.start()
    kept = site.edit()
    assert site.http.post("/v1/keys", json={"name": "kept"}).status_code in (200, 201)
    [code] = re.findall(r'^\$ python3 -c "(.*?)"', PAGE, re.MULTILINE)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=30)
    shutil.copytree(site.data / "files", tmp_path / "files")
    shutil.copy(site.data / "signing.key", tmp_path)
    lost = site.edit()
    assert {kept, lost} <= site.requests()
    site.stop()

    shutil.rmtree(site.data)  # the disk is gone
    site.data.mkdir()
    for name in ("signing.key", "files"):
        (tmp_path / name).rename(site.data / name)
    (tmp_path / "backup.db").rename(site.data / "imagegate.db")
    site.start()
    assert site.requests() == {kept}
    assert site.keys() == {"kept"}
    link = site.http.get(f"/v1/requests/{kept}").json()["data"][0]["url"]
    assert site.http.get(link).headers["content-type"] == "image/webp"
    site.edit()


def test_the_files_that_the_page_names_are_there(site: Site) -> None:
    site.start()
    site.edit()
    assert {"imagegate.db", "signing.key", "files"} <= {path.name for path in site.data.iterdir()}


def test_postgresql_is_dumped_and_restored(
    postgres: PostgresServer, tmp_path: Path, sandbox_environ: dict[str, str]
) -> None:
    programs = find_programs()
    assert programs is not None
    asyncio.run(postgres.execute("CREATE DATABASE imagegate"))
    url = postgres.url(database="imagegate").partition("?")[0]
    site = Site(tmp_path, {**sandbox_environ, "IMAGEGATE_DATABASE_URL": url})
    try:
        site.start()
        kept = site.edit()
        dump = re.findall(r"pg_dump (--format=custom) --file=backup.dump", PAGE)
        restore = re.findall(r"pg_restore (--clean --if-exists) --dbname", PAGE)
        file = tmp_path / "backup.dump"
        subprocess.run([programs / "pg_dump", *dump, f"--file={file}", url], check=True, timeout=60)
        lost = site.edit()
        assert {kept, lost} == site.requests()
        site.stop()
        subprocess.run([programs / "pg_restore", *restore[0].split(), f"--dbname={url}", file], check=True, timeout=60)
        site.start()
        assert site.requests() == {kept}
    finally:
        site.stop()


def test_the_alerts_that_it_names_are_rules() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8"))
    known = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    named = set(re.findall(r"`(Imagegate\w+)`", PAGE))
    assert named
    assert named <= known
