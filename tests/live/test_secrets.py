"""Keys in files, and keys that are exchanged while the gateway runs."""

from __future__ import annotations

import itertools
from pathlib import Path

from app.children import Child
from tests.conftest import clean_environ
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import at_once
from tests.faults.rows import on
from tests.live.conftest import LiveGate, StartLive, soon, write

QWEN = "qwen-image-edit-2509"
OLD, NEW = "id:the-old-secret-0123456789", "id:the-new-secret-9876543210"


def with_key_file(live: StartLive, path: Path, **settings: str) -> LiveGate:
    write(path, f"{OLD}\n")
    return live(environ={"FAL_KEY": "", "FAL_KEY_FILE": str(path)}, **settings)


def test_the_providers_key_is_exchanged_and_a_locked_offer_unlocked(
    live: StartLive, upstream: SandboxServer, tmp_path: Path
) -> None:
    upstream.set_keys(OLD)
    gate = with_key_file(live, tmp_path / "key")
    assert gate.edit(QWEN).status_code == 200
    upstream.set_keys(NEW)
    assert gate.edit(QWEN, "again").status_code == 502
    assert gate.http.get("/readyz").status_code == 503
    write(tmp_path / "key", f"{NEW}\n")
    soon(lambda: gate.http.get("/readyz").status_code == 200, what="the exchange")
    assert gate.edit(QWEN, "and again").status_code == 200
    log = gate.log()
    assert "taken in: changed the key of provider fal" in log
    assert OLD not in log
    assert NEW not in log


def test_what_runs_goes_on_with_the_new_key(live: StartLive, upstream: SandboxServer, tmp_path: Path) -> None:
    upstream.set_keys(OLD)
    gate = with_key_file(live, tmp_path / "key")
    upstream.script(on("submit", "run_for", seconds=5))

    def exchange() -> None:
        soon(lambda: gate.rows("SELECT 1 FROM jobs WHERE job IS NOT NULL"), what="a ticket")
        write(tmp_path / "key", NEW)
        soon(lambda: gate.configuration()["changes"], what="the exchange")
        upstream.set_keys(NEW)

    upstream.set_keys(OLD, NEW)
    answer, _ = at_once(lambda: gate.edit(QWEN), exchange)
    assert answer.status_code == 200, answer.text
    assert upstream.totals()["submitted"] == 1


def test_a_key_that_cannot_be_used_is_refused_and_the_old_one_stays(
    live: StartLive, upstream: SandboxServer, tmp_path: Path
) -> None:
    upstream.set_keys(OLD)
    gate = with_key_file(live, tmp_path / "key")
    write(tmp_path / "key", "two secret words")
    assert gate.refused() == "provider fal: FAL_KEY must be printable ASCII without spaces"
    write(tmp_path / "key", "\n")
    soon(lambda: f"{tmp_path / 'key'} is empty" in str(gate.configuration()["refused"]), what="the other reason")
    (tmp_path / "key").unlink()
    soon(lambda: "No such file" in str(gate.configuration()["refused"]), what="the third")
    assert gate.edit(QWEN).status_code == 200
    assert "secret words" not in gate.log()


def test_a_key_in_the_settings_is_exchanged_too_and_a_broken_model_is_no_hindrance(
    live: StartLive, upstream: SandboxServer
) -> None:
    gate = live()
    gate.terminate()
    gate.ended()
    gate.environ["FAL_KEY"] = ""
    write(gate.folder / "config.yaml", f"providers: {{fal: {{key: '{OLD}'}}}}\n")
    upstream.set_keys(OLD)
    gate.restart()
    assert gate.edit(QWEN).status_code == 200
    upstream.set_keys(NEW)
    write(gate.models / "broken.yaml", "nonsense")
    write(gate.folder / "config.yaml", f"providers: {{fal: {{key: '{NEW}', label: Other}}}}\n")
    soon(lambda: gate.configuration()["changes"], what="the exchange")
    assert gate.edit(QWEN, "again").status_code == 200
    assert "broken.yaml" in gate.refused()
    assert gate.configuration()["needs_restart"] == ["providers.fal.label"]


def test_callers_keys_lie_in_files_too(live: StartLive, upstream: SandboxServer, tmp_path: Path) -> None:
    path = tmp_path / "callers"
    write(path, "sk-first\n")
    gate = live(environ={"IMAGEGATE_API_KEY_FILE": str(path)})
    addresses = itertools.count(1)  # one that is wrong ten times in a minute is not listened to

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}", "x-forwarded-for": f"198.51.100.{next(addresses)}"}
        return gate.http.get("/openai/v1/models", headers=headers).status_code

    assert (status("sk-first"), status("sk-second")) == (200, 401)
    write(path, "sk-second")
    soon(lambda: status("sk-second") == 200, what="the exchange")
    assert status("sk-first") == 401


def test_a_gateway_that_others_can_reach_never_loses_its_key(upstream: SandboxServer, tmp_path: Path) -> None:
    upstream.reset()
    config = tmp_path / "config.yaml"
    write(config, "host: 0.0.0.0\napi_key: sk-mine\n")
    fal = {f"FAL_{name.upper()}": value for name, value in upstream.settings.items()}
    environ = clean_environ({**fal, "IMAGEGATE_CONFIG": str(config), "IMAGEGATE_DATA_DIR": str(tmp_path / "data")})
    log = tmp_path / "log"

    def said() -> str:
        return log.read_text()

    with log.open("w") as file, Child(["serve", "--port", "0"], environ, stderr=file):
        for text in ("host: 0.0.0.0\n", "host: 127.0.0.1\n", "host: 0.0.0.0\nallow_open: true\n"):
            refused = said().count("there is no API key")
            write(config, text)
            soon(lambda before=refused: said().count("there is no API key") > before, what=f"the refusal of {text!r}")  # type: ignore[misc]
            write(config, "host: 0.0.0.0\napi_key: sk-other\n")
            soon(lambda: said().count("changed api_key") % 2 == 1, what="another key")
            write(config, "host: 0.0.0.0\napi_key: sk-mine\n")
            soon(lambda: said().count("changed api_key") % 2 == 0, what="the first key")
