"""The sandbox really edits: what comes out is the picture that went in, changed as the words and the seed say."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image, ImageChops, ImageStat

from providers.fal_sandbox.edits import EFFECTS, Brush, chosen, edit, imagine
from providers.fal_sandbox.overlays import quoted
from tests.fakes.fal_calls import FalCalls, data_uri, opened, picture
from tests.fakes.sandbox import SandboxServer

SIZE = (192, 144)
SOURCE = opened(picture((256, 192))).convert("RGB")


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def fal(server: SandboxServer) -> Iterator[FalCalls]:
    server.reset()
    with FalCalls(server) as calls:
        yield calls


def brush(
    prompt: str, seed: int = 1, negative: str = "", guidance: float | None = None, steps: int | None = None
) -> Brush:
    return Brush(prompt, negative, guidance, steps, seed)


def edited(prompt: str, seed: int = 1, **more: float | str | None) -> Image.Image:
    return edit([SOURCE], None, SIZE, brush(prompt, seed, **more))  # type: ignore[arg-type]


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference per channel, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other.resize(one.size))).mean) / 3


def brightness(image: Image.Image) -> float:
    return ImageStat.Stat(image.convert("L")).mean[0]


def colourfulness(image: Image.Image) -> float:
    return ImageStat.Stat(image.convert("HSV").getchannel("S")).mean[0]


WORDS = {
    "mirror": "mirror it",
    "rotate": "rotate it by 90 degrees",
    "brighter": "brighter please",
    "darker": "make it darker",
    "contrast": "more contrast",
    "autumn": "in autumn",
    "warmer": "warmer",
    "cooler": "cooler",
    "vivid": "vivid colours",
    "pastel": "pastel tones",
    "tint": "paint the car blue",
    "sunset": "at sunset",
    "night": "make it night",
    "neon": "cyberpunk",
    "blur": "blurred background",
    "sharpen": "sharpen it",
    "cartoon": "as a cartoon",
    "painting": "a watercolor",
    "sketch": "a pencil sketch",
    "pixelate": "pixel art",
    "invert": "invert the colours",
    "grayscale": "black and white",
    "sepia": "sepia",
    "vintage": "a vintage look",
    "fog": "add fog",
    "snow": "it is snowing",
    "rain": "let it rain",
    "dreamy": "a dreamy mood",
    "glitch": "glitch",
    "grain": "film grain",
    "vignette": "a vignette",
    "frame": "in a white frame",
}


def test_every_effect_has_a_sentence_here() -> None:
    assert set(WORDS) == {effect.name for effect in EFFECTS}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_chooses_its_effect_and_the_effect_is_seen(name: str) -> None:
    assert name in [effect.name for effect in chosen(WORDS[name])]
    result = edited(WORDS[name])
    assert result.size == SIZE
    assert result.mode == "RGB"
    assert distance(result, SOURCE.resize(SIZE)) > 1.5


@pytest.mark.parametrize("name", [*WORDS, "nothing known"])
def test_the_same_seed_paints_the_same_and_another_does_not(name: str) -> None:
    prompt = WORDS.get(name, "what a place")
    first, again, other = edited(prompt, 5), edited(prompt, 5), edited(prompt, 6)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_the_words_mean_what_they_say() -> None:
    plain = brightness(SOURCE)
    assert brightness(edited("night")) < plain - 30
    assert brightness(edited("darker")) < plain - 15 < plain + 15 < brightness(edited("brighter"))
    assert colourfulness(edited("black and white")) < 6
    red, _, blue = ImageStat.Stat(edited("sepia")).mean
    assert red > blue + 20
    assert distance(edited("invert"), SOURCE.resize(SIZE)) > 60
    assert distance(edited("mirror"), SOURCE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) < 20


def test_without_a_known_word_it_is_still_the_picture_but_not_unchanged() -> None:
    assert chosen("put a dog on the bench") == ()
    assert 4 < distance(edited("put a dog on the bench"), SOURCE) < 60


def test_words_combine_and_a_negative_prompt_takes_one_away() -> None:
    assert [e.name for e in chosen("night with rain")] == ["night", "rain"]
    assert [e.name for e in chosen("night with rain", "rain, people")] == ["night"]


def test_a_word_inside_another_is_no_word() -> None:
    assert chosen("train a knight in ukraine, terrain, shredded") == ()


def test_guidance_makes_it_stronger() -> None:
    weak, strong = edited("darker", guidance=1.0), edited("darker", guidance=12.0)
    assert brightness(strong) < brightness(weak) - 10


def test_quoted_text_is_written_big_and_chooses_no_effect() -> None:
    assert quoted('write "Rain check" on top') == ["Rain check"]
    assert quoted("the sign says 'OPEN', don't change it") == ["OPEN"]
    assert chosen('write "night rain"') == ()
    whites = edited('the sign says "OPEN"').convert("L").histogram()[250:]
    assert sum(whites) > 200


def test_further_pictures_are_laid_on_the_first() -> None:
    one = edit([SOURCE], None, SIZE, brush("sharpen"))
    pair = [SOURCE, Image.new("RGB", (90, 90), "magenta")]
    two = edit(pair, None, SIZE, brush("sharpen"))
    corner = (SIZE[0] // 2, SIZE[1] // 2, *SIZE)
    assert distance(one.crop(corner), two.crop(corner)) > 10
    assert distance(one.crop((0, 0, 90, 70)), two.crop((0, 0, 90, 70))) < 1


def test_only_the_white_of_a_mask_changes() -> None:
    mask = Image.new("L", SOURCE.size)
    mask.paste(255, (SOURCE.width // 2, 0, SOURCE.width, SOURCE.height))
    result = edit([SOURCE], mask, SIZE, brush("invert"))
    plain = SOURCE.resize(SIZE, Image.Resampling.LANCZOS)
    left, right = (0, 0, 80, 120), (112, 0, 192, 120)
    assert distance(result.crop(left), plain.crop(left)) < 3
    assert distance(result.crop(right), plain.crop(right)) > 40


def test_text_to_image_draws_by_prompt_and_seed() -> None:
    one, again = imagine(SIZE, brush("a valley", 1)), imagine(SIZE, brush("a valley", 1))
    assert one.tobytes() == again.tobytes()
    assert distance(one, imagine(SIZE, brush("a valley", 2))) > 5
    assert distance(one, imagine(SIZE, brush("a river", 1))) > 5


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2), (16, 16)])
def test_any_size_can_be_painted(size: tuple[int, int]) -> None:
    everything = ", ".join(WORDS.values()) + ' and write "hello there"'
    assert edit([SOURCE, SOURCE], None, size, brush(everything, steps=3)).size == size
    assert imagine(size, brush(everything)).size == size


def test_the_input_is_cropped_to_cover_the_asked_size(fal: FalCalls) -> None:
    flat = opened(picture((64, 64), "white"))
    flat.paste((200, 30, 30), (0, 16, 64, 48))
    buffer = io.BytesIO()
    flat.save(buffer, "PNG")
    wide = {"width": 128, "height": 64}
    image = fal.picture(prompt="sharpen", image_urls=[data_uri(buffer.getvalue())], image_size=wide)
    red, green, _ = image.getpixel((64, 6))  # type: ignore[misc]
    assert red > 150 > 80 > green  # no white bar is left above


def test_an_input_is_read_upright_flat_and_first_frame_only(fal: FalCalls) -> None:
    upright = Image.new("RGB", (60, 30), "blue")
    exif = upright.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", exif=exif)
    answer = fal.edit("fal-ai/qwen-image-edit-2511", image_urls=[data_uri(buffer.getvalue())], image_size=...)
    image = answer.json()["images"][0]
    assert (image["width"], image["height"]) == (30, 60)
    frames = [Image.new("RGBA", (40, 40), colour) for colour in ("lime", "red")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    red, green, _ = ImageStat.Stat(fal.picture(prompt="sharpen", image_urls=[data_uri(buffer.getvalue())])).mean
    assert green > 180 > 60 > red


def test_several_pictures_of_one_request_differ_and_the_first_is_the_seeds_own(fal: FalCalls) -> None:
    many = fal.edit(seed=9, num_images=2, prompt="snow").json()["images"]
    one = fal.edit(seed=9, prompt="snow").json()["images"][0]
    data = [fal.http.get(image["url"]).content for image in (*many, one)]
    assert data[0] == data[2] != data[1]
