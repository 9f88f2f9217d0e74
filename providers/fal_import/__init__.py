"""Drafts a model file from fal's published OpenAPI document of an endpoint.

`document` reads what fal publishes, `sizes` and `rows` decide for each field what a caller's parameter becomes, `draft`
writes the YAML. What is decided by a table here has its source in the table's comment; what is not in any table becomes
a passthrough row with a `# review:` comment that tells what the document says. Nothing is guessed without such a word.

The same document gives the same text, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .document import read_endpoint
from .draft import draft

__all__ = ["IMPORTER", "FalImporter"]

_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


@dataclass(frozen=True, slots=True)
class FalImporter:
    """What `imagegate models import` needs of a provider."""

    name: str = "fal"

    def url(self, endpoint: str) -> str:
        """Where fal publishes an endpoint's document; no key is needed. Raises ValueError for what is no endpoint."""
        if not _ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"{endpoint!r} is no endpoint of fal's, such as fal-ai/flux/dev")
        return f"https://fal.ai/api/openapi/queue/openapi.json?endpoint_id={quote(endpoint, safe='/')}"

    def draft(self, document: Any, endpoint: str | None = None) -> str:
        """The YAML text of a model file. `endpoint` picks one of several, and must be the document's own.

        Raises ValueError, with the reason, for a document that this cannot read.
        """
        return draft(read_endpoint(document, endpoint))


IMPORTER = FalImporter()
