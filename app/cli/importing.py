"""imagegate models import: a provider's published document of an endpoint -> a draft of a model file, for a person."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from app.catalogue.files import CatalogueError
from app.config import ConfigError
from app.models import model_files
from app.registry import importers, provider_classes

LIMIT = 16 << 20  # bytes of a document; fal's have some 20 kB
SECONDS = 30.0


def run(endpoint: str, source: Path | None, provider: str) -> int:
    """Print the draft. `endpoint` may be the URL of its document; nothing is fetched if `source` is a saved one. Raises
    ConfigError."""
    installed = importers()
    if provider not in installed:
        raise ConfigError(f"no importer for {provider!r} (installed: {', '.join(sorted(installed))})")
    importer, is_url = installed[provider], endpoint.startswith(("http://", "https://"))
    try:
        if source is not None:
            where, text = str(source), source.read_text("utf-8")
        else:
            where = endpoint if is_url else importer.url(endpoint)
            text = _fetch(where)
        draft = importer.draft(_parse(text), None if is_url else endpoint)
    except ValueError as error:  # also what is no UTF-8
        raise ConfigError(f"{source or endpoint}: {error}") from None
    sys.stdout.write(draft)
    return _judge(draft, where)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("is not JSON that anybody would publish: nested too deep") from None


def _fetch(url: str) -> str:
    """No redirect is followed, and no key is sent: the documents are public."""
    try:
        with httpx2.Client(timeout=SECONDS, follow_redirects=False) as http, http.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise ConfigError(f"{url}: {answer.status_code} instead of a document")
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > LIMIT:
                    raise ConfigError(f"{url}: more than {LIMIT >> 20} MiB")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigError(f"{url}: {error or type(error).__name__}") from None
    return body.decode("utf-8")


def _judge(draft: str, where: str) -> int:
    """Say how many places wait for a person; 1 if the draft would not load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draft.yaml"
        path.write_text(draft, encoding="utf-8")
        try:
            model_files(provider_classes()).model(path)
        except CatalogueError as error:
            print(f"imagegate: {where}: the draft does not load:", *error.problems, sep="\n", file=sys.stderr)
            return 1
    count = draft.count("# review:")
    print(f"imagegate: {where}: a draft; {count} places to review, each a `# review` comment", file=sys.stderr)
    return 0
