"""What pictures are admitted by is what they take: every kind of job is measured in a process of its own."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from app.formats import ImageFormat
from app.media.pixels import Composite, Decode, Encode, Fit, Flatten, Job, Picture, Step, Weigh, estimate
from app.media.workers import _ENVIRONMENT
from tests.media.pictures import photo, saved

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SIDE = 2400
OVERHEAD = 8 << 20  # of any job, however small its pictures: what its decoders load, and stripes
ABOVE = 1.1  # how far it may take more than was estimated

MEASURE = """
import pickle, sys
from app.media.child import _load
from app.media.pixels import Failed, work

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

_load()
job = pickle.load(open(sys.argv[1], "rb"))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
outcome = work(job)
assert not isinstance(outcome, Failed), outcome
print(status("VmHWM") - before)
"""


def picture(kind: ImageFormat, mode: str = "RGB", side: int = SIDE, **how: object) -> Picture:
    small = photo(mode, (400, 400))
    data = saved(small.resize((side, side), Image.Resampling.BICUBIC), kind, **how)  # type: ignore[arg-type]
    return Picture(data, 10**9, "x", None, kind, side * side, mode.endswith("A"))


def masked(original: Picture, format: ImageFormat, edit: Picture | None = None) -> Job:
    mask = picture("png", "RGBA", int(original.pixels**0.5))
    pictures = (edit or picture("png", side=1000), original, mask)
    return Job(pictures, (Decode(2), Weigh(), Decode(1), Decode(0), Composite(), Encode(format)))


def alone(one: Picture, *steps: Step) -> Job:
    return Job((one,), (Decode(0), *steps))


JOBS = {
    "masked, jpeg to png": lambda: masked(picture("jpeg"), "png"),
    "masked, a progressive jpeg": lambda: masked(picture("jpeg", progressive=True, subsampling=0), "png"),
    "masked, to webp": lambda: masked(picture("jpeg"), "webp"),
    "masked, transparent to png": lambda: masked(picture("png", "RGBA"), "png"),
    "masked, a large edit": lambda: masked(picture("png", side=1000), "png", picture("png")),
    "masked, a transparent edit": lambda: masked(picture("jpeg"), "png", picture("png", "RGBA", side=1000)),
    "png to avif": lambda: alone(picture("png"), Encode("avif")),
    "png to avif in full colour": lambda: alone(picture("png"), Encode("avif", 95)),
    "transparent to avif": lambda: alone(picture("png", "RGBA"), Encode("avif")),
    "transparent to gif": lambda: alone(picture("png", "RGBA"), Encode("gif")),
    "transparent to jpeg": lambda: alone(picture("png", "RGBA"), Encode("jpeg")),
    "webp to lossless webp": lambda: alone(picture("webp"), Encode("webp", 95, True)),
    "flattened": lambda: alone(picture("png", "RGBA"), Flatten(), Encode("png")),
    "made larger": lambda: alone(picture("png", side=1000), Fit(SIDE, SIDE), Encode("png")),
    "made smaller, transparent": lambda: alone(picture("png", "RGBA"), Fit(1000, 1500), Encode("png")),
    "avif to png": lambda: alone(picture("avif", speed=10), Encode("png")),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_takes_no_more_than_its_estimate(name: str, tmp_path: Path) -> None:
    job = JOBS[name]()
    file = tmp_path / "job"
    file.write_bytes(pickle.dumps(job))
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file)], capture_output=True, check=True, env=_ENVIRONMENT, timeout=60
    )
    assert int(measured.stdout) <= estimate(job) * ABOVE + OVERHEAD


def test_a_mask_costs_a_few_bytes_a_pixel() -> None:
    """Not the layers of the whole picture that it once took: 24 bytes a pixel beside three pictures of four."""
    plain, mask = Picture(b"", 0, "", kind="png", pixels=1000), Picture(b"", 0, "", kind="jpeg", pixels=40_000_000)
    job = Job((plain, mask, mask), (Decode(2), Weigh(), Decode(1), Decode(0), Composite(), Encode("png")))
    assert estimate(job) < 450_000_000
