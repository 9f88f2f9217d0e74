"""Work on pixels as a value: which pictures, and a literal list of steps. Decided without touching a pixel, carried out
by one pure function, `work`: in a picture child (`child`, `workers`), or here for tests.

    Job((Picture(data, …),), (Decode(0), Fit(64, 48), Encode("webp", 80)))  ->  Written | Failed

The steps work on a pile: `Decode` lays a picture on it, `Composite` takes three and lays one, the others change the
uppermost. What goes wrong with a picture is a value too, since an exception does not travel between processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from app.errors import GatewayError, ImageTooLarge, InvalidImage, InvalidRequest, InvalidValue, UnsupportedImage
from app.formats import ImageFormat
from app.media.decode import decode
from app.media.encode import encode, in_full_colour, on_white
from app.media.fit import blend, clear_where_white, edit_weight, fit_exact, negative
from providers.base import Blob

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

CHILD_BYTES = 1024 * 1024 * 1024  # what one job may take
# Bytes a pixel at the peak, as measured in a process of its own (8 MP, Pillow 13, November 2026; some are measured anew
# by tests/media/test_estimate.py). Decoding: the picture, and a copy where a profile, a turn or 16 bits may ask for it.
_DECODING = {"png": 8, "jpeg": 10, "gif": 8, "webp": 16, "avif": 12}
_ENCODING = {"png": 4, "jpeg": 3, "gif": 9, "webp": 9, "avif": 26}  # beside the picture
_ENCODING_ALPHA = {"png": 5, "jpeg": 6, "gif": 14, "webp": 14, "avif": 31}  # with transparency
_FULL_COLOUR = 15  # more, for AVIF at full colour resolution
_LOSSLESS = 24  # WebP
_PIXEL = 4  # Pillow keeps RGB in four bytes


class Decode(NamedTuple):
    """Lay picture `picture` of the job on the pile, upright."""

    picture: int


class Weigh(NamedTuple):
    """A mask becomes the weight of the edit: one byte a pixel instead of four."""


class Composite(NamedTuple):
    """Weight, original and edit become the original with the edit in it."""


class Flatten(NamedTuple):
    """Put it on white."""


class Clear(NamedTuple):
    """A weight becomes a mask that also says it by transparency: the more of the edit, the less it hides."""


class Invert(NamedTuple):
    """A weight becomes a mask that is black where the edit is."""


class Fit(NamedTuple):
    """Make it exactly this large."""

    width: int
    height: int


class Encode(NamedTuple):
    """Write it."""

    format: ImageFormat
    quality: int | None = None
    lossless: bool = False


Step = Decode | Weigh | Clear | Invert | Composite | Flatten | Fit | Encode
STEPS: dict[str, type[Step]] = {
    kind.__name__: kind for kind in (Decode, Weigh, Clear, Invert, Composite, Flatten, Fit, Encode)
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One that a job decodes. `name` and `param` are how an error calls it; `kind`, `pixels` and `alpha`, as its header
    has them, are for the estimate."""

    content: bytes | Blob = field(repr=False)
    max_pixels: int
    name: str
    param: str | None = None
    kind: str = "webp"
    pixels: int = 0
    alpha: bool = False

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size

    def read(self) -> bytes:
        """Its bytes. Blocks."""
        return self.content if isinstance(self.content, bytes) else self.content.read()


