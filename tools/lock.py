"""`make lock`: pin every dependency with hashes, for Python 3.11 and newer, on any platform; no file names an index.

Each lock constrains the next larger one, so that all of them hold the same versions. Needs `uv` (pip install uv).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILE = ["pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes"]
COMPILE += ["--no-emit-index-url", "--no-annotate", "--no-header"]
# Lock -> the extra that it adds to the project's dependencies.
LOCKS = {
    "requirements.lock": "",
    "requirements-otel.lock": "otel",
    "requirements-redis.lock": "redis",
    "requirements-demo.lock": "demo",
    "requirements-dev.lock": "dev",
    "requirements-bench.lock": "bench",
}
PEERS = Path("bench", "peers")  # foreign software that is measured beside ours, in an environment of its own


def main() -> int:
    """Write all locks."""
    uv = shutil.which("uv")
    if uv is None:
        sys.stderr.write("make lock needs uv on the PATH: pip install uv\n")
        return 1
    constraints: list[str] = []
    for lock, extra in LOCKS.items():
        chosen = [f"--extra={extra}"] if extra else []
        subprocess.run([uv, *COMPILE, *chosen, *constraints, "pyproject.toml", "-o", lock], cwd=ROOT, check=True)
        constraints.append(f"--constraint={lock}")
    # What builds this package, for the container image: the same version as in the larger locks.
    command = [uv, *COMPILE, *constraints, "-", "-o", "requirements-build.lock"]
    subprocess.run(command, cwd=ROOT, check=True, input="setuptools\n", text=True)
    peers = [str(PEERS / "requirements.txt"), "-o", str(PEERS / "requirements-peers.lock")]
    subprocess.run([uv, *COMPILE, *peers], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
