"""`make lock`: pin every dependency with hashes, for Python 3.11 and newer, on any platform; no file names an index.

Each lock constrains the next larger one, so that all of them hold the same versions. Needs `uv` (pip install uv).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = {
    "requirements": [],
    "requirements-build": ["build"],
    "requirements-demo": ["demo"],
    "requirements-dev": ["dev"],
}


def main() -> int:
    """Write all locks."""
    uv = shutil.which("uv")
    if uv is None:
        sys.stderr.write("make lock needs uv on the PATH: pip install uv\n")
        return 1
    done: list[str] = []
    for name, extras in LOCKS.items():
        lock = f"{name}.lock"
        source = ["pyproject.toml"]
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-emit-index-url", "--no-annotate", "--no-header", "--output-file", lock]
        command += [f"--constraint={other}" for other in done] + [f"--extra={extra}" for extra in extras] + source
        if name == "requirements-build":
            command = [part for part in command if part not in source and not part.startswith("--extra")] + ["-"]
        subprocess.run(command, cwd=ROOT, check=True, input="setuptools>=80\n" if "-" in command else None, text=True)
        done.append(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
