"""`make demo`: the sandbox, the gateway and the real OpenAI SDK, from one command to an edited picture."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from app.children import Child

SAMPLE = Path(__file__).parent / "samples" / "coffee.jpg"
MODEL = "qwen-image-edit-2509"
PROMPT = 'make it a snowy night, with the words "Hello from imagegate"'
SIZE = "1200x800"


def demo(out: Path) -> int:
    """Edit the sample photo through a gateway of its own; 0 = the pictures are there. Spends no money: whatever this
    shell is set up for, the gateway is told to use the sandbox."""
    from openai import DefaultHttpxClient, OpenAI  # an extra: only the demo needs it

    out.mkdir(parents=True, exist_ok=True)
    before, after = out / "before.jpg", out / "after.png"
    before.write_bytes(SAMPLE.read_bytes())
    with tempfile.TemporaryDirectory() as data:
        environ = {name: "" for name in os.environ if name.startswith("IMAGEGATE_")} | {
            "IMAGEGATE_CONFIG": _empty_config(Path(data)),
            "IMAGEGATE_DATA_DIR": data,
            "IMAGEGATE_LOG_LEVEL": "warning",
        }
        with Child(["serve", "--sandbox", "--host", "127.0.0.1", "--port", "0"], environ) as gateway:
            client = OpenAI(
                base_url=f"{gateway.said['url']}/openai/v1",
                api_key="any-key-will-do",
                timeout=60,
                http_client=DefaultHttpxClient(trust_env=False),  # a proxy of this shell does not know our loopback
            )
            request: dict[str, Any] = {"model": MODEL, "image": SAMPLE, "prompt": PROMPT, "size": SIZE}
            dry_run = client.images.with_raw_response.edit(**request, extra_query={"dryRun": "true"})
            began = time.monotonic()
            answer = client.images.edit(**request)
            seconds = time.monotonic() - began
            assert answer.data
            after.write_bytes(_download(answer.data[0].url or ""))
    _report(before, after, json.loads(dry_run.text), answer.model_extra or {}, seconds)
    return 0


def _empty_config(folder: Path) -> str:
    """The operator's own config.yaml, if there is one here, is no part of the demo."""
    path = folder / "config.yaml"
    path.write_text("{}\n")
    return str(path)


def _download(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as response:
        data: bytes = response.read()
    return data


def _report(before: Path, after: Path, dry_run: dict[str, Any], answer: dict[str, Any], seconds: float) -> None:
    plan, metadata = dry_run["plan"], answer["metadata"]
    lines = [
        f"Edited in {seconds:.1f} s by {metadata['executed_model']} ({metadata['provider_name']}):",
        f"  before  {before.resolve()}",
        f"  after   {after.resolve()}",
        "",
        "The request compiled to one job for the provider:",
        *_indented(json.dumps(plan["calls"][0], indent=2, ensure_ascii=False)),
        "and this is what became of each parameter:",
        *(
            f"  {one['name']:8} {one['how']:12} {'-> ' + one['sent_as'] if one['sent_as'] else '':16} {one['why']}"
            for one in plan["parameters"]
        ),
        f"It would cost {metadata['cost']} {metadata['cost_currency']} at the provider; the sandbox bills nothing.",
        "",
        "The same with curl, while `make serve` runs:",
        "  curl http://127.0.0.1:8000/openai/v1/images/edits \\",
        f"    -F model={MODEL} -F image=@{before} \\",
        f"    -F prompt='{PROMPT}' -F size={SIZE}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
