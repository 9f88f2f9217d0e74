"""API keys: a wrong one learns nothing, and whoever reads the database learns none."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2

from tests.faults.conftest import OwnGate
from tests.faults.observe import Case
from tests.faults.rows import covers

RIGHT, ADMIN = "sk-right-0123456789", "adm-0123456789"
WRONG = "sk-wrong-9876543210"

Headers = list[tuple[str, Any]]
BAD: list[Headers] = [
    [],
    [("authorization", f"Bearer {WRONG}")],
    [("authorization", f"Bearer {RIGHT}x")],
    [("authorization", f"Bearer {RIGHT[:-1]}")],
    [("authorization", f"Bearer {WRONG}' OR 1=1; DROP TABLE api_keys; --")],
    [("authorization", f"Bearer {WRONG}{'x' * 8000}")],
    [("authorization", f"Bearer {WRONG}\xe9".encode("latin-1"))],
    [("authorization", f"Bearer {RIGHT}"), ("api-key", WRONG)],
    [("cookie", f"api-key={RIGHT}")],
]


@covers("K1-wrong")
def test_every_wrong_credential_is_answered_alike(case: Case, own: OwnGate) -> None:
    gate = own(api_key=RIGHT, admin_key=ADMIN, log_level="debug")
    answers = [
        # Of ten failures in a minute an address is not listened to any more: each is another client's.
        httpx2.get(
            f"{gate.url}/v1/models?api-key={RIGHT}",
            headers=[("x-forwarded-for", f"203.0.113.{number}"), *headers],
            trust_env=False,
        )
        for number, headers in enumerate(BAD)
    ]
    (status,) = {answer.status_code for answer in answers}
    case.saw(
        {
            "answers": f"{len(answers)} × {status}",
            "bodies": len({answer.content for answer in answers}),
            "echoed": sum(key in answer.text for answer in answers for key in (RIGHT, WRONG)),
            "logged": sum(gate.log().count(key) for key in (RIGHT, WRONG)),
        }
    )


@covers("K3-kept")
def test_whoever_reads_the_database_learns_no_key(case: Case, own: OwnGate) -> None:
    gate = own(api_key=RIGHT, admin_key=ADMIN)
    admin = {"authorization": f"Bearer {ADMIN}"}
    key = gate.http.post("/v1/keys", json={"name": "bought with"}, headers=admin).json()["key"]
    bought = gate.ask("kept", headers={"authorization": f"Bearer {key}"}).status_code
    secrets = [secret.removeprefix("ig_")[5:-4] for secret in (key, RIGHT, ADMIN)]  # what no list shows
    tables = [name for (name,) in gate.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    texts = itertools.chain.from_iterable(gate.rows(f"SELECT * FROM {name}") for name in tables)
    told = sum(secret in str(row) for row in texts for secret in secrets)
    case.saw({"buys": bought, "rows with the key": told, "tables searched": len(tables)})
