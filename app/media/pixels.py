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
from app.media.encode import encode, on_white
from app.media.fit import composite, fit_exact
from providers.base import Blob

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

# Bytes a pixel at the peak, the picture itself and one copy of it included (12 MP, Pillow 13, November 2026).
_DECODING = {"png": 8, "jpeg": 10, "gif": 8, "webp": 16, "avif": 12}
_ENCODING = {"png": 4, "jpeg": 9, "gif": 12, "webp": 9, "avif": 27}  # beside the picture
_LOSSLESS = 21
_COMPOSITING = 24  # edit and original premultiplied, the weight, the result: of the original's pixels
_PIXEL = 4  # Pillow keeps RGB in four bytes


class Decode(NamedTuple):
    """Lay picture `picture` of the job on the pile, upright."""

    picture: int


class Composite(NamedTuple):
    """Edit, original and mask become the original with the edit in it."""


class Flatten(NamedTuple):
    """Put it on white."""


class Fit(NamedTuple):
    """Make it exactly this large."""

    width: int
    height: int


class Encode(NamedTuple):
    """Write it."""

    format: ImageFormat
    quality: int | None = None
    lossless: bool = False


Step = Decode | Composite | Flatten | Fit | Encode
STEPS: dict[str, type[Step]] = {kind.__name__: kind for kind in (Decode, Composite, Flatten, Fit, Encode)}


@dataclass(frozen=True, slots=True)
class Picture:
    """One that a job decodes. `name` and `param` are how an error calls it; `kind` and `pixels`, as its header has
    them, are for the estimate."""

    content: bytes | Blob = field(repr=False)
    max_pixels: int
    name: str
    param: str | None = None
    kind: str = "webp"
    pixels: int = 0

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
                case Composite():
                    pile[-3:] = [composite(*pile[-3:])]
                case Flatten():
                    pile[-1] = on_white(pile[-1])
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
    """Bytes of decoded pictures at its peak."""
    pile: list[int] = []  # pixels
    peak = 0
    for step in job.steps:
        held = _PIXEL * sum(pile)
        match step:
            case Decode(index):
                one = job.pictures[index]
                peak = max(peak, held + one.pixels * _DECODING.get(one.kind, 16))
                pile.append(one.pixels)
            case Composite():
                original = pile[-2]
                peak = max(peak, held + original * _COMPOSITING)
                pile[-3:] = [original]
            case Flatten():
                peak = max(peak, held + pile[-1] * _PIXEL * 2)
            case Fit(width, height):
                peak = max(peak, held + width * height * _PIXEL * 2)
                pile[-1] = width * height
            case Encode(format, _, lossless):
                peak = max(peak, held + pile[-1] * (_LOSSLESS if lossless else _ENCODING[format]))
    return peak
