"""What has to happen to each input picture before a provider can read it: decided from its header alone."""

from __future__ import annotations

from app.catalogue.schema import Accepts
from app.errors import ImageTooLarge, TooManyImages
from app.types import ImageFormat, InputStep
from providers.base import Media

# Pixel layouts (Pillow's names) that every provider reads as they are.
_PLAIN_MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "1"})


def plan_inputs(images: tuple[Media, ...], accepts: Accepts, spelled: str) -> tuple[InputStep, ...]:
    """One step for each picture. Raises TooManyImages, ImageTooLarge."""
    if len(images) > accepts.images:
        allowed = "one picture" if accepts.images == 1 else f"at most {accepts.images} pictures"
        raise TooManyImages(f"Invalid '{spelled}': this model takes {allowed}, but got {len(images)}.", param=spelled)
    return tuple(_step(media, index, accepts, spelled) for index, media in enumerate(images))


def plan_mask(mask: Media, accepts: Accepts, spelled: str) -> InputStep:
    """A mask for a provider that takes one: brought to what it reads, unless that is what OpenAI's callers send. Its
    transparency is what it says, so it is never flattened. Raises ImageTooLarge."""
    step = _step(mask, 0, accepts.model_copy(update={"alpha": True}), spelled)
    if accepts.mask == "openai":
        return step
    meant = "white, and transparent," if accepts.mask == "both" else accepts.mask
    why = f"brought to a mask that is {meant} where it edits"
    return InputStep(mask, "png", step.upright, mask=accepts.mask, why=why, word=spelled)


def _step(media: Media, index: int, accepts: Accepts, spelled: str) -> InputStep:
    if media.size > accepts.max_bytes:
        raise ImageTooLarge(
            f"Invalid '{spelled}': picture {index + 1} has {media.size} bytes; this model takes at most "
            f"{accepts.max_bytes}.",
            param=spelled,
        )
    if media.width * media.height > accepts.max_pixels:
        raise ImageTooLarge(
            f"Invalid '{spelled}': picture {index + 1} is {media.width}x{media.height}; this model takes at most "
            f"{accepts.max_pixels} pixels.",
            param=spelled,
        )
    own = media.mime.removeprefix("image/")
    reasons: list[str] = []
    upright = media.orientation != 1 and not accepts.exif_orientation
    flatten = media.alpha and not accepts.alpha
    if own not in accepts.formats:
        reasons.append(f"{own} converted")
    if media.frames > 1:
        reasons.append(f"first of {media.frames} frames")
    if media.mode not in _PLAIN_MODES:
        reasons.append("brought to 8-bit RGB")
    if upright:
        reasons.append("turned upright as its EXIF says")
    if flatten:
        reasons.append("transparency flattened on white")
    if not reasons:
        by_url = accepts.urls and media.url is not None
        why = f"picture {index + 1}: the URL is handed on" if by_url else ""
        return InputStep(media, hand_on=by_url, why=why, word=spelled, index=index)
    to_format: ImageFormat = "jpeg" if own == "jpeg" and "jpeg" in accepts.formats else "png"
    why = f"picture {index + 1}: {', '.join(reasons)}"
    return InputStep(media, to_format, upright, flatten, why=why, word=spelled, index=index)
