"""What the README and docs/using.md tell people to paste, run as it stands: only the address and the key are ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.api.clients.test_recorded import RECORDED, replay
from tests.conftest import KEY, MODEL, Json, Served, StartGateway

ROOT = Path(__file__).parents[3]
HERE = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text("utf-8")
USING = (ROOT / "docs" / "using.md").read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def pasted(text: str, gateway: Served) -> str:
    assert HERE in text
    return text.replace(HERE, gateway.url)


def run(command: list[str], folder: Path) -> str:
    """In a folder that has what a clone has of what the samples read. The output."""
    (folder / "app").symlink_to(ROOT / "app")
    environ = {**os.environ, "IMAGEGATE_API_KEY": KEY, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CURLS = [text for page in (README, USING) for text in blocks(page, "sh") if text.startswith("curl ")]


def test_there_are_samples_to_run() -> None:
    assert len(CURLS) == 3
    assert len(blocks(README, "python")) == 1
    assert len(blocks(USING, "python")) == 2  # OpenAI's SDK, LangChain
    assert len(blocks(USING, "js")) == 3  # OpenAI's SDK, AI SDK, LangChain


@pytest.mark.parametrize("text", CURLS)
def test_the_curl_samples_work(text: str, gateway: Served, locked_gateway: Served, tmp_path: Path) -> None:
    if shutil.which("curl") is None and not os.environ.get("CI"):
        pytest.skip("NO CURL ON THIS MACHINE: the samples are untested")
    asked = locked_gateway if "Authorization" in text else gateway
    answer = json.loads(run(["bash", "-c", pasted(text, asked).replace("curl ", "curl -sS ", 1)], tmp_path))
    assert answer["data"][0]["url"].startswith(asked.url)


def test_the_python_sample_of_the_readme_works(gateway: Served, tmp_path: Path, new_jobs: Any) -> None:
    [text] = blocks(README, "python")
    assert run([sys.executable, "-W", "ignore", "-c", pasted(text, gateway)], tmp_path).startswith(gateway.url)
    [job] = new_jobs()
    assert (job["payload"]["seed"], job["payload"]["guidance_scale"]) == (42, 4.5)


def test_the_python_sample_works(locked_gateway: Served, tmp_path: Path, new_jobs: Any) -> None:
    text = blocks(USING, "python")[0]
    said = run([sys.executable, "-W", "ignore", "-c", pasted(text, locked_gateway)], tmp_path).split()
    assert len(said) == 3
    assert all(line.startswith(locked_gateway.url) for line in said)
    assert len({job["endpoint"] for job in new_jobs()}) == 2


def test_the_javascript_samples_work(node_modules: Path, locked_gateway: Served, tmp_path: Path, new_jobs: Any) -> None:
    openai, ai_sdk, _ = blocks(USING, "js")
    (tmp_path / "node_modules").symlink_to(node_modules)
    (tmp_path / "edit.mjs").write_text(pasted(openai, locked_gateway))
    assert run(["node", "edit.mjs"], tmp_path).startswith(locked_gateway.url)
    (tmp_path / "app").unlink()
    (tmp_path / "edit.mjs").write_text(pasted(ai_sdk, locked_gateway))
    run(["node", "edit.mjs"], tmp_path)
    assert (tmp_path / "night.png").read_bytes().startswith(b"\x89PNG")
    assert [job["payload"]["seed"] for job in new_jobs()] == [42, 42]


def test_the_langchain_samples_are_what_was_recorded(locked_gateway: Served) -> None:
    """LangChain is not installed for the tests: what it sends was recorded, and goes out with the page's model."""
    samples = [blocks(USING, "python")[1], blocks(USING, "js")[2]]
    for text, name in zip(samples, ("langchain-community", "langchain-js"), strict=True):
        body = json.loads((RECORDED / f"{name}.http").read_bytes().partition(b"\r\n\r\n")[2])
        assert f"{HERE}/openai/v1" in text
        [model] = re.findall(r"""model(?:=|: )"([\w-]+)",""", text)
        answer = locked_gateway.post(body | {"model": model}, "/openai/v1/images/generations")
        assert answer.status_code == 200, answer.text


def test_no_sample_asks_for_a_model_that_a_key_with_a_budget_cannot_use(gateway: Served) -> None:
    priced = {one["id"]: one["starting_price"] for one in gateway.get("/openai/v1/models").json()["data"]}
    code = "\n".join(
        block for page in (README, USING) for block in re.findall(r"^```\w+\n(.*?)^```", page, re.S | re.M)
    )
    code += README[README.index("Pictures from words alone") :]
    asked = set(re.findall(r"""(?:model"?(?:=|: )|MODEL=|imageModel\()"?([\w.-]+)""", code))
    assert len(asked & set(priced)) >= 2
    assert [model for model in asked & set(priced) if priced[model] is None] == []


def test_librechat_gets_base64_from_its_key(start_gateway: StartGateway) -> None:
    """As the page tells: a key whose default it is, and an alias for the model that it may insist on."""
    admin = "an admin's key for using.md"
    gateway = start_gateway(IMAGEGATE_ADMIN_KEY=admin, IMAGEGATE_ALIASES=f"{{gpt-image-*: {MODEL}}}")
    asked = {"name": "librechat", "response_format": "b64_json"}
    made = gateway.post(asked, "/v1/keys", headers={"authorization": f"Bearer {admin}"})
    assert made.status_code in (200, 201), made.text
    request = (RECORDED / "librechat.http").read_bytes().replace(b"sk-test", made.json()["key"].encode())
    fixed = request.replace(MODEL.encode(), b"gpt-image-1".ljust(len(MODEL), b"x"))
    for one in (request, fixed):
        status, _, body = replay(gateway, one)
        assert status == 200, body
        answer: Json = json.loads(body)
        assert set(answer["data"][0]) == {"b64_json"}
