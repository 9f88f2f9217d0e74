"""Rows: several gateways on one PostgreSQL, a database or a Redis that is held up, API keys."""

from __future__ import annotations

from tests.faults.rows import AtMost, Row

ONCE = {"submits": 1, "journal": "1 done", "charged": "0.03", "pictures": 1}
"""One picture, bought once, charged once, and there."""

GATEWAYS: tuple[Row, ...] = (
    Row(
        id="M10-heir",
        fault="SIGKILL of one of two gateways in the middle of a job",
        done="job of 2 s; SIGKILL when its ticket is written; the same key at the other gateway at once",
        expected="the other takes the job over as soon as the lease has run out, and answers; bought once",
        numbers={"answer": 200, "seconds": AtMost(15), **ONCE},
    ),
    Row(
        id="M10-fence",
        fault="a gateway that sleeps past its lease with a request that has bought nothing yet",
        done="limits.jobs=1; a job of 1 s, a request with a key that waits for its turn; SIGSTOP; the other gateway "
        "takes both over; the same key at the other gateway; SIGCONT",
        expected="the other buys it; who wakes up buys nothing any more, and says so",
        numbers={"repeat": 200, "sleeper": "200, 503 overloaded", "bought after its sleep": 0, "submits": 2}
        | {"bought twice": 0, "journal": "2 done", "charged": "0.06", "pictures": 2},
    ),
    Row(
        id="M10-fence-half",
        fault="the same, with one of two pictures bought",
        done="limits.jobs=1, n=2, jobs of 1 s; SIGSTOP at the first ticket; the other gateway takes it over; SIGCONT",
        expected="who wakes up delivers the picture that was bought, and does not buy the other",
        numbers={"sleeper": 200, "in its answer": 1, "missing": "overloaded", "bought after its sleep": 0, **ONCE},
    ),
    Row(
        id="M10-fence-late",
        fault="a gateway that sleeps past its lease between the intent and the submit",
        done="the upload takes 2 s; SIGSTOP when the intent is written; the other gateway takes it over; SIGCONT",
        expected="it does not submit any more; the other says that it is not known, until it is",
        numbers={"sleeper": "503 overloaded", "repeat": "502 upstream_ambiguous", "submits": 0, "journal": "1 failed"}
        | {"charged": "0"},
    ),
    Row(
        id="D8-clocks",
        fault="two gateways whose clocks are a minute ahead and a minute behind",
        done="a job of 9 s at each; then one at each, and SIGKILL of that gateway; the same key at the other one",
        expected="neither takes from the other while it lives, each does when it is dead; bought once",
        numbers={"answers": "200, 200", "taken from the living": 0, "heir behind": 200, "heir ahead": 200}
        | {"seconds": AtMost(15), "submits": 4, "bought twice": 0, "charged": "0.12", "pictures": 4},
    ),
)

POSTGRES: tuple[Row, ...] = (
    Row(
        id="D5-frozen",
        fault="PostgreSQL does not answer any more",
        done="a job of 2 s; SIGSTOP of the server; a new request, then one with a key; SIGCONT; a request",
        expected="503 after two seconds at most, nothing is bought; what was bought is delivered; recovers by itself",
        numbers={"in flight": 200, "new": "503 + Retry-After, 503 + Retry-After", "seconds": AtMost(3)}
        | {"bought for them": 0, "/healthz meanwhile": 200, "after": 200, "journal": "2 done", "charged": "0.06"},
    ),
    Row(
        id="D5-slow",
        fault="PostgreSQL answers, but takes its time",
        done="another session locks the journal's tables; a new request; released; a request",
        expected="503 after two seconds at most, nothing is bought; served as soon as it is released",
        numbers={"new": "503 + Retry-After", "seconds": AtMost(3), "bought for it": 0, "after": 200, "charged": "0.03"},
    ),
    Row(
        id="D5-restart",
        fault="PostgreSQL fails over while nothing is under way",
        done="two requests at once; the server is killed and started; three requests at once",
        expected="connections that died are replaced: the next requests are served",
        numbers={"after": "200, 200, 200", "submits": 5, "charged": "0.15"},
    ),
    Row(
        id="D5-shared",
        fault="PostgreSQL hangs for longer than a lease, under two gateways",
        done="a job of 2 s at each; SIGSTOP of the server for 8 s; SIGCONT",
        expected="both deliver; neither takes from the other, which only could not renew its lease",
        numbers={"answers": "200, 200", "taken from the living": 0, "submits": 2, "journal": "2 done"}
        | {"charged": "0.06", "pictures": 2},
    ),
)

REDIS: tuple[Row, ...] = (
    Row(
        id="D6-down",
        fault="Redis goes away, and comes back",
        done="a key of 2 requests a minute makes 1; Redis is killed; 5 more; Redis is started",
        expected="counted by the gateway alone, from what it has served; /readyz says so; afterwards together again",
        numbers={"before": "1 × 200", "down": "1 × 200, 4 × 429", "/readyz": "200 degraded, per process"}
        | {"then /readyz": "200 ready, shared", "submits": 2, "charged": "0.06"},
    ),
    Row(
        id="D6-frozen",
        fault="Redis does not answer any more",
        done="as D6-down, with SIGSTOP and SIGCONT",
        expected="as D6-down: nobody waits for it for longer than a moment",
        numbers={"before": "1 × 200", "down": "1 × 200, 4 × 429", "/readyz": "200 degraded, per process"}
        | {"then /readyz": "200 ready, shared", "submits": 2, "charged": "0.06"},
    ),
    Row(
        id="D6-flushed",
        fault="Redis is emptied",
        done="a key of 2 requests a minute makes 2; FLUSHALL; 3 more",
        expected="no key gets its limit again",
        numbers={"before": "2 × 200", "after": "3 × 429", "submits": 2},
    ),
    Row(
        id="D6-money",
        fault="Redis is away, and a key's budget is nearly spent",
        done="a budget of 0.06; Redis is killed; 5 requests at once",
        expected="the database is the truth about money: no more than two are bought",
        numbers={"answers": "2 × 200, 3 × 402", "submits": 2, "charged": "0.06"},
    ),
)

KEYS: tuple[Row, ...] = (
    Row(
        id="K1-wrong",
        fault="wrong credentials",
        done="none, another key, one character more or less, SQL, 8 KB, not ASCII, two that disagree, in the query, "
        "in a cookie",
        expected="401, each time the same body; the key that was sent is in no answer and in no log",
        numbers={"answers": "9 × 401", "bodies": 1, "echoed": 0, "logged": 0},
    ),
    Row(
        id="K3-kept",
        fault="somebody reads the database",
        done="a key is made, and buys; every text of every table is searched for it",
        expected="only its hash, its prefix and its last four characters are kept",
        numbers={"buys": 200, "rows with the key": 0, "tables searched": 7},
    ),
    Row(
        id="K3-revoked",
        fault="a key is revoked at one of two gateways",
        done="used at the other one just before; then asked again and again",
        expected="refused there within a second; another key's request is not to be seen",
        numbers={"before": 200, "seconds until it is refused": AtMost(3), "another's request": 404},
    ),
)
