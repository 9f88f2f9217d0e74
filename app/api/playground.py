"""The pages for people: playground, models, requests, usage, keys. Files of app/web as they lie there, one shell for
all paths; what they show they ask of the endpoints that everybody has, with the key that is typed in, and no cookie.

Nothing is read before the first page is asked for: a gateway that serves programs alone pays nothing for it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotFound

WEB = Path(__file__).parent.parent / "web"
SAMPLE = Path(__file__).parent.parent / "samples" / "coffee.jpg"
SHELL = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
PAGES = ("/", "/models", "/models/{name:path}", "/requests", "/requests/{name}", "/usage", "/keys")
PROGRAMS = ("/openai/", "/v1/", "/files/", "/assets/")  # what lies there is no page, whoever asks
FOREVER = "public, max-age=31536000, immutable"  # the content's digest is in the path


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it goes out."""

    type: str
    body: bytes
    packed: bytes | None  # gzip; None where it would gain nothing


@dataclass(frozen=True, slots=True)
class Site:
    """All files, and the digest that stands in their path."""

    version: str
    assets: dict[str, Asset]


class Pages:
    """The pages and their files."""

    def __init__(self, picture_origins: Iterable[str]) -> None:
        """`picture_origins`: URLs on whose origins results lie, besides the page's own and https ones; the browser is
        told to load pictures from nowhere else."""
        self._headers = _headers(picture_origins)
        self._site: Site | None = None

    def router(self) -> APIRouter:
        """Every page, and what pages are made of."""
        router = APIRouter()
        for path in PAGES:
            for spelled in {path, path.rstrip("/") + "/"} if path.count("{") == 0 else {path}:
                router.add_api_route(spelled, self._page, methods=["GET", "HEAD"], include_in_schema=False)
        asset = "/assets/{version}/{name:path}"
        router.add_api_route(asset, self._asset, methods=["GET", "HEAD"], include_in_schema=False)
        return router

    async def nowhere(self, request: Request) -> Response | None:
        """For a person who looks where nothing is: a page that says so. None: no person asks."""
        path, accepted = request.scope["path"], request.headers.get("accept", "")
        if request.method != "GET" or "text/html" not in accepted or path.startswith(PROGRAMS):
            return None
        answer = await self._page(request)
        answer.status_code = 404 if answer.status_code == 200 else answer.status_code
        return answer

    async def _page(self, request: Request) -> Response:
        found = await self._loaded()
        return _answer(request, found.assets[SHELL], self._headers, f'W/"{found.version}"', "no-cache")

    async def _asset(self, request: Request, version: str, name: str) -> Response:
        found = await self._loaded()
        if version != found.version or name == SHELL or name not in found.assets:
            raise NotFound("There is no such file.")
        return _answer(request, found.assets[name], self._headers, f'W/"{version}"', FOREVER)

    async def _loaded(self) -> Site:
        if self._site is None:
            self._site = await asyncio.to_thread(load_site)
        return self._site


def load_site(folder: Path = WEB) -> Site:
    """Read, hash and pack. 10 ms, a few hundred KB."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in TYPES
    }
    files["sample.jpg"] = SAMPLE.read_bytes()
    digest = hashlib.sha256()
    for name, body in files.items():
        digest.update(b"%s\0%d\0" % (name.encode(), len(body)))
        digest.update(body)
    version = digest.hexdigest()[:16]
    # Browsers find out about a module's imports only when they have it: told beforehand, they fetch all at once.
    modules = [name for name in files if name.endswith(".js") and name not in ("app.js", "theme.js")]
    preload = "\n".join(f'    <link rel="modulepreload" href="/assets/{version}/{name}">' for name in modules)
    shell = files[SHELL].replace(b"<!-- modules -->", preload.strip().encode())
    files[SHELL] = shell.replace(b"%ASSETS%", f"/assets/{version}".encode())
    return Site(version, {name: _asset(name, body) for name, body in files.items()})


def _asset(name: str, body: bytes) -> Asset:
    kind = TYPES[Path(name).suffix]
    packed = None if kind == "image/jpeg" else gzip.compress(body, 9, mtime=0)
    return Asset(kind, body, packed if packed is not None and len(packed) < len(body) else None)


def _answer(request: Request, asset: Asset, headers: dict[str, str], etag: str, cache: str) -> Response:
    headers = {**headers, "etag": etag, "cache-control": cache, "vary": "accept-encoding"}
    if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(None, 304, headers)
    body = asset.body
    if asset.packed is not None and _takes_gzip(request.headers.get("accept-encoding", "")):
        body = asset.packed
        headers["content-encoding"] = "gzip"
    headers["content-type"] = asset.type
    if request.method == "HEAD":
        return Response(None, 200, {**headers, "content-length": str(len(body))})
    return Response(body, 200, headers)


def _takes_gzip(accepted: str) -> bool:
    for coding in accepted.lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _headers(picture_origins: Iterable[str]) -> dict[str, str]:
    origins = {f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, picture_origins) if parts.netloc}
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": " ".join(["'self'", "blob:", "data:", "https:", *sorted(origins)]),
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        # Text never becomes markup here; with these the browser refuses a script that tries.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
    }
