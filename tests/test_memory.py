"""What the process does with freed memory, seen from outside in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

SCENE = """
import gc, json
from app.memory import settle, trim

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

settle()
base = resident()
kept = [bytes(2_000_000) + b"x" for _ in range(16)]
held = [bytearray(900) for _ in range(2000)]
full = resident()
del kept
freed = resident()
trim()
seen = {"full": full - base, "freed": freed - base, "trimmed": resident() - base, "frozen": gc.get_freeze_count()}
print(json.dumps(seen))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_buffers_are_kept_for_the_next_request_and_go_back_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", SCENE], capture_output=True, check=True, text=True)
    seen = json.loads(done.stdout)
    assert seen["full"] > 30_000_000
    assert seen["freed"] > 0.9 * seen["full"]
    assert seen["trimmed"] < 0.3 * seen["full"]
    assert seen["frozen"] > 1000
