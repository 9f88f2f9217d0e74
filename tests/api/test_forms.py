"""multipart/form-data as clients really write it, and as broken ones do."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from tests.api.raw import BOUNDARY, DRY, EDITS, FORM, Part, fields, file, form, plan, post, refused, text
from tests.conftest import MODEL, Json, Served
from tests.media.pictures import sample

PNG = sample("png")
PLAIN = "text/plain; charset=utf-8"
SEEN = "<picture 1: image/png, 64x48"

# ---- spellings that have to work

JAVA = [
    text("model", MODEL, type=PLAIN),
    text("prompt", "a", type=PLAIN),
    file(filename=None, type="application/octet-stream"),
]
OPEN_WEBUI = [
    (b"Content-Type: text/plain; charset=utf-8\r\n" + text(name, value)[0], value.encode())
    for name, value in (("model", MODEL), ("prompt", "a"))
] + [(b'Content-Type: image/png\r\nContent-Disposition: form-data; name="image[]"; filename="u-u-i-d.png"', PNG)]
DOTNET: list[Part] = [
    (b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model", MODEL.encode()),
    (b"Content-Disposition: form-data; name=prompt", b"a"),
    (b"Content-Disposition: form-data; name=image; filename=a.png; filename*=utf-8''a.png", PNG),
]


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([*fields(), file()], id="the usual"),
        pytest.param([file(), *fields()], id="picture first"),
        pytest.param(JAVA, id="Java"),
        pytest.param(OPEN_WEBUI, id="Open WebUI"),
        pytest.param(DOTNET, id=".NET"),
        pytest.param([*fields(), file("image[]")], id="image[]"),
        pytest.param([*fields(), file("image[0]")], id="image[0]"),
        pytest.param([*fields(), file("images")], id="images"),
        pytest.param([*fields(), file("images[]")], id="images[]"),
        pytest.param([*fields(), file(filename="")], id="empty file name"),
        pytest.param([*fields(), file(filename=None)], id="no file name, no type"),
        pytest.param([*fields(), file(type="text/html", filename="a.html")], id="lies about its type"),
        pytest.param([*fields(), file(filename="../../etc/passwd")], id="hostile file name"),
        pytest.param([*fields(), file(filename="x" * 3000)], id="long file name"),
        pytest.param(
            [*fields(n="", size="null", seed="undefined", mask="None"), file()], id="nothing in four spellings"
        ),
        pytest.param([*fields(), file(), file("mask", b"", filename="")], id="a file input left empty"),
        pytest.param([*fields(), (b"content-disposition: FORM-DATA; NAME=image; FILENAME=a", PNG)], id="letter case"),
        pytest.param(
            [*fields(), (b'X-Other: 1\r\nContent-Disposition: form-data;name="image";filename="a"\r\nX-More: 2', PNG)],
            id="other headers",
        ),
    ],
)
def test_every_clients_form_is_read(gateway: Served, parts: list[Part]) -> None:
    payload = plan(post(gateway, form(*parts)))
    assert payload["prompt"] == "a"
    assert [one[: len(SEEN)] for one in payload["image_urls"]] == [SEEN]
    assert "seed" not in payload


@pytest.mark.parametrize(
    "type",
    [
        f'multipart/form-data; boundary="{BOUNDARY.decode()}"',
        f"Multipart/Form-Data;Boundary={BOUNDARY.decode()}",
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY.decode()}",
        f"MULTIPART/FORM-DATA ; boundary={BOUNDARY.decode()} ; x=y",
    ],
)
def test_every_spelling_of_the_content_type_is_read(gateway: Served, type: str) -> None:
    plan(post(gateway, form(*fields(), file()), type))


def test_what_follows_the_last_boundary_is_no_part(gateway: Served) -> None:
    plan(post(gateway, form(*fields(), file()) + b"epilogue\r\n"))
    plan(post(gateway, b"\r\n" + form(*fields(), file())))


def test_pictures_keep_their_order_and_numbers_count(gateway: Served) -> None:
    sizes = {0: (32, 32), 1: (48, 32), 2: (64, 32)}
    numbered = [file(f"image[{at}]", sample("png", size=sizes[at])) for at in (2, 0, 1)]
    payload = plan(post(gateway, form(*fields(), *numbered)))
    assert [one.split(", ")[1] for one in payload["image_urls"]] == ["32x32", "48x32", "64x32"]
    repeated = [file("image", sample("png", size=sizes[at])) for at in (2, 0, 1)]
    payload = plan(post(gateway, form(*fields(), *repeated)))
    assert [one.split(", ")[1] for one in payload["image_urls"]] == ["64x32", "32x32", "48x32"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("image", b"data:image/png;base64," + base64.b64encode(PNG)),
        ("image", b"  DATA:image/png;base64," + base64.b64encode(PNG) + b"\r\n"),
        ("image_url", b"data:;base64," + base64.b64encode(PNG)),
        ("images[][image_url]", b"data:image/png;base64," + base64.b64encode(PNG)),
        ("images[0][image_url][url]", b"data:image/png;base64," + base64.b64encode(PNG)),
        ("image_base64", base64.b64encode(PNG)),
        ("image_base64", base64.urlsafe_b64encode(PNG).rstrip(b"=")),
        ("images[][image_base64]", base64.encodebytes(PNG)),
        ("image_base64", PNG),
    ],
)
@pytest.mark.parametrize("filename", [None, "x.txt"])
def test_a_picture_may_be_spelled_out(gateway: Served, name: str, content: bytes, filename: str | None) -> None:
    payload = plan(post(gateway, form(*fields(), file(name, content, filename=filename))))
    assert payload["image_urls"][0].startswith(SEEN)


def test_line_ends_of_the_web_become_plain_ones(gateway: Served, new_jobs: Callable[[], list[Json]]) -> None:
    parts = [*fields(prompt="one\r\ntwo\r\n\r\nthree\rfour"), file(), text("size", "64x64")]
    assert post(gateway, form(*parts), path=EDITS).status_code == 200
    assert new_jobs()[0]["payload"]["prompt"] == "one\ntwo\n\nthree\rfour"


def test_a_text_may_come_as_a_file(gateway: Served) -> None:
    parts = [text("model", MODEL), file("prompt", "schön".encode(), filename="words.txt"), file()]
    assert plan(post(gateway, form(*parts)))["prompt"] == "schön"


def test_a_prompt_may_say_null(gateway: Served) -> None:
    for word in ("null", "None", "undefined"):
        assert plan(post(gateway, form(*fields(prompt=word), file())))["prompt"] == word


def test_lists_of_objects_in_the_spelling_of_both_sdks(gateway: Served) -> None:
    grouped = ["loras[][path]=a", "loras[][path]=b", "loras[][scale]=0.5", "loras[][scale]=1"]
    interleaved = ["loras[][path]=a", "loras[][scale]=0.5", "loras[][path]=b", "loras[][scale]=1"]
    numbered = ["loras[0][path]=a", "loras[0][scale]=0.5", "loras[1][path]=b", "loras[1][scale]=1"]
    for spelling in (grouped, interleaved, numbered):
        more = [text(*one.split("=")) for one in spelling]
        payload = plan(post(gateway, form(*fields(), file(), *more)))
        assert payload["loras"] == [{"path": "a", "scale": "0.5"}, {"path": "b", "scale": "1"}]


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a[b]"],
        ["a[b]", "a"],
        ["a[]", "a[b]"],
        ["a[b]", "a[b]"],
        ["a[0]", "a[0]"],
        ["a[]", "a[][b]"],
        ["a[b]", "a[b][c]"],
        ["a[][b]", "a[][b]", "a[][c]"],  # whose is c?
        ["a[][b][]", "a[][b][]"],  # one element or two?
        ["a[1000]"],
        ["a" + "[b]" * 9],
    ],
)
def test_fields_that_can_be_read_in_two_ways_are_refused(gateway: Served, names: list[str]) -> None:
    refused(post(gateway, form(*fields(), file(), *(text(name, "x") for name in names))), 400, "invalid_value", "a")


# ---- bodies that are none


@pytest.mark.parametrize(
    ("body", "type"),
    [
        pytest.param(b"", FORM, id="empty"),
        pytest.param(form(), FORM, id="no parts"),
        pytest.param(form(*fields(), file(), line=b"\n"), FORM, id="LF only"),
        pytest.param(form(*fields(), file()), "multipart/form-data; boundary=another", id="another boundary"),
        pytest.param(form(*fields(), file()), "multipart/form-data", id="no boundary"),
        pytest.param(form(*fields(), file()), "multipart/form-data; boundary=", id="empty boundary"),
        pytest.param(form(*fields(), file()), "multipart/form-data; boundary=" + "x" * 300, id="long boundary"),
        pytest.param(form(*fields(), file(), end=b""), FORM, id="no last boundary"),
        pytest.param(form(*fields(), file())[:-60], FORM, id="cut off in the picture"),
        pytest.param(form(*fields(), file())[:40], FORM, id="cut off in a header"),
        pytest.param(b"preamble\r\n" + form(*fields(), file()), FORM, id="preamble"),
        pytest.param(b'{"model": "x"}', FORM, id="JSON"),
        pytest.param(b"\x00" * 5000, FORM, id="zeros"),
        pytest.param(form((b"Content-Disposition: form-data", b"x")), FORM, id="a part without a name"),
        pytest.param(form((b'Content-Disposition: form-data; name=""', b"x")), FORM, id="an empty name"),
        pytest.param(form((b'Content-Disposition: attachment; name="x"', b"x")), FORM, id="no form-data"),
        pytest.param(form((b"X-Y: z", b"x")), FORM, id="no disposition"),
        pytest.param(form((b'Content-Disposition: form-data; name="\xff"', b"x")), FORM, id="a name not in UTF-8"),
        pytest.param(form((b'Content-Disposition: form-data; name="a\x00b"', b"x")), FORM, id="NUL in a name"),
        pytest.param(form(text("x" * 300, "x")), FORM, id="a long name"),
        pytest.param(form((b"X: " + b"y" * 100_000, b"x")), FORM, id="a long header"),
        pytest.param(form((b"\r\n".join([b"X: y"] * 500), b"x")), FORM, id="many headers"),
        pytest.param(
            form(*fields(), (file()[0] + b"\r\nContent-Transfer-Encoding: base64", base64.b64encode(PNG))),
            FORM,
            id="transfer encoding",
        ),
    ],
)
def test_a_body_that_is_no_whole_form_is_refused(gateway: Served, body: bytes, type: str) -> None:
    refused(post(gateway, body, type), 400, "invalid_body")


def test_nodes_buffer_mistake_is_explained(gateway: Served) -> None:
    """A Buffer that was not wrapped in toFile() arrives as one field for each of its bytes."""
    mistake = [text(f"image[{at}]", str(byte)) for at, byte in enumerate(PNG)]
    message = refused(post(gateway, form(*fields(), *mistake)), 400, "invalid_body")
    assert "toFile" in message


@pytest.mark.parametrize("count", [201, 20_000])
def test_too_many_fields(gateway: Served, count: int) -> None:
    many = [text(f"x{at}", "1") for at in range(count)]
    refused(post(gateway, form(*fields(), *many)), 400, "invalid_body")


@pytest.mark.parametrize("name", ["model", "prompt", "n", "size", "seed"])
def test_a_parameter_given_twice_is_refused(gateway: Served, name: str) -> None:
    once = {"model": MODEL, "prompt": "a", "n": "1", "size": "64x64", "seed": "1"}
    twice = [*(text(*pair) for pair in once.items()), text(name, once[name]), file()]
    answer = post(gateway, form(*twice))
    assert answer.json()["error"]["code"] in ("invalid_type", "invalid_value")
    assert answer.json()["error"]["param"] == name


def test_text_that_is_not_utf8_is_refused(gateway: Served) -> None:
    parts = [text("model", MODEL), (text("prompt", "")[0], "schön".encode("latin-1")), file()]
    refused(post(gateway, form(*parts)), 400, "invalid_value", "prompt")


def test_a_file_where_none_belongs_is_refused(gateway: Served) -> None:
    for content in (PNG, b"x" * 200_000):
        answer = post(gateway, form(*fields(), file(), file("control[]", content)))
        refused(answer, 400, "unsupported_parameter", "control")


def test_the_words_before_a_body_are_read_whatever_its_chunks(gateway: Served) -> None:
    """Sent in pieces of one byte and of seven, as a slow line would."""
    body = form(*fields(prompt="schön"), file())
    for size in (1, 7, 1000):
        pieces = (body[at : at + size] for at in range(0, len(body), size))
        answer = gateway.http.post(DRY, content=pieces, headers={"content-type": FORM})
        assert plan(answer)["prompt"] == "schön"


def test_references_as_json_text_in_a_field(gateway: Served, new_jobs: Callable[[], list[Json]]) -> None:
    uri = "data:image/png;base64," + base64.b64encode(sample("png")).decode()
    value = json.dumps([{"image_url": uri}, {"image_url": {"url": uri}}])
    answer = post(gateway, form(*fields(size="64x64"), text("images", value)), path=EDITS)
    assert answer.status_code == 200, answer.text
    [job] = new_jobs()
    assert len(job["payload"]["image_urls"]) == 2


def test_an_empty_file_is_called_empty(gateway: Served) -> None:
    answer = post(gateway, form(*fields(), file(content=b"")), path=EDITS)
    refused(answer, 400, "invalid_image_file", "image")
    assert "Image 1 is empty." in answer.text
