"""Writes the *.http files beside it: whole requests as real clients put them on the wire, byte for byte.

Rebuilt from captures and sources of November 2026; the clients
themselves are too large to install for a test. Run it again after a change; the files are what the tests replay.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

HERE = Path(__file__).parent
# A PNG of 16x16 pixels.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mM8UWHDQApgYiARjGoY1TB0NAAAvaABnEhxGIsAAAAASUVORK5CYII="
)
DATA_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
MODEL = "qwen-image-edit-2509"


def part(headers: list[str], content: bytes) -> bytes:
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + content + b"\r\n"


def form(boundary: str, parts: list[bytes]) -> bytes:
    return b"".join(b"--" + boundary.encode() + b"\r\n" + one for one in parts) + f"--{boundary}--\r\n".encode()


def request(name: str, headers: list[str], body: bytes, path: str = "/openai/v1/images/edits") -> None:
    head = [f"POST {path} HTTP/1.1", "Host: gateway:8000", *headers, f"Content-Length: {len(body)}"]
    (HERE / f"{name}.http").write_bytes("\r\n".join(head).encode() + b"\r\n\r\n" + body)


def multipart(name: str, boundary: str, parts: list[bytes], headers: list[str], quoted: bool = False) -> None:
    word = f'"{boundary}"' if quoted else boundary
    request(name, [*headers, f"Content-Type: multipart/form-data; boundary={word}"], form(boundary, parts))


def open_webui() -> None:
    """aiohttp: every text part has its type, before its disposition; a list even for one picture; b64_json always."""
    boundary = "0d2f6f5a3c4e4d0f9a7b1c2d3e4f5061"
    text = "Content-Type: text/plain; charset=utf-8"
    fields = {"model": MODEL, "prompt": "make it night", "n": "1", "size": "512x512", "response_format": "b64_json"}
    parts = [
        part([text, f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()
    ]
    disposition = 'Content-Disposition: form-data; name="image[]"; filename="7c9e6679-7425-40de-944b-e07fc1f90ae7.png"'
    parts.append(part(["Content-Type: image/png", disposition], PNG))
    headers = [
        "Authorization: Bearer sk-test",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "User-Agent: Python/3.11 aiohttp/3.14.5",
    ]
    multipart("open-webui", boundary, parts, headers)


def librechat() -> None:
    """axios and form-data: image[] always, no response_format, quality and size auto."""
    boundary = "--------------------------306514986513250271431235"
    fields = {"model": MODEL, "prompt": "make it night", "quality": "auto", "size": "auto"}
    parts = [part([f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()]
    head = ['Content-Disposition: form-data; name="image[]"; filename="image.png"', "Content-Type: image/png"]
    parts.append(part(head, PNG))
    headers = ["Accept: application/json, text/plain, */*", "Authorization: Bearer sk-test", "User-Agent: axios/1.21.1"]
    multipart("librechat", boundary, parts, headers)


def librechat_azure() -> None:
    """The same in its Azure mode: api-key, api-version, the model in the path."""
    boundary = "--------------------------306514986513250271431236"
    fields = {"prompt": "make it night", "quality": "auto", "size": "auto"}
    parts = [part([f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()]
    head = ['Content-Disposition: form-data; name="image[]"; filename="image.png"', "Content-Type: image/png"]
    parts.append(part(head, PNG))
    body = form(boundary, parts)
    headers = [
        "Accept: application/json, text/plain, */*",
        "api-key: sk-test",
        f"Content-Type: multipart/form-data; boundary={boundary}",
    ]
    request(
        "librechat-azure", headers, body, f"/openai/deployments/{MODEL}/images/edits?api-version=2025-04-01-preview"
    )


def n8n() -> None:
    """form-data: `image` for a model that is not gpt-image-1; expects url rows."""
    boundary = "--------------------------915183840183950183450184"
    head = ['Content-Disposition: form-data; name="image"; filename="data.png"', "Content-Type: image/png"]
    parts = [part(head, PNG)]
    fields = {"model": MODEL, "prompt": "make it night", "n": "1", "size": "512x512", "quality": "standard"}
    parts += [
        part([f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()
    ]
    multipart("n8n", boundary, parts, ["Authorization: Bearer sk-test", "User-Agent: n8n", "Accept: application/json"])


def java() -> None:
    """openai-java on OkHttp: text parts say text/plain and their length; an InputStream has no file name at all."""
    boundary = "6f1b0f6e-8f1c-4c0f-9c8e-0f4a3e2d1c0b"
    length = "Content-Length: {}"
    image = [
        'Content-Disposition: form-data; name="image"',
        "Content-Type: application/octet-stream",
        length.format(len(PNG)),
    ]
    parts = [part(image, PNG)]
    for name, value in {"prompt": "make it night", "model": MODEL, "n": "1", "response_format": "url"}.items():
        head = [f'Content-Disposition: form-data; name="{name}"', "Content-Type: text/plain; charset=utf-8"]
        parts.append(part([*head, length.format(len(value))], value.encode()))
    headers = [
        "Authorization: Bearer sk-test",
        "X-Stainless-Lang: java",
        "X-Stainless-Retry-Count: 0",
        "User-Agent: OpenAIOkHttpClientImpl/Java 4.0.0",
        "Accept-Encoding: gzip",
    ]
    multipart("java-input-stream", boundary, parts, headers)


def java_list() -> None:
    """The same with a list: image[] parts, still without names."""
    boundary = "6f1b0f6e-8f1c-4c0f-9c8e-0f4a3e2d1c0c"
    image = ['Content-Disposition: form-data; name="image[]"', "Content-Type: application/octet-stream"]
    parts = [part(image, PNG), part(image, PNG)]
    for name, value in {"prompt": "make it night", "model": MODEL}.items():
        head = [f'Content-Disposition: form-data; name="{name}"', "Content-Type: text/plain; charset=utf-8"]
        parts.append(part(head, value.encode()))
    multipart("java-list", boundary, parts, ["Authorization: Bearer sk-test", "X-Stainless-Lang: java"])


def go() -> None:
    """openai-go: fields sorted by name, anonymous_file, octet-stream."""
    boundary = "1c1d4c25f3d0d2a4a5a5d5f8a0b9e1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6"
    head = [
        'Content-Disposition: form-data; name="image"; filename="anonymous_file"',
        "Content-Type: application/octet-stream",
    ]
    parts = [part(head, PNG)]
    for name, value in {"model": MODEL, "n": "1", "prompt": "make it night", "size": "512x512"}.items():
        parts.append(part([f'Content-Disposition: form-data; name="{name}"'], value.encode()))
    multipart(
        "go", boundary, parts, ["Authorization: Bearer sk-test", "User-Agent: OpenAI/Go 3.0.0", "X-Stainless-Lang: go"]
    )


def dotnet() -> None:
    """HttpClient: names without quotes, filename and filename*, the boundary quoted."""
    boundary = "a7a3f6de-9f9e-4a4f-8a23-3a0a1f6f2f4b"
    parts = []
    for name, value in {"model": MODEL, "prompt": "make it night"}.items():
        parts.append(
            part(
                ["Content-Type: text/plain; charset=utf-8", f"Content-Disposition: form-data; name={name}"],
                value.encode(),
            )
        )
    head = [
        "Content-Type: image/png",
        "Content-Disposition: form-data; name=image; filename=cat.png; filename*=utf-8''cat.png",
    ]
    parts.append(part(head, PNG))
    multipart("dotnet", boundary, parts, ["Authorization: Bearer sk-test"], quoted=True)


def lobechat() -> None:
    """openai-node with all of LobeChat's UI parameters spread into the form."""
    boundary = "----formdata-undici-056170420142"
    head = ['Content-Disposition: form-data; name="image"; filename="image-1.png"', "Content-Type: image/png"]
    parts = [part(head, PNG)]
    fields = {
        "input_fidelity": "high",
        "n": "1",
        "model": MODEL,
        "prompt": "make it\r\nnight",
        "seed": "7",
        "steps": "20",
        "cfg": "3.5",
        "aspectRatio": "1:1",
    }
    parts += [
        part([f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()
    ]
    multipart(
        "lobechat",
        boundary,
        parts,
        ["Authorization: Bearer sk-test", "User-Agent: OpenAI/JS 6.49.0", "X-Stainless-Lang: js"],
    )


def cherry_studio() -> None:
    """openai-node, always a list, and a type that does not exist."""
    boundary = "----formdata-undici-056170420143"
    head = ['Content-Disposition: form-data; name="image[]"; filename="cat.jpg"', "Content-Type: image/jpg"]
    fields = {"model": MODEL, "prompt": "make it night"}
    parts = [part([f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()]
    multipart("cherry-studio", boundary, [*parts, part(head, PNG)], ["Authorization: Bearer sk-test"])


def hermes() -> None:
    """A file part whose content is a link (here a data URI: nothing leaves the machine)."""
    boundary = "d1f1f5e6b0d94d06a1c3f1d2b3a4c5d6"
    head = ['Content-Disposition: form-data; name="image"; filename="image_url"', "Content-Type: text/plain"]
    parts = [part(head, DATA_URI.encode())]
    fields = {"prompt": "make it night", "model": MODEL, "n": "1", "output_format": "png", "response_format": "url"}
    parts += [
        part([f'Content-Disposition: form-data; name="{name}"'], value.encode()) for name, value in fields.items()
    ]
    multipart("hermes", boundary, parts, ["Authorization: Bearer sk-test"])


def json_clients() -> None:
    """JSON edits: OpenAI's own documents, and a browser extension."""
    headers = ["Authorization: Bearer sk-test", "Content-Type: application/json"]
    codex = {
        "model": MODEL,
        "prompt": "make it night",
        "images": [{"image_url": DATA_URI}],
        "size": "auto",
        "quality": "auto",
    }
    request("codex-json", headers, json.dumps(codex).encode())
    extension = {"model": MODEL, "prompt": "make it night", "image_url": DATA_URI}
    request("chrome-extension-json", headers, json.dumps(extension, indent=2).encode())
    bare = {"model": MODEL, "prompt": "make it night", "image_base64": base64.b64encode(PNG).decode()}
    request("base64-json", headers, json.dumps(bare).encode())


def words_alone() -> None:
    """JSON to images/generations: LangChain's two DALL-E tools (captured, langchain-community 0.4.2, @langchain/openai
    1.5.8, 2026-11-26), and Open WebUI."""
    path = "/openai/v1/images/generations"
    asked = {"model": "qwen-image", "prompt": "make it night", "n": 1, "size": "512x512"}
    bodies: dict[str, dict[str, object]] = {
        "langchain-community": asked,
        "langchain-js": asked | {"response_format": "url", "style": "vivid", "quality": "standard"},
        "open-webui-generations": asked | {"response_format": "b64_json"},
    }
    agents = {"langchain-community": "OpenAI/Python 3.57.0", "langchain-js": "OpenAI/JS 6.49.0"}
    for name, body in bodies.items():
        agent = agents.get(name, "Python/3.11 aiohttp/3.14.5")
        headers = ["Authorization: Bearer sk-test", "Content-Type: application/json", f"User-Agent: {agent}"]
        request(name, headers, json.dumps(body, separators=(",", ":")).encode(), path)


if __name__ == "__main__":
    for write in (
        open_webui,
        librechat,
        librechat_azure,
        n8n,
        java,
        java_list,
        go,
        dotnet,
        lobechat,
        cherry_studio,
        hermes,
        json_clients,
        words_alone,
    ):
        write()
