"""POST /openai/v1/images/edits: pictures, and what to make of them."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.auth import Authenticator
from app.api.images import Images, images_router
from app.api.openapi import edit_operation


def edits_router(images: Images, auth: Authenticator) -> APIRouter:
    """The edits endpoint."""
    return images_router(images, auth, "edits", "image-edit", edit_operation)
