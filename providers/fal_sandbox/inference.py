"""queue.fal.run and fal.run: submit, status, stream, result, cancel, and the synchronous call."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .books import Books
from .faults import LOST_ON_THE_WAY, Fault, Point, Strike
from .files import FileStore, StoredFile
from .hosts import BodyTooLarge, body_of, kept_headers, origins, refusal, say
from .inputs import summarise
from .interference import Interference
from .options import Options
from .queue import Job, Queue, State
from .replies import as_json, infra_error, plain
from .schema import Endpoint, app_of

_NOT_FOUND = as_json({"status": "NOT_FOUND"}, 404)
_NO_REQUEST = plain(404, "Request not found")
_WRONG_VERB = plain(405, "Method Not Allowed")


class Inference:
    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        interference: Interference,
        results: FileStore,
        books: Books,
        options: Options,
        clock: Callable[[], float],
    ) -> None:
        self._endpoints = endpoints
        self._apps = {endpoint.app for endpoint in endpoints.values()}
        self._interference = interference
        self._results = results
        self._books = books
        self._options = options
        self._clock = clock
        self.queue: Queue  # set by `attach`: queue and inference know each other

    def attach(self, queue: Queue) -> None:
        self.queue = queue

    def ended(self, job: Job) -> None:
        """The queue calls this once per job: enter it into the books and put its answer where answers expire."""
        self._books.ended(job)
        if job.outcome is None or job.via == "run":
            return
        reply = job.outcome.reply
        large = len(reply.content) >= self._options.large_result_bytes
        lasts = self._options.large_result_seconds if large else self._options.result_seconds
        self._results.put(job.request_id, StoredFile(reply.content, reply.content_type, self._clock() + lasts))
        job.outcome = replace(job.outcome, reply=replace(reply, content=b""))

    # --- queue.fal.run

    async def queue_host(self, request: Request) -> Response:
        path: str = request.path_params["path"]
        app = app_of(path)
        rest = path.removeprefix(app).split("/")
        if len(rest) >= 3 and rest[1] == "requests":
            return await self._about_a_job(request, app, rest[2], tuple(rest[3:]))
        if request.method != "POST":
            return say(_WRONG_VERB)
        return await self._interference.around(Point.SUBMIT, path, request, lambda s: self._submit(request, path, s))

    async def _submit(self, request: Request, path: str, strikes: tuple[Strike, ...]) -> Response:
        job = await self._job(request, path, strikes, "queue")
        if isinstance(job, Response):
            return job
        limit = request.query_params.get("fal_max_queue_length")
        if limit is not None and limit.isdigit() and self.queue.full and self.queue.waiting + 1 > int(limit):
            return say(plain(429, "Queue is full"))
        self.queue.add(job, _start_within(request))
        self._books.submitted()
        body: dict[str, Any] = {
            **_urls(job),
            "status": str(State.IN_QUEUE),
            "queue_position": self.queue.position(job),
            "logs": None,
            "metrics": {},
            "gateway_request_id": job.request_id,
        }
        return say(as_json(body), job.request_id)

    async def _about_a_job(self, request: Request, app: str, request_id: str, rest: tuple[str, ...]) -> Response:
        known = {
            (): (Point.RESULT, "GET", self._result),
            ("status",): (Point.STATUS, "GET", self._status),
            ("status", "stream"): (Point.STREAM, "GET", self._stream),
            ("cancel",): (Point.CANCEL, "PUT", self._cancel),
        }
        if rest not in known:
            return say(plain(404, f"Path {request.url.path} not found"))
        point, verb, handler = known[rest]
        if request.method != verb:
            return say(_WRONG_VERB)
        job = self.queue.get(request_id)
        if job is not None and job.endpoint.app != app:
            job = None

        async def handled(strikes: tuple[Strike, ...]) -> Response:
            if (refused := refusal(request)) is not None:
                return say(refused)
            if job is None:
                return say(_NOT_FOUND if point is Point.CANCEL else _NO_REQUEST)
            return await handler(request, job, strikes)

        return await self._interference.around(point, job.endpoint.id if job else None, request, handled)

    async def _status(self, request: Request, job: Job, strikes: tuple[Strike, ...]) -> Response:
        # 202 until it is done (D-REF; the SDK's apps.py depends on it)
        status = 200 if job.state is State.COMPLETED else 202
        return say(as_json(self._state(job, _wants_logs(request)), status), job.request_id)

    async def _stream(self, request: Request, job: Job, strikes: tuple[Strike, ...]) -> Response:
        logs = _wants_logs(request)

        async def events() -> AsyncIterator[bytes]:
            while True:
                change = job.changed
                yield b"data: " + as_json(self._state(job, logs)).content + b"\n\n"
                if job.state is State.COMPLETED:
                    return
                await change.wait()

        headers = {"x-fal-request-id": job.request_id, "Cache-Control": "no-cache"}
        return StreamingResponse(events(), headers=headers, media_type="text/event-stream")

    async def _result(self, request: Request, job: Job, strikes: tuple[Strike, ...]) -> Response:
        if job.state is not State.COMPLETED or job.outcome is None:
            return say(plain(400, "Request is still in progress"), job.request_id)
        stored = self._results.get(job.request_id)
        if stored is None or job.struck(Fault.LOSE_RESULT):
            return say(_NO_REQUEST, job.request_id)
        reply = job.outcome.reply
        if reply.status < 400 and not any(struck.fault in LOST_ON_THE_WAY for struck in strikes):
            self._books.collected(job, self._clock())
        return say(replace(reply, content=stored.data), job.request_id)

    async def _cancel(self, request: Request, job: Job, strikes: tuple[Strike, ...]) -> Response:
        faults = {struck.fault for struck in strikes}
        if Fault.CANCEL_TOO_LATE in faults and job.state is not State.COMPLETED:
            self.queue.finish(job)
            await job.ended.wait()
        if job.state is State.COMPLETED:
            return say(as_json({"status": "ALREADY_COMPLETED"}, 400), job.request_id)
        self.queue.cancel(job, deaf=Fault.CANCEL_IGNORED in faults)
        return say(as_json({"status": "CANCELLATION_REQUESTED"}, 202), job.request_id)

    # --- fal.run

    async def run_host(self, request: Request) -> Response:
        path: str = request.path_params["path"]
        if request.method != "POST":
            return say(_WRONG_VERB)
        return await self._interference.around(Point.RUN, path, request, lambda s: self._run(request, path, s))

    async def _run(self, request: Request, path: str, strikes: tuple[Strike, ...]) -> Response:
        job = await self._job(request, path, strikes, "run")
        if isinstance(job, Response):
            return job
        if self.queue.full:
            return say(infra_error("concurrent_requests_limit"))  # no queue here (D-HDR)
        self.queue.add(job, _start_within(request))
        self._books.submitted()
        await job.ended.wait()
        if job.outcome is None:
            return say(infra_error("internal_error"))
        reply = job.outcome.reply
        job.outcome = replace(job.outcome, reply=replace(reply, content=b""))
        if reply.status < 400 and not any(struck.fault in LOST_ON_THE_WAY for struck in strikes):
            self._books.collected(job, self._clock())
        return say(reply, job.request_id)

    # --- both

    async def _job(self, request: Request, path: str, strikes: tuple[Strike, ...], via: str) -> Job | Response:
        """A job of this request, not yet accepted, or why there can be none."""
        if (refused := refusal(request)) is not None:
            return say(refused)
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            known = app_of(path) in self._apps
            return say(plain(404, f"Path {path.removeprefix(app_of(path))} not found") if known else _NOT_FOUND)
        try:
            payload = json.loads(await body_of(request, self._options.max_body_bytes), parse_constant=_no_constant)
        except BodyTooLarge:
            return say(plain(413, "Request Entity Too Large"))
        except (ValueError, RecursionError):
            return say(infra_error("bad_request"))
        # not in the renderers' threads: a submit must not wait behind pictures
        summary = await asyncio.to_thread(summarise, payload)
        return Job(
            request_id=str(uuid.uuid4()),
            endpoint=endpoint,
            payload=payload,
            summary=summary,
            origins=origins(request),
            headers=kept_headers(request),
            strikes=strikes,
            via=via,
            submitted_at=self._clock(),
        )

    def _state(self, job: Job, logs: bool) -> dict[str, Any]:
        state: dict[str, Any] = {"status": str(job.state), **_urls(job)}
        if job.state is State.IN_QUEUE:
            return {**state, "queue_position": self.queue.position(job)}
        state["logs"] = _logs(job) if logs else None
        if job.state is State.COMPLETED and job.outcome is not None:
            state["metrics"] = {"inference_time": round(job.inference_seconds, 4)}
            if job.outcome.error is not None:
                state |= {"error": job.outcome.error, "error_type": job.outcome.error_type}
        return state


def _urls(job: Job) -> dict[str, str]:
    """Owner and alias only, also for an endpoint with a sub-path: a client must use these and not build its own."""
    base = f"{job.origins.queue}/{job.endpoint.app}/requests/{job.request_id}"
    return {
        "request_id": job.request_id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


def _logs(job: Job) -> list[dict[str, Any]]:
    lines = (
        ["Loading pictures", "Running inference"] if job.state is State.IN_PROGRESS else ["Running inference", "Done"]
    )
    return [{"message": line, "level": "INFO", "source": "USER", "timestamp": job.started_at} for line in lines]


def _wants_logs(request: Request) -> bool:
    return request.query_params.get("logs", "") in ("1", "true", "True")  # JS sends 1/0, PY true/false


def _start_within(request: Request) -> float | None:
    """X-Fal-Request-Timeout in seconds; what is no positive number is no limit."""
    try:
        seconds = float(request.headers.get("x-fal-request-timeout", ""))
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
