"""Gateways that ask each other: a circle is found out before anything is bought."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from app.children import Child
from app.loops import MOST, GatewayLoop, passed, read_via
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import EDITS, PICTURE

FAL = "fal-ai/qwen-image-edit-2509"
OFFER = """
  - provider: {provider}
    endpoint: {endpoint}
    price: {{per: image, amount: "0.03", source: a test's}}
    accepts: {{images: 3}}
    params:
      prompt: {{how: passthrough, type: string, required: true}}
      image: {{how: renamed, to: {image}, type: images, required: true}}
"""
PEER = OFFER.format(provider="peer", endpoint="circle", image="image")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def gateway(folder: Path, port: int, asks: int, environ: dict[str, str], offers: str) -> Iterator[httpx2.Client]:
    """A gateway on `port` whose model `circle` has these offers, and whose provider `peer` is the gateway at `asks`."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "circle.yaml").write_text(
        f"id: circle\nname: Circle\ncreator: Tests\nmodes: [image-edit]\noffers:{offers}"
    )
    (folder / "config.yaml").write_text(
        f'providers:\n  peer: {{adapter: openai_compatible, base_url: "http://127.0.0.1:{asks}/openai/v1"}}\n'
    )
    own = {
        "IMAGEGATE_CONFIG": str(folder / "config.yaml"),
        "IMAGEGATE_DATA_DIR": str(folder / "data"),
        "IMAGEGATE_MODELS_DIR": str(folder / "models"),
    }
    with (
        Child(["serve", "--port", str(port)], {**environ, **own}) as child,
        httpx2.Client(base_url=child.said["url"], trust_env=False, timeout=60) as http,
    ):
        yield http


def edit(http: httpx2.Client) -> httpx2.Response:
    return http.post(EDITS, data={"model": "circle", "prompt": "night"}, files={"image": PICTURE})


def test_a_gateway_that_asks_itself_says_so(tmp_path: Path, sandbox_environ: dict[str, str]) -> None:
    port = free_port()
    with gateway(tmp_path, port, port, sandbox_environ, PEER) as http:
        answer = edit(http)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_misconfigured")
        assert "leads back to itself" in answer.json()["error"]["message"]
        assert answer.headers["x-imagegate-cost"] == "0"
        log = http.get("/v1/requests").json()["data"]
        assert [one["status"] for one in log] == ["failed"]  # the one inside was refused before it was one


def test_in_a_circle_of_two_the_next_offer_does_it(tmp_path: Path, sandbox_environ: dict[str, str]) -> None:
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxServer())
        environ = {**sandbox_environ, **{f"FAL_{name.upper()}": value for name, value in sandbox.settings.items()}}
        first, second = free_port(), free_port()
        way_out = PEER + OFFER.format(provider="fal", endpoint=FAL, image="image_urls")
        inner = stack.enter_context(gateway(tmp_path / "b", second, first, environ, PEER))
        outer = stack.enter_context(gateway(tmp_path / "a", first, second, environ, way_out))
        answer = edit(outer)
        assert answer.status_code == 200, answer.text
        told = answer.json()["metadata"]
        assert [(one["provider"], one["charged"]) for one in told["attempts"]] == [("peer", False), ("fal", True)]
        assert len(sandbox.jobs()) == 1
        [asked] = inner.get("/v1/requests").json()["data"]
        assert (asked["status"], asked["cost"]) == ("failed", 0)


@pytest.mark.parametrize("header", ["x" * 5000, "\xe4,,;", "0123456789ABCDEF", "0" * 15])
def test_what_no_gateway_has_written_changes_nothing(header: str) -> None:
    assert read_via([header]) == ()


def test_a_mark_means_a_process_and_a_model() -> None:
    once = passed((), "one", "circle")
    assert passed(once, "one", "another") == (*once, passed((), "one", "another")[0])
    assert len(passed(once, "two", "circle")) == 2
    with pytest.raises(GatewayLoop):
        passed(passed(once, "two", "circle"), "one", "circle")


def test_too_many_gateways_are_a_circle_as_well() -> None:
    via: tuple[str, ...] = ()
    for number in range(MOST):
        via = passed(via, f"process {number}", "circle")
    assert read_via([", ".join(via[:3]), ",".join(via[3:])]) == via
    with pytest.raises(GatewayLoop):
        passed(via, "one more", "circle")
