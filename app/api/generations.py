"""POST /openai/v1/images/generations: pictures from words alone."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.auth import Authenticator
from app.api.images import Images, images_router
from app.api.openapi import generation_operation


def generations_router(images: Images, auth: Authenticator) -> APIRouter:
    """The generations endpoint."""
    return images_router(images, auth, "generations", "text-to-image", generation_operation)
