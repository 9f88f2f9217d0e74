"""A gateway whose files the tests change while it runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Json
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, until

soon = partial(until, seconds=40)  # seconds: two, on a machine that has nothing else to do

BANANA = """
id: nano-banana
name: Nano Banana
creator: Google
modes: [image-edit]
offers:
  - provider: fal
    endpoint: fal-ai/nano-banana/edit
    params:
      prompt: {how: passthrough, type: string, required: true}
      image: {how: renamed, to: image_urls, type: images, required: true}
      seed: {how: passthrough, type: integer, min: 0}
"""


def write(path: Path, text: str) -> None:
    """As editors and secret stores do: a new file takes the old one's place."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


class LiveGate(Gate):
    """A gateway with a folder of models, and its own view of what it has taken in."""

    def __init__(self, sandbox: SandboxServer, folder: Path, *, environ: dict[str, str] | None = None, **more: str):
        self.models = folder / "models"
        self.models.mkdir(parents=True)
        super().__init__(
            sandbox, folder, environ=environ, **{"models_dir": str(self.models), "log_level": "info", **more}
        )

    def ready(self) -> Json:
        body: Json = self.http.get("/readyz").json()
        return body

    def configuration(self) -> Json:
        view: Json = self.ready()["configuration"]
        return view

    def ids(self) -> set[str]:
        return {model["id"] for model in self.http.get("/openai/v1/models").json()["data"]}

    def reload(self) -> None:
        self.child.signal(signal.SIGHUP)

    def edit(self, model: str = "nano-banana", prompt: str = "sepia", **more: Any) -> Any:
        return self.ask(prompt, **{"model": model, "size": "", **more})

    def refused(self) -> str:
        """What it refuses, once it refuses something."""
        return "\n".join(soon(lambda: self.configuration()["refused"], what="a refusal"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[SandboxServer]:
    with SandboxServer(concurrency=200) as sandbox:
        yield sandbox


@pytest.fixture
def live(upstream: SandboxServer, tmp_path: Path) -> Iterator[Callable[..., LiveGate]]:
    """live(strict="true") -> a gateway for this test alone."""
    upstream.reset()
    with ExitStack() as stack:

        def start(*, environ: dict[str, str] | None = None, **settings: str) -> LiveGate:
            return stack.enter_context(LiveGate(upstream, tmp_path / "gate", environ=environ, **settings))

        yield start


StartLive = Callable[..., LiveGate]
