"""The model files of docs/providers.md, as they stand: a real gateway, and behind it stand-ins as odd as the servers
are documented to be, and a second real gateway before fal's sandbox."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import APIStatusError, BadRequestError, OpenAI
from PIL import Image

from app.children import Child
from tests.fakes.openai_server import KEY, Answer, OpenAIServer, Seen, png
from tests.fakes.sandbox import SandboxServer

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", PAGE, re.DOTALL))
SERVERS = ("openai", "azure", "vllm", "sglang", "localai")


def no(code: str) -> Answer:
    return Answer(400, {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": code}})


def detail(text: str) -> Answer:
    return Answer(400, {"detail": text})


def openai(seen: Seen) -> Answer | None:
    if "response_format" in seen.fields:
        return no("unknown_parameter")
    if seen.fields.get("model") != "gpt-image-2" or seen.headers.get("authorization") != f"Bearer {KEY}":
        return no("model_not_found")
    if size := seen.fields.get("size"):
        width, height = map(int, size.split("x"))
        if width % 16 or height % 16 or width * height < 655_360:
            return no("invalid_value")
    if seen.path == "/v1/images/generations":
        return None if seen.headers["content-type"] == "application/json" else no("unsupported_content_type")
    return None if seen.path == "/v1/images/edits" and 1 <= len(seen.files.get("image[]", [])) <= 16 else no("image")


def azure(seen: Seen) -> Answer | None:
    if "model" in seen.fields or "authorization" in seen.headers or seen.headers.get("api-key") != KEY:
        return no("invalid_api_key")
    right = seen.path == "/openai/deployments/my-deployment/images/edits" and seen.query.startswith("api-version=2025")
    return None if right else no("DeploymentNotFound")


def vllm(seen: Seen) -> Answer | None:
    if "model" in seen.fields:
        return detail("Model mismatch")
    if seen.fields.get("response_format", "b64_json") != "b64_json" or seen.files.get("mask"):
        return detail("not supported")
    return None if 1 <= len(seen.files.get("image", [])) <= 4 else detail("At most 4 images")


def sglang(seen: Seen) -> Answer | None:
    if seen.fields.get("response_format") != "b64_json" or seen.files.get("mask"):
        return detail("response_format url needs output_path")
    return None if seen.files.get("image") else Answer(422, {"detail": "Field 'image' or 'url' is required"})


def localai(seen: Seen) -> Answer | None:
    if seen.path != "/v1/images/generations":
        return Answer(404, {"error": {"code": 404, "message": "Not Found", "type": ""}})
    for text in seen.fields["ref_images"]:
        base64.b64decode(text, validate=True)  # no data URI
    right = re.fullmatch(r"\d+x\d+", seen.fields["size"]) and seen.fields["response_format"] == "b64_json"
    return None if right else Answer(500, {"error": {"code": 500, "message": "invalid value", "type": ""}})


CHECKS = {"openai": openai, "azure": azure, "vllm": vllm, "sglang": sglang, "localai": localai}


@dataclass(frozen=True)
class Running:
    client: OpenAI
    servers: dict[str, OpenAIServer]
    sandbox: SandboxServer

    def edit(self, model: str, **more: Any) -> Any:
        image = more.pop("image", ("photo.png", png(), "image/png"))
        return self.client.images.edit(model=model, image=image, prompt="night", **more)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("servers")
    (folder / "models").mkdir()
    for name, text in BLOCKS.items():
        (folder / "config.yaml" if name == "config.yaml" else folder / "models" / name).write_text(text)
    clean = {name: "" for name in os.environ if name.startswith(("IMAGEGATE_", "FAL_", "OPENAI_"))}
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxServer(run_seconds=0))
        fal = {f"FAL_{name.upper()}": value for name, value in sandbox.settings.items()}
        second = {**clean, **fal, "IMAGEGATE_CONFIG": "", "IMAGEGATE_DATA_DIR": str(folder / "second")}
        upstream = stack.enter_context(Child(["serve", "--port", "0"], second))
        servers = {name: stack.enter_context(OpenAIServer(CHECKS[name])) for name in SERVERS}
        urls = {name: server.url for name, server in servers.items()}
        urls |= {
            "azure": f"http://127.0.0.1:{servers['azure'].port}/openai/deployments/{{model}}",
            "upstream": f"{upstream.said['url']}/openai/v1",
        }
        environ = {
            **clean,
            **fal,
            "IMAGEGATE_CONFIG": str(folder / "config.yaml"),
            "IMAGEGATE_DATA_DIR": str(folder / "data"),
            "IMAGEGATE_MODELS_DIR": str(folder / "models"),
            **{f"IMAGEGATE_PROVIDERS_{name.upper()}_BASE_URL": url for name, url in urls.items()},
            **{f"IMAGEGATE_PROVIDERS_{name.upper()}_KEY": KEY for name in ("openai", "azure")},
        }
        gateway = stack.enter_context(Child(["serve", "--port", "0"], environ))
        client = stack.enter_context(OpenAI(base_url=f"{gateway.said['url']}/openai/v1", api_key="x", max_retries=0))
        yield Running(client, servers, sandbox)


def test_the_page_has_a_file_for_each_kind_of_server() -> None:
    used = {
        offer["provider"]
        for name, text in BLOCKS.items()
        if name != "config.yaml"
        for offer in yaml.safe_load(text)["offers"]
    }
    assert used == {*SERVERS, "upstream"} == set(yaml.safe_load(BLOCKS["config.yaml"])["providers"])


@pytest.mark.parametrize(
    ("server", "model"),
    [
        ("openai", "openai/gpt-image-2"),
        ("azure", "azure/gpt-image-2"),
        ("vllm", "qwen-at-vllm"),
        ("sglang", "qwen-at-sglang"),
        ("localai", "flux-at-localai"),
    ],
)
def test_each_server_gets_what_it_takes(running: Running, server: str, model: str) -> None:
    before = running.servers[server].jobs
    answer = running.edit(model, n=2, response_format="b64_json")
    assert all(base64.b64decode(one.b64_json).startswith(b"\x89PNG") for one in answer.data)
    assert len(answer.data) == 2
    assert running.servers[server].jobs == before + 2


def test_a_cfg_scale_brings_the_negative_prompt_that_it_needs(running: Running) -> None:
    running.edit("qwen-at-vllm", extra_body={"true_cfg_scale": 3})
    assert running.servers["vllm"].requests[-1].fields["negative_prompt"] == " "
    running.edit("qwen-at-vllm", extra_body={"true_cfg_scale": 3, "negative_prompt": "blur"})
    assert running.servers["vllm"].requests[-1].fields["negative_prompt"] == "blur"
    running.edit("qwen-at-vllm")
    assert "negative_prompt" not in running.servers["vllm"].requests[-1].fields


def test_a_mask_goes_where_the_server_uses_it(running: Running) -> None:
    mask = ("mask.png", png(), "image/png")
    running.edit("openai/gpt-image-2", mask=mask)
    assert len(running.servers["openai"].requests[-1].files["mask"]) == 1
    running.edit("qwen-at-sglang", mask=mask)
    assert set(running.servers["sglang"].requests[-1].files) == {"image"}


def test_too_many_pictures_are_refused_before_anything_is_sent(running: Running) -> None:
    before = len(running.servers["vllm"].requests)
    with pytest.raises(BadRequestError):
        running.edit("qwen-at-vllm", image=[("a.png", png(), "image/png")] * 5)
    assert len(running.servers["vllm"].requests) == before


def test_what_every_call_has_alike_cannot_be_changed(running: Running) -> None:
    answer = running.edit("qwen-at-sglang", response_format="url")
    assert answer.data[0].url
    assert running.servers["sglang"].requests[-1].fields["response_format"] == "b64_json"


@pytest.mark.parametrize("server", ["vllm", "localai"])
def test_a_servers_own_error_costs_nothing_and_says_nothing_of_its_text(running: Running, server: str) -> None:
    body = {"detail": "secret words"} if server == "vllm" else {"error": {"code": 500, "message": "secret words"}}
    running.servers[server].next = Answer(500, body)
    with pytest.raises(APIStatusError) as caught:
        running.edit({"vllm": "qwen-at-vllm", "localai": "flux-at-localai"}[server])
    assert caught.value.status_code == 502
    assert "secret" not in caught.value.response.text
    assert caught.value.response.headers["x-imagegate-cost"] == "0"


def test_a_server_that_failed_without_a_bill_leaves_it_to_the_next(running: Running) -> None:
    running.servers["openai"].next = Answer(500, {"error": {"message": "broken", "type": "server_error"}})
    before = running.servers["azure"].jobs
    assert running.edit("gpt-image-2").data
    assert running.servers["azure"].jobs == before + 1


@pytest.mark.parametrize("code", ["upstream_ambiguous", "provider_timeout"])
def test_what_a_gateway_behind_cannot_tell_the_cost_of_is_not_bought_again(running: Running, code: str) -> None:
    error = {"message": "not known", "type": "server_error", "param": None, "code": code}
    running.servers["openai"].next = Answer(502, {"error": error}, {"x-should-retry": "false"})
    before = running.servers["azure"].jobs
    with pytest.raises(APIStatusError) as caught:
        running.edit("gpt-image-2")
    assert caught.value.code == "upstream_ambiguous"
    assert "x-imagegate-cost" not in caught.value.response.headers
    assert running.servers["azure"].jobs == before


def test_a_size_that_the_server_refuses_is_no_matter_of_content(running: Running) -> None:
    error = {"message": "no", "type": "image_generation_user_error", "param": "size", "code": "invalid_value"}
    running.servers["openai"].next = Answer(400, {"error": error})
    with pytest.raises(BadRequestError) as caught:
        running.edit("gpt-image-2", size="1024x1024")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "size")


def test_a_size_below_what_the_server_makes_is_asked_for_larger_and_fitted(running: Running) -> None:
    answer = running.edit("openai/gpt-image-2", size="300x200", response_format="b64_json")
    assert running.servers["openai"].requests[-1].fields["size"] != "300x200"
    assert Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).size == (300, 200)


def test_words_alone_make_a_picture(running: Running) -> None:
    answer = running.client.images.generate(
        model="gpt-image-2", prompt="night", size="1024x1024", response_format="b64_json"
    )
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG")
    seen = running.servers["openai"].requests[-1]
    assert seen.path == "/v1/images/generations"
    assert {name: seen.fields[name] for name in ("model", "prompt", "size")} == {
        "model": "gpt-image-2",
        "prompt": "night",
        "size": "1024x1024",
    }


def test_a_gateway_behind_a_gateway_makes_pictures_from_words(running: Running) -> None:
    running.sandbox.reset()
    answer = running.client.images.generate(
        model="words-at-imagegate", prompt="night", n=2, extra_body={"seed": 7}, response_format="url"
    )
    assert len(answer.data) == 2
    assert sorted(job["payload"]["seed"] for job in running.sandbox.jobs()) == [7, 8]


def test_a_gateway_behind_a_gateway_edits(running: Running) -> None:
    running.sandbox.reset()
    answer = running.edit("qwen-at-imagegate", n=2, extra_body={"seed": 7, "num_inference_steps": 9})
    assert len(answer.data) == 2
    jobs = [job["payload"] for job in running.sandbox.jobs()]
    assert sorted(job["seed"] for job in jobs) == [7, 8]
    assert {job["num_inference_steps"] for job in jobs} == {9}


def test_an_error_comes_through_two_gateways(running: Running) -> None:
    running.sandbox.reset()
    with pytest.raises(BadRequestError) as caught:
        running.edit("qwen-at-imagegate", extra_body={"num_inference_steps": 9000})
    assert caught.value.param == "num_inference_steps"
    assert running.sandbox.jobs() == []
