"""fal's protocol call by call, by hand: what a test needs when it wants to see each answer."""

from __future__ import annotations

import base64
import io
import time
from types import TracebackType
from typing import Any

import httpx2
from PIL import Image

from tests.fakes.sandbox import KEY, SandboxServer

EDIT = "fal-ai/qwen-image-edit-2509"


def picture(size: tuple[int, int] = (96, 64), colour: str | None = None, form: str = "PNG") -> bytes:
    """A picture with something in it: two ramps and a bright block, or one colour."""
    if colour is not None:
        image = Image.new("RGB", size, colour)
    else:
        across = Image.linear_gradient("L").rotate(90).resize(size)
        image = Image.merge("RGB", (across, Image.linear_gradient("L").resize(size), Image.new("L", size, 90)))
        image.paste((240, 240, 200), (size[0] // 2, size[1] // 4, size[0] * 3 // 4, size[1] // 2))
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def data_uri(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


class FalCalls:
    """A client that follows what the sandbox answers. Every method returns the HTTP response."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        self.http = httpx2.Client(trust_env=False, verify=False, timeout=10)
        self.key = {"Authorization": f"Key {KEY}"}

    def __enter__(self) -> FalCalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def payload(self, **fields: Any) -> dict[str, Any]:
        """A small valid edit; a field given as None is sent as null, and `...` leaves it out."""
        small = {"width": 96, "height": 64}
        body = {"prompt": "make it night", "image_urls": [data_uri(picture())], "image_size": small, **fields}
        return {name: value for name, value in body.items() if value is not ...}

    def submit(
        self,
        body: Any = None,
        endpoint: str = EDIT,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx2.Response:
        return self.http.post(
            f"{self.sandbox.url}/queue/{endpoint}",
            json=self.payload() if body is None else body,
            headers={**self.key, **(headers or {})},
            params=params or {},
        )

    def run(self, body: Any = None, endpoint: str = EDIT, headers: dict[str, str] | None = None) -> httpx2.Response:
        return self.http.post(
            f"{self.sandbox.url}/run/{endpoint}",
            json=self.payload() if body is None else body,
            headers={**self.key, **(headers or {})},
        )

    def status(self, job: dict[str, Any], **params: str) -> httpx2.Response:
        return self.http.get(job["status_url"], headers=self.key, params=params)

    def result(self, job: dict[str, Any], headers: dict[str, str] | None = None) -> httpx2.Response:
        return self.http.get(job["response_url"], headers={**self.key, **(headers or {})})

    def cancel(self, job: dict[str, Any], headers: dict[str, str] | None = None) -> httpx2.Response:
        return self.http.put(job["cancel_url"], headers={**self.key, **(headers or {})})

    def listing(self, **params: str) -> httpx2.Response:
        """Requests to EDIT, or to the `endpoint_id` that is given."""
        url = f"{self.sandbox.url}/api/v1/models/requests/by-endpoint"
        return self.http.get(url, headers=self.key, params={"endpoint_id": EDIT, **params})

    def wait(self, job: dict[str, Any], state: str = "COMPLETED") -> httpx2.Response:
        """Poll until the job is in `state`; returns that status answer."""
        limit = time.monotonic() + 8
        while time.monotonic() < limit:
            answer = self.status(job)
            if answer.json()["status"] == state:
                return answer
            time.sleep(0.01)
        raise AssertionError(f"the job never became {state}")

    def edit(self, endpoint: str = EDIT, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """Submit, wait, fetch: the result's answer."""
        job = self.submit(self.payload(**fields), endpoint, headers).json()
        self.wait(job)
        return self.result(job)

    def picture(self, **fields: Any) -> Image.Image:
        """Edit and download the first picture."""
        answer = self.edit(**fields)
        assert answer.status_code == 200, answer.text
        return opened(self.http.get(answer.json()["images"][0]["url"]).content)

    def upload(self, data: bytes, mime: str = "image/png", headers: dict[str, str] | None = None) -> str:
        """Route C: ticket and PUT. Returns the file's URL."""
        ticket = self.initiate(mime, headers=headers).json()
        done = self.http.put(ticket["upload_url"], content=data, headers={"Content-Type": mime})
        assert done.status_code == 200, done.text
        return str(ticket["file_url"])

    def initiate(
        self, mime: str = "image/png", storage: str = "fal-cdn-v3", headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        return self.http.post(
            f"{self.sandbox.url}/rest/storage/upload/initiate",
            params={"storage_type": storage},
            json={"file_name": "in put.png", "content_type": mime},
            headers={**self.key, **(headers or {})},
        )
