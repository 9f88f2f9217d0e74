"""Pictures by URL: fetched by the gateway, under its guard, and every failure names the field and is a 400."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import MODEL, Served, StartGateway
from tests.fakes.web import WebServer
from tests.media.pictures import sample


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    pictures = {"/a.png": sample("png"), "/b.webp": sample("webp"), "/c.gif": sample("gif")}
    with WebServer(pictures) as server:
        yield server


@pytest.fixture(scope="module")
def near(start_gateway: StartGateway, web: WebServer) -> Served:
    """A gateway whose operator allows this one server."""
    return start_gateway(IMAGEGATE_IMAGE_ORIGINS=web.url, IMAGEGATE_LIMITS_FETCH_SECONDS="2")


def edit(gateway: Served, **body: Any) -> Any:
    return gateway.post({"model": MODEL, "prompt": "sepia", "size": "256x256"} | body)


@pytest.mark.parametrize(
    "body",
    [
        lambda url: {"image_url": url},
        lambda url: {"image": url},
        lambda url: {"image": [url]},
        lambda url: {"images": [{"image_url": url}]},
        lambda url: {"images": [{"type": "image_url", "image_url": {"url": url}}]},
    ],
)
def test_every_spelling_of_a_url_is_fetched(near: Served, web: WebServer, body: Any) -> None:
    answer = edit(near, **body(f"{web.url}/a.png"))
    assert answer.status_code == 200, answer.text


def test_several_urls_keep_their_order(near: Served, web: WebServer, new_jobs: Callable[[], list[Any]]) -> None:
    answer = edit(near, images=[{"image_url": f"{web.url}/{name}"} for name in ("b.webp", "a.png", "c.gif")])
    assert answer.status_code == 200, answer.text
    [job] = new_jobs()
    assert [picture["mime"] for picture in job["payload"]["image_urls"]] == ["image/webp", "image/png", "image/png"]


def test_a_url_in_a_form_is_fetched_as_text_and_as_a_file(near: Served, web: WebServer) -> None:
    data = {"model": MODEL, "prompt": "sepia", "size": "256x256"}
    url = f"{web.url}/a.png"
    for files in ([("image", (None, url))], [("image", ("image_url", url.encode(), "text/plain"))]):
        answer = near.post(data=data, files=files)
        assert answer.status_code == 200, answer.text


def test_a_redirect_within_the_allowed_origin_is_followed(near: Served, web: WebServer) -> None:
    assert edit(near, image_url=f"{web.url}/redirect?to=/a.png").status_code == 200


def test_nothing_secret_is_sent_along(near: Served, web: WebServer) -> None:
    web.asked.clear()
    edit(near, image_url=f"{web.url}/a.png")
    [(_, headers)] = web.asked
    assert not {"authorization", "cookie", "referer", "api-key"} & set(headers)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/loop", "invalid_image_url"),
        ("/redirect?to=http://127.0.0.1:1/", "invalid_image_url"),
        ("/redirect?to=http://169.254.169.254/latest/meta-data", "invalid_image_url"),
        ("/redirect?to=file:///etc/passwd", "invalid_image_url"),
        ("/huge", "image_too_large"),
        ("/hang-up", "invalid_image_url"),
        ("/html", "unsupported_file_mimetype"),
        ("/gzip", "invalid_image_url"),
        ("/missing", "invalid_image_url"),
        ("/error", "invalid_image_url"),
    ],
)
def test_what_goes_wrong_out_there_is_the_callers_400(near: Served, web: WebServer, path: str, code: str) -> None:
    answer = edit(near, image_url=web.url + path)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, "image_url")
    assert answer.headers["x-should-retry"] == "false"


def test_a_dripping_server_is_left(near: Served, web: WebServer) -> None:
    answer = near.post(
        {"model": MODEL, "prompt": "sepia", "image_url": f"{web.url}/drip"},
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert json.loads(answer.content)["error"]["code"] == "invalid_image_url"


def test_the_allowance_is_for_that_origin_alone(gateway: Served, near: Served, web: WebServer) -> None:
    with WebServer({"/a.png": sample("png")}) as other:
        for served, url in ((near, other.url), (gateway, web.url)):
            answer = edit(served, image_url=f"{url}/a.png")
            assert answer.json()["error"]["code"] == "invalid_image_url"
        assert other.asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 11},
        {"prompt": ""},
        {"model": "nothing"},
        {"size": "banana"},
        {"acceleration": "x"},
        {"markup": "x"},
    ],
)
def test_what_is_wrong_with_the_words_is_said_before_anything_is_fetched(
    near: Served, web: WebServer, wrong: dict[str, Any]
) -> None:
    web.asked.clear()
    answer = edit(near, image_url=f"{web.url}/a.png", **wrong)
    assert answer.json()["error"]["param"] == next(iter(wrong))
    assert web.asked == []