@dataclass(frozen=True, slots=True)
class Job:
    """Work on pixels. The first picture is the one that it is about: if the worker dies, that one is to blame."""

    pictures: tuple[Picture, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What the job made. A job that writes nothing, but only sees whether a picture decodes, has no data."""

    data: bytes = field(default=b"", repr=False)
    width: int = 0
    height: int = 0
    alpha: bool = False
    mode: str = ""


_MISTAKES: dict[str, type[InvalidRequest]] = {
    kind.__name__: kind for kind in (InvalidImage, ImageTooLarge, UnsupportedImage, InvalidValue)
}


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no picture, and which one is to blame, if one is."""

    kind: str  # a class of `app.errors`
    message: str
    param: str | None = None
    detail: str = ""
    picture: int | None = None

    def error(self) -> GatewayError:
        """As the caller's own mistake."""
        return _MISTAKES[self.kind](self.message, param=self.param, detail=self.detail)


def blamed(job: Job, says: str, detail: str, kind: str = "InvalidImage") -> Failed:
    """The failure of the picture that the job is about; `says` completes "the picture …"."""
    picture = job.pictures[0]
    return Failed(kind, f"{picture.name} {says}.", picture.param, detail, 0)


@dataclass(frozen=True, slots=True)
class Pixels(Generic[T]):
    """What is left of a piece of work once all else was done: a job, and what becomes of its end."""

    job: Job
    then: Callable[[Written], T]  # may block
    blame: Callable[[Failed], Exception] = Failed.error

    def settle(self, outcome: Written | Failed) -> T:
        """The end, once the job has ended."""
        if isinstance(outcome, Failed):
            raise self.blame(outcome)
        return self.then(outcome)


def in_process(begun: T | Pixels[T]) -> T:
    """The end of work, its pixels worked on here and now. Blocks."""
    return begun.settle(work(begun.job)) if isinstance(begun, Pixels) else begun


def work(job: Job) -> Written | Failed:
    """Carry it out. What it raises besides is a defect of ours. Blocks."""
    pile: list[Image.Image] = []
    written: Written | None = None
    for step in job.steps:
        try:
            match step:
                case Decode(index):
                    one = job.pictures[index]
                    pile.append(
                        decode(one.read(), max_pixels=one.max_pixels, upright=True, name=one.name, param=one.param)
                    )
                case Weigh():
                    pile[-1] = edit_weight(pile[-1])
                case Composite():
                    pile.append(blend(pile.pop(), pile.pop(), pile.pop()))  # nobody else holds what is used up
                case Flatten():
                    pile[-1] = on_white(pile[-1])
                case Clear():
                    pile[-1] = clear_where_white(pile[-1])
                case Invert():
                    pile[-1] = negative(pile[-1])
                case Fit(width, height):
                    pile[-1] = fit_exact(pile[-1], (width, height))
                case Encode(format, quality, lossless):
                    written = _written(encode(pile[-1], format, quality, lossless=lossless), format)
        except InvalidRequest as error:
            at = step.picture if isinstance(step, Decode) else None
            return Failed(type(error).__name__, error.message, error.param, error.detail, at)
        except MemoryError:
            return blamed(job, "takes more memory than there is for one picture", repr(step), "ImageTooLarge")
    return written or Written(b"", *pile[-1].size)


def _written(data: bytes, format: ImageFormat) -> Written:
    from PIL import Image

    with Image.open(BytesIO(data), formats=(format,)) as image:  # what a reader of the file will say
        return Written(data, *image.size, image.has_transparency_data, image.mode)


def estimate(job: Job) -> int:
    """Bytes that it takes at its peak: files as they are, pictures as they are decoded."""
    files = sum(picture.size for picture in job.pictures)
    pile: list[_Laid] = []
    peak = 0
    for step in job.steps:
        held = files + sum(one.bytes for one in pile)
        match step:
            case Decode(index):
                one = job.pictures[index]
                peak = max(peak, held + one.size + one.pixels * _DECODING.get(one.kind, 16))
                pile.append(_Laid(one.pixels, one.alpha))
            case Invert():
                peak = max(peak, held + pile[-1].bytes)
            case Weigh():
                peak = max(peak, held + pile[-1].pixels * 2)
                pile[-1] = pile[-1]._replace(width=1)
            case Clear():
                peak = max(peak, held + pile[-1].pixels * (1 + _PIXEL))
                pile[-1] = _Laid(pile[-1].pixels, alpha=True)
            case Composite():
                _, original, edit = pile[-3:]
                alpha = original.alpha or edit.alpha
                peak = max(peak, held + (original.bytes + edit.bytes if alpha else 0))
                pile[-3:] = [original._replace(alpha=alpha)]
            case Flatten():
                peak = max(peak, held + pile[-1].bytes)
                pile[-1] = pile[-1]._replace(alpha=False)
            case Fit(width, height):
                before, after = pile[-1], _Laid(width * height, pile[-1].alpha)
                between = min(
                    before.bytes, after.bytes * 3
                )  # scaled in one direction; first reduced to three times that
                peak = max(peak, held + after.bytes + (2 if after.alpha else 1) * (between + after.bytes * after.alpha))
                pile[-1] = after
            case Encode(format, quality, lossless):
                each = (_ENCODING_ALPHA if pile[-1].alpha else _ENCODING)[format]
                if format == "avif" and in_full_colour(format, quality):
                    each += _FULL_COLOUR
                peak = max(peak, held + pile[-1].pixels * (_LOSSLESS if lossless else each))
    return peak


class _Laid(NamedTuple):
    """A picture on the pile."""

    pixels: int
    alpha: bool
    width: int = _PIXEL  # bytes a pixel

    @property
    def bytes(self) -> int:
        return self.pixels * self.width
