"""Who may call, through the real door."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.conftest import MODEL, Json, Served
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, at_once, until
from tests.keys.conftest import ADMIN, MakeKey, bearer, code_of
from tests.keys.test_cli import keys_command

MODELS = "/openai/v1/models"
EDITS = "/openai/v1/images/edits"
STATIC = "sk-static-0123456789"
_ADDRESSES = itertools.count(1)


@pytest.fixture
def stranger(office: Served) -> Iterator[httpx2.Client]:
    """A client at an address of its own: uvicorn believes a proxy on loopback."""
    headers = {"x-forwarded-for": f"198.51.100.{next(_ADDRESSES)}"}
    with httpx2.Client(base_url=office.url, headers=headers, trust_env=False) as client:
        yield client


def edit(client: httpx2.Client, key: Json | str, picture: bytes, **fields: str) -> httpx2.Response:
    data = {"model": MODEL, "prompt": "night", "size": "256x256", **fields}
    return client.post(EDITS, data=data, files={"image": picture}, headers=bearer(key))


BAD = [
    {},
    {"authorization": "Bearer"},
    {"authorization": "Bearer sk-wrong"},
    {"authorization": f"Bearer {STATIC}x"},
    {"authorization": f"Bearer {STATIC[:-1]}"},
    {"authorization": f"Basic {STATIC}"},
    {"authorization": STATIC},
    {"authorization": "Bearer ' OR 1=1; DROP TABLE api_keys; --"},
    {"authorization": "Bearer " + "x" * 8000},
    {"authorization": "Bearer sk-\xe9".encode("latin-1")},
    {"authorization": "Bearer ig_" + "A" * 43},
    {"api-key": "sk-wrong"},
    {"x-api-key": STATIC},
    {"x-forwarded-for": "127.0.0.1"},
    {"authorization": f"Bearer {STATIC}", "api-key": "sk-wrong"},
    {"authorization": "Bearer sk-wrong", "api-key": STATIC},
    {"cookie": f"api-key={STATIC}"},
]


def test_every_bad_credential_is_answered_alike(office: Served) -> None:
    bodies = set()
    for number, headers in enumerate(BAD):
        sent: list[tuple[str, str | bytes]] = [("x-forwarded-for", f"203.0.113.{number}")]
        sent += list(headers.items())  # type: ignore[arg-type]
        answer = httpx2.get(f"{office.url}{MODELS}?api-key={STATIC}", headers=sent, trust_env=False)  # type: ignore[arg-type]
        assert answer.status_code == 401, headers
        bodies.add(answer.content)
    assert len(bodies) == 1
    assert b"sk-" not in bodies.pop()


def test_two_headers_that_agree_are_one(stranger: httpx2.Client) -> None:
    assert stranger.get(MODELS, headers={**bearer(STATIC), "api-key": STATIC}).status_code == 200


def test_two_authorizations_that_disagree_are_refused(office: Served, make_key: MakeKey) -> None:
    keys = [make_key()["key"] for _ in range(2)]
    headers = [("x-forwarded-for", "203.0.113.99"), *(("authorization", f"Bearer {key}") for key in keys)]
    assert httpx2.get(f"{office.url}{MODELS}", headers=headers, trust_env=False).status_code == 401


def test_after_ten_failures_in_a_minute_an_address_is_not_listened_to(
    office: Served, make_key: MakeKey, stranger: httpx2.Client
) -> None:
    known, unknown = make_key(), make_key()
    assert stranger.get(MODELS, headers=bearer(known)).status_code == 200
    answers = [stranger.get(MODELS, headers=bearer(f"sk-guess-{number}")) for number in range(15)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 5
    assert code_of(answers[-1]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
    # A guess that is right is not looked at either; who has been there before goes on.
    assert stranger.get(MODELS, headers=bearer(unknown)).status_code == 429
    assert stranger.get(MODELS, headers=bearer(STATIC)).status_code == 429
    assert stranger.get(MODELS, headers=bearer(known)).status_code == 200
    # Nobody else is concerned.
    assert office.get(MODELS).status_code == 200
    assert office.get(MODELS, headers={**bearer(unknown), "x-forwarded-for": "198.51.100.200"}).status_code == 200


def test_of_many_wrong_keys_at_once_ten_are_told_so(stranger: httpx2.Client) -> None:
    statuses = at_once(
        *(lambda n=number: stranger.get(MODELS, headers=bearer(f"sk-{n}")).status_code for number in range(30))
    )
    assert sorted(statuses) == [401] * 10 + [429] * 20


def test_a_network_of_ipv6_is_one_address(office: Served) -> None:
    statuses = [
        httpx2.get(
            f"{office.url}{MODELS}",
            headers={**bearer("sk-wrong"), "x-forwarded-for": f"2001:db8:1:2::{number}"},
            trust_env=False,
        ).status_code
        for number in range(1, 12)
    ]
    assert statuses == [401] * 10 + [429]


class TestLimits:
    def test_requests_are_counted_and_each_answer_tells(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes
    ) -> None:
        key = make_key(requests_per_minute=3)
        seen = stranger.get(MODELS, headers=bearer(key)).headers
        assert seen["x-ratelimit-limit-requests"] == seen["x-ratelimit-remaining-requests"] == "3"
        assert "x-ratelimit-limit-images" not in seen
        answers = [edit(stranger, key, picture) for _ in range(2)] + [edit(stranger, key, picture, n="77")]
        assert [answer.status_code for answer in answers] == [200, 200, 400]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0"]
        refused = edit(stranger, key, picture)
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
        assert stranger.get(MODELS, headers=bearer(key)).status_code == 200

    def test_pictures_are_counted_by_their_number(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes, sandbox: SandboxServer
    ) -> None:
        key = make_key(images_per_minute=4)
        first = edit(stranger, key, picture, n="3")
        assert first.status_code == 200
        assert first.headers["x-ratelimit-remaining-images"] == "1"
        before = sandbox.totals()["submitted"]
        assert code_of(edit(stranger, key, picture, n="2")) == (429, "rate_limit_exceeded")
        never = edit(stranger, key, picture, n="5")
        assert code_of(never) == (429, "rate_limit_exceeded")
        assert never.headers["x-should-retry"] == "false"
        assert sandbox.totals()["submitted"] == before
        assert edit(stranger, key, picture).status_code == 200

    def test_a_repeat_is_a_request_but_makes_no_pictures(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes
    ) -> None:
        key = make_key(images_per_minute=1, requests_per_minute=2, budget_total=0.03)
        stranger.headers["idempotency-key"] = "a"
        first, again = (edit(stranger, key, picture) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["x-ratelimit-remaining-images"] == "0"
        assert edit(stranger, key, picture).status_code == 429

    def test_a_stream_tells_its_limits(self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes) -> None:
        key = make_key(images_per_minute=5)
        answer = edit(stranger, key, picture, stream="true")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-ratelimit-remaining-images"] == "4"

    def test_a_key_has_so_many_jobs_at_once(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes, sandbox: SandboxServer
    ) -> None:
        key = make_key(concurrent_jobs=2)
        sandbox.script(*[{"on": "submit", "fault": "run_for", "args": {"seconds": 0.4}}] * 6)
        began = time.time()
        assert edit(stranger, key, picture, n="6").status_code == 200
        sandbox.clear_script()
        times = [(job["submitted_at"], 1) for job in sandbox.jobs() if job["submitted_at"] >= began]
        assert len(times) == 6
        gaps = sorted(at for at, _ in times)
        assert gaps[2] - gaps[0] >= 0.39
        assert gaps[4] - gaps[2] >= 0.39


class TestWhatAKeySays:
    def test_only_its_models_are_there_for_it(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes, sandbox: SandboxServer
    ) -> None:
        key = make_key(models=[MODEL])
        assert [model["id"] for model in stranger.get(MODELS, headers=bearer(key)).json()["data"]] == [MODEL]
        assert edit(stranger, key, picture, model="qwen-image-edit-plus-2509").status_code == 200

    def test_its_response_format_is_the_default(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes
    ) -> None:
        key = make_key(response_format="b64_json")
        assert list(edit(stranger, key, picture).json()["data"][0]) == ["b64_json"]
        assert list(edit(stranger, key, picture, response_format="url").json()["data"][0]) == ["url"]

    def test_a_strict_key_refuses_what_nobody_knows(
        self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes
    ) -> None:
        answer = edit(stranger, make_key(strict=True), picture, whatever="1")
        assert code_of(answer) == (400, "unknown_parameter")

    def test_each_key_sees_its_own_requests_and_the_admin_all(
        self, office: Served, make_key: MakeKey, stranger: httpx2.Client, picture: bytes
    ) -> None:
        mine, other = make_key(), make_key()
        made = edit(stranger, mine, picture).json()["id"]
        path = f"/v1/requests/{made}"
        assert stranger.get(path, headers=bearer(mine)).json()["id"] == made
        assert code_of(stranger.get(path, headers=bearer(other))) == (404, "not_found")
        assert stranger.get("/v1/requests", headers=bearer(other)).json()["data"] == []
        [job] = stranger.get(path, headers=bearer(mine)).json()["jobs"]
        found = stranger.get("/v1/requests", params={"job": job["job"]}, headers=bearer(other)).json()
        assert found["data"] == []
        assert office.get(path).json()["id"] == made
        assert made in [one["id"] for one in office.get("/v1/requests").json()["data"]]

    def test_an_idempotency_key_is_its_own(self, make_key: MakeKey, stranger: httpx2.Client, picture: bytes) -> None:
        stranger.headers["idempotency-key"] = "shared"
        ids = {edit(stranger, make_key(), picture).json()["id"] for _ in range(2)}
        assert len(ids) == 2


def test_a_gateway_is_open_until_there_is_a_key(
    sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Gate(sandbox, tmp_path_factory.mktemp("open")) as gate:
        assert gate.http.get(MODELS).status_code == 200
        made = keys_command(gate.environ, "create", "first")
        until(lambda: gate.http.get(MODELS).status_code == 401, 2)
        assert gate.http.get(MODELS, headers=bearer(made)).status_code == 200
        keys_command(gate.environ, "revoke", made["id"])
        until(lambda: gate.http.get(MODELS, headers=bearer(made)).status_code == 401, 1.5)
        assert gate.http.get(MODELS).status_code == 401


def test_an_admin_key_closes_a_gateway(office: Served) -> None:
    assert httpx2.get(f"{office.url}{MODELS}", trust_env=False).status_code == 401
    assert httpx2.get(f"{office.url}{MODELS}", headers=bearer(ADMIN), trust_env=False).status_code == 200


def test_no_key_is_in_the_database_or_the_log(
    sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory, picture: bytes
) -> None:
    with Gate(sandbox, tmp_path_factory.mktemp("leak"), admin_key=ADMIN, log_level="debug") as gate:
        made = gate.http.post("/v1/keys", json={"name": "a"}, headers=bearer(ADMIN)).json()
        assert edit(gate.http, made, picture).status_code == 200
        rotated = gate.http.post(f"/v1/keys/{made['id']}/rotate", headers=bearer(ADMIN)).json()
        assert edit(gate.http, made["key"], picture).status_code == 401
        kept = b"".join(path.read_bytes() for path in gate.data.rglob("*") if path.is_file()) + gate.log().encode()
    for secret in (made["key"], rotated["key"], ADMIN):
        assert secret.encode() not in kept
    assert made["last4"].encode() in kept
