"""The proxies that the gateway is compared with, each started in a process of its own in front of bench.upstream.

    python -m bench.contenders bare naive litellm

measures what is asked for: CPU a request, memory, start. A contender is data, so that another harness can run it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.load import multipart
from bench.machine import ROOT, cpu_seconds, free_port, peak_rss_bytes, rss_bytes, running
from bench.pictures import SIDE, photo, png

WARM = 16


@dataclass(frozen=True, slots=True)
class Contender:
    """How to start a proxy and how to ask it. `{port}`, `{upstream}` and `{scratch}` (a folder) may stand in commands
    and in the environment's values."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/"
    path: str = "/v1/images/edits"
    fields: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 60.0
    count: int = 200  # requests a round
    answers: Sequence[str] = ("url", "b64_json")  # the response_format that it understands

    @property
    def installed(self) -> bool:
        """Whether its interpreter is there."""
        return Path(self.command[0]).exists()

    def request(self, picture: bytes, fields: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, str]]:
        """(body, headers) of an edit of the picture."""
        body, headers = multipart({"prompt": "Make it autumn.", **self.fields, **(fields or {})}, picture)
        return body, {**headers, **self.headers}

    @contextmanager
    def started(self, upstream: str, log: Path | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        """(process, base URL) until the block ends. `upstream` is bench.upstream's base URL."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with TemporaryDirectory(prefix="imagegate-bench-") as scratch:
            words = {"port": port, "upstream": upstream, "scratch": scratch}
            command = [part.format(**words) for part in self.command]
            env = {name: value.format(**words) for name, value in self.env.items()}
            with running(command, url + self.ready, env=env, seconds=self.start_seconds, log=log) as process:
                yield process, url


IMAGEGATE = Contender(
    "imagegate",
    (sys.executable, "-m", "app", "serve"),
    {
        "FAL_KEY": "bench:bench",
        "FAL_QUEUE_URL": "{upstream}/queue",
        "FAL_RUN_URL": "{upstream}/run",
        "FAL_REST_URL": "{upstream}/rest",
        "FAL_MEDIA_ORIGINS": "{upstream}",
        "IMAGEGATE_CONFIG": "",
        "IMAGEGATE_PORT": "{port}",
        "IMAGEGATE_DATA_DIR": "{scratch}",
    },
    ready="/healthz",
    path="/openai/v1/images/edits",
    fields={"model": "qwen-image-edit-2509"},
)
_PEERS = ROOT / ".venv-peers" / "bin"  # make bench-peers
_FAL = {"FAL_RUN_URL": "{upstream}/run", "FAL_KEY": "bench:bench"}
BARE = Contender("bare", (sys.executable, "-m", "bench.bare", "--port={port}"), _FAL)
BARE_AIOHTTP = Contender("bare-aiohttp", (*BARE.command, "--client=aiohttp"), _FAL)
NAIVE = Contender("naive", (sys.executable, "-m", "bench.naive", "--port={port}"), _FAL, count=100)
LITELLM = Contender(
    "litellm",
    (str(_PEERS / "litellm"), "--config=bench/peers/litellm.yaml", "--host=127.0.0.1", "--port={port}"),
    {
        "FAL_AI_API_KEY": "bench:bench",
        "FAL_AI_API_BASE": "{upstream}/run",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no look at the network when it starts
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "127.0.0.1",
    },
    ready="/health/liveliness",
    fields={"model": "qwen-image-edit-2509"},
    answers=(),  # on this path it takes no response_format, and gives back what the upstream gave
    start_seconds=120,
    count=60,
)
CONTENDERS = {one.name: one for one in (IMAGEGATE, BARE, BARE_AIOHTTP, NAIVE, LITELLM)}


@contextmanager
def upstream(delay: float = 0.0, side: int = SIDE) -> Iterator[str]:
    """The base URL of a bench.upstream of one's own, whose results are `side` pixels square."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.upstream", f"--port={port}", f"--delay={delay}", f"--side={side}"]
    with running(command, url + "/health"):
        yield url


@dataclass(slots=True)
class Row:
    """What was measured of one contender."""

    name: str
    answer: str
    cpu_ms: list[float] = field(default_factory=list)  # a request, by round
    p50_ms: list[float] = field(default_factory=list)
    failed: int = 0
    start_seconds: float = 0.0
    idle_mb: float = 0.0
    peak_mb: float = 0.0


def measure(contender: Contender, base: str, *, answer: str = "url", rounds: int = 3, concurrency: int = 8) -> Row:
    """Start it, warm it, `rounds` times its count of edits of the photograph. `base` is the upstream's URL."""
    understood = answer in contender.answers
    body, headers = contender.request(png(photo()), {"response_format": answer} if understood else {})
    row = Row(contender.name, answer if understood else "as it comes")
    began = time.perf_counter()
    with contender.started(base) as (process, url):
        row.start_seconds = time.perf_counter() - began
        row.idle_mb = rss_bytes(process.pid) / 1e6
        target = url + contender.path
        fire(target, body, headers, concurrency, WARM)
        for _ in range(rounds):
            before = cpu_seconds(process.pid)
            result = fire(target, body, headers, concurrency, contender.count)
            spent = cpu_seconds(process.pid) - before
            row.cpu_ms.append(1000 * spent / result["requests"])
            row.p50_ms.append(result["p50_ms"])
            row.failed += result["requests"] - result["statuses"].get("200", 0)
        row.peak_mb = peak_rss_bytes(process.pid) / 1e6
    return row


def fire(url: str, body: bytes, headers: Mapping[str, str], concurrency: int, count: int) -> dict:
    """bench.load in a process of its own; its summary."""
    job = {"url": url, "headers": dict(headers), "concurrency": concurrency, "count": count, "size": len(body)}
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", "--stdin"],
        input=json.dumps(job).encode() + b"\n" + body,
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
        timeout=180,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Prints a Markdown table; --json for the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(CONTENDERS), help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--answer", choices=("url", "b64_json"), default="url", help="response_format")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with upstream() as base:
        for name in options.names:
            contender = CONTENDERS[name]
            if not contender.installed:
                sys.stderr.write(f"{name} is not installed: make bench-peers\n")
                continue
            rows.append(
                measure(contender, base, answer=options.answer, rounds=options.rounds, concurrency=options.concurrency)
            )
    if options.json:
        print(json.dumps([{name: getattr(row, name) for name in Row.__slots__} for row in rows]))
        return
    print("| contender | answer | CPU ms/request | p50 ms | idle MB | peak MB | first answer s | failed |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        cpu = f"{statistics.median(row.cpu_ms):.2f} ({min(row.cpu_ms):.2f}–{max(row.cpu_ms):.2f})"
        print(
            f"| {row.name} | {row.answer} | {cpu} | {statistics.median(row.p50_ms):.1f} | {row.idle_mb:.0f} "
            f"| {row.peak_mb:.0f} | {row.start_seconds:.2f} | {row.failed} |"
        )
    print(f"\nConcurrency {options.concurrency}, 1.5 MB PNG upload, load average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
