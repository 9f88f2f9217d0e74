"""Where faults meet calls: takes what is due from the request and the script, and bends the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .faults import JOB, Fault, Point, Script, Strike, UnknownFault, parse
from .hosts import Keys, say
from .replies import Reply, as_json, infra_error, locked, model_error_of, nginx, no_user, plain
from .wire import Dropped, Hung, Truncated, dripping, padded, response

Handler = Callable[[tuple[Strike, ...]], Awaitable[Response]]
"""Answers the call rightly, but for the faults that are its own: those of jobs, pictures, ids and cancellation."""


class Interference:
    def __init__(self, script: Script, keys: Keys) -> None:
        self._script = script
        self._keys = keys

    async def around(self, point: Point, endpoint: str | None, request: Request, handler: Handler) -> Response:
        """Answer a call, with the faults that header, query and script hold for it."""
        try:
            asked = ",".join(request.headers.getlist("x-sandbox-fault") + request.query_params.getlist("sandbox_fault"))
            strikes = parse(asked, point) + self._script.take(point, endpoint)
        except UnknownFault as error:
            return response(plain(400, str(error)))
        if point not in (Point.PUT, Point.CDN) and self._keys.refuse(request):
            return say(no_user())
        for struck in strikes:
            if struck.fault is Fault.DELAY:
                await asyncio.sleep(float(struck["seconds"]))
            elif struck.fault is Fault.DROP_BEFORE:
                return Dropped()
            elif struck.fault is Fault.HANG and not struck["late"]:
                return Hung()
            elif (reply := _instead(struck, point)) is not None:
                # what fal itself answers carries its request id; the ingress and the CDN know none
                nameless = struck.fault is Fault.UNAVAILABLE_NGINX or point in (Point.PUT, Point.CDN)
                return response(reply) if nameless else say(reply)
        answer = await handler(strikes)
        for struck in strikes:
            answer = _bent(answer, struck)
        return answer


def _instead(struck: Strike, point: Point) -> Reply | None:
    """The answer that takes the place of the right one, if this fault is of that kind."""
    match struck.fault:
        case Fault.HTTP:
            body, status = struck["body"], int(struck["status"])
            headers = {str(k): str(v) for k, v in struck["headers"].items()}
            if isinstance(body, str):
                return Reply(status, body.encode(), headers, headers.pop("content-type", "text/plain"))
            return as_json(body if body is not None else {"detail": "Internal Server Error"}, status, headers)
        case Fault.RATE_LIMIT:
            return infra_error("concurrent_requests_limit", {"Retry-After": f"{struck['retry_after']:g}"})
        case Fault.LOCKED:
            return locked(struck["reason"])
        case Fault.UNAUTHORIZED:
            return no_user()
        case Fault.UNAVAILABLE_NGINX:
            return nginx(int(struck["status"]))
        case Fault.MODEL_ERROR if point not in JOB or struck["at"] == "reply":
            return model_error_of(struck["type"])
        case Fault.INFRA_ERROR if point not in JOB or struck["at"] == "reply":
            return infra_error(struck["error_type"])
        case Fault.REDIRECT:
            return Reply(307, b"", {"Location": str(struck["location"])})
        case Fault.LOSE_RESULT if point is Point.RESULT:
            return plain(404, "Request not found")
        case _:
            return None


def _bent(answer: Response, struck: Strike) -> Response:
    """The right answer, spoilt on its way."""
    match struck.fault:
        case Fault.DROP_AFTER:
            return Dropped()
        case Fault.HANG:
            return Hung()
        case Fault.STATUS_WORD:
            return _changed(answer, {"status": struck["word"]}) if answer.status_code < 400 else answer
        case Fault.GARBAGE_JSON:
            return Response(b'{"status": "COMPLETED", "images": [{"url": "htt', 200, media_type="application/json")
        case Fault.WRONG_CONTENT_TYPE | Fault.LIE_CONTENT_TYPE if _is_about_the_answer(answer, struck):
            answer.headers["content-type"] = str(struck["content_type"])
            return answer
        case Fault.TRUNCATE:
            return Truncated(answer)
        case Fault.DRIP:
            return dripping(answer, float(struck["bytes_per_second"]))
        case Fault.HUGE:
            return padded(answer, int(struck["bytes"]), bool(struck["chunked"]))
        case Fault.CORRUPT_IMAGE if answer.headers.get("content-type", "").startswith("image/"):
            body = bytes(answer.body)
            return Response(body[: len(body) // 2], answer.status_code, media_type=answer.headers["content-type"])
        case Fault.BAD_REQUEST_ID | Fault.FOREIGN_URLS if answer.status_code < 400:
            return _relabelled(answer, struck)
        case _:
            return answer


def _is_about_the_answer(answer: Response, struck: Strike) -> bool:
    """At submit and run `lie_content_type` is about the job's pictures; at the CDN it is about this answer."""
    return struck.fault is Fault.WRONG_CONTENT_TYPE or answer.headers.get("content-type", "").startswith("image/")


def _relabelled(answer: Response, struck: Strike) -> Response:
    if struck.fault is Fault.BAD_REQUEST_ID:
        return _changed(answer, {"request_id": struck["request_id"]})
    body = json.loads(bytes(answer.body))
    urls = {name: str(body[name]) for name in ("response_url", "status_url", "cancel_url") if name in body}
    paths = {name: url.partition("://")[2].partition("/")[2].removeprefix("queue/") for name, url in urls.items()}
    return _changed(answer, {name: f"{struck['origin']}/{path}" for name, path in paths.items()})


def _changed(answer: Response, fields: Mapping[str, Any]) -> Response:
    """The same answer, some fields of its body overwritten."""
    body = {**json.loads(bytes(answer.body)), **fields}
    headers = {k: v for k, v in answer.headers.items() if k not in ("content-length", "content-type")}
    return response(as_json(body, answer.status_code, headers))
