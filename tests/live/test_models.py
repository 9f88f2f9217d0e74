"""Model files and settings that change while the gateway runs."""

from __future__ import annotations

import itertools
import threading
import time
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, at_once
from tests.faults.rows import on
from tests.live.conftest import BANANA, StartLive, soon, write

prompts = (f"sepia {number}" for number in itertools.count(1))


def test_a_new_file_is_a_model_and_a_removed_one_is_none(live: StartLive) -> None:
    gate = live()
    assert gate.edit().status_code == 404
    write(gate.models / "banana.yaml", BANANA)
    soon(lambda: "nano-banana" in gate.ids(), what="the model")
    answer = gate.edit()
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"]["executed_model"] == "fal/fal-ai/nano-banana/edit"
    assert '"fal/nano-banana"' in gate.http.get("/openapi.json").text
    assert "taken in: added nano-banana" in gate.log()
    (gate.models / "banana.yaml").unlink()
    soon(lambda: "nano-banana" not in gate.ids(), what="its end")
    assert gate.edit().status_code == 404
    assert '"fal/nano-banana"' not in gate.http.get("/openapi.json").text


def test_a_broken_file_is_refused_with_its_reasons_and_the_old_one_stays(live: StartLive) -> None:
    gate = live()
    write(gate.models / "banana.yaml", BANANA)
    soon(lambda: "nano-banana" in gate.ids(), what="the model")
    write(gate.models / "banana.yaml", BANANA.replace("to: image_urls", "too: image_urls").replace("min: 0", "mn: 0"))
    write(gate.models / "other.yaml", BANANA.replace("nano-banana\n", "other\n"))  # fine by itself
    reasons = gate.refused()
    assert "banana.yaml:11: nano-banana: offer fal-ai/nano-banana/edit: row image: to: Field required" in reasons
    assert "banana.yaml:12: nano-banana: offer fal-ai/nano-banana/edit: row seed: mn: Extra inputs" in reasons
    ready = gate.ready()
    assert ready["status"] == "degraded"
    assert any("row image" in problem for problem in ready["problems"])
    assert all(f"refused, what was there before stays in force: {line}" in gate.log() for line in reasons.splitlines())
    assert gate.edit().status_code == 200
    assert "other" not in gate.ids()  # all files together, or none
    write(gate.models / "banana.yaml", BANANA.replace("Nano Banana", "Mended"))
    soon(lambda: not gate.configuration()["refused"], what="the end of the refusal")
    assert gate.http.get("/openai/v1/models/nano-banana").json()["name"] == "Mended"
    assert gate.ready()["status"] == "ready"
    assert "other" in gate.ids()


def test_sighup_looks_and_says_what_there_is(live: StartLive) -> None:
    gate = live()
    gate.reload()
    soon(lambda: "nothing to take in" in gate.log(), what="a word")
    write(gate.models / "banana.yaml", "id: banana\nname: b: c")
    gate.reload()
    assert gate.refused().startswith("banana.yaml:2: is not YAML")
    said = gate.log().count("is not YAML")
    gate.reload()
    soon(lambda: gate.log().count("is not YAML") > said, what="the refusal, said again")
    assert gate.ready()["status"] == "degraded"


def test_a_file_that_is_still_being_written_is_waited_for(live: StartLive) -> None:
    gate = live()
    for attempt in range(5):
        refused, longest = gate.log().count("refused"), write_slowly(gate.models / "banana.yaml")
        soon(lambda: "nano-banana" in gate.ids(), what="the model")
        if longest < 0.5:  # else the machine slept, and the file was still for so long
            assert gate.log().count("refused") == refused
            return
        (gate.models / "banana.yaml").unlink()
        soon(lambda: "nano-banana" not in gate.ids(), what=f"the end of attempt {attempt}")
    pytest.fail("this machine cannot write for three seconds without a break")


def write_slowly(path: Path) -> float:
    """Half a file is there for three seconds, never still. The longest time between two writes."""
    lines, longest, last = BANANA.splitlines(keepends=True), 0.0, time.monotonic()
    with path.open("w") as file:
        for number in range(300):
            file.write(f"# {number}\n" if number % 30 or not lines else lines.pop(0))
            file.flush()
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            time.sleep(0.01)
        file.writelines(lines)
    return longest


def test_aliases_the_folder_and_the_log_level_are_settings_that_live(live: StartLive) -> None:
    gate = live(models_dir="", environ={"IMAGEGATE_LOG_LEVEL": ""})
    write(gate.models / "banana.yaml", BANANA)
    settings = f"models_dir: {gate.models}\naliases: {{gpt-image-*: nano-banana}}\nlog_level: info\n"
    write(gate.folder / "config.yaml", settings)
    soon(lambda: "nano-banana" in gate.ids(), what="the folder")
    assert gate.edit("gpt-image-1").status_code == 200
    gate.reload()
    soon(lambda: "nothing to take in" in gate.log(), what="a line at level info")
    write(gate.folder / "config.yaml", settings.replace("nano-banana", "nobody"))
    assert "aliases: 'gpt-image-*' leads to 'nobody'" in gate.refused()
    assert gate.edit("gpt-image-1").status_code == 200


def test_a_setting_that_takes_a_restart_is_said_and_not_taken(live: StartLive) -> None:
    gate = live()
    write(gate.folder / "config.yaml", "strict: true\nlimits: {images: 1}\nproviders: {fal: {label: Other}}\n")
    soon(lambda: gate.configuration()["needs_restart"], what="the word")
    names = ["strict", "limits.images", "providers.fal.label"]
    assert gate.configuration()["needs_restart"] == names
    for name in names:
        assert f'"imagegate.live", "message": "{name} has changed: that takes a restart"' in gate.log()
    assert gate.edit("qwen-image-edit-2509", anything="goes").status_code == 200
    write(gate.folder / "config.yaml", "{}\n")
    soon(lambda: not gate.configuration()["needs_restart"], what="the way back")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("strict: perhaps\n", "strict: Input should be a valid boolean"),
        ("prot: 1\n", "prot: Extra inputs are not permitted"),
        ("api_key: 'sk-secret\n", "config.yaml:2: is not YAML"),
        ("providers: {nobody: {key: x}}\n", "providers.nobody: no such provider"),
        ("providers: {fal: {kye: x}}\n", "providers.fal.kye: no such setting"),
    ],
)
def test_broken_settings_are_refused_and_models_are_taken_all_the_same(live: StartLive, text: str, reason: str) -> None:
    gate = live()
    write(gate.folder / "config.yaml", text)
    write(gate.models / "banana.yaml", BANANA)
    assert reason in gate.refused()
    soon(lambda: "nano-banana" in gate.ids(), what="the model")
    assert "sk-secret" not in gate.log() + gate.http.get("/readyz").text


def test_requests_that_run_outlive_their_model(live: StartLive, upstream: SandboxServer) -> None:
    gate = live()
    write(gate.models / "banana.yaml", BANANA)
    soon(lambda: "nano-banana" in gate.ids(), what="the model")
    upstream.script(on("submit", "run_for", seconds=5))

    def remove() -> None:
        soon(lambda: gate.rows("SELECT 1 FROM jobs WHERE job IS NOT NULL"), what="a ticket")
        (gate.models / "banana.yaml").unlink()
        soon(lambda: "nano-banana" not in gate.ids(), what="the model's end")

    answer, _ = at_once(gate.edit, remove)
    assert answer is not None
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"]["model"] == "nano-banana"
    assert gate.record(answer.json()["id"])["status"] == "completed"


def test_a_killed_gateways_jobs_come_home_without_their_model(live: StartLive, upstream: SandboxServer) -> None:
    gate = live()
    write(gate.models / "banana.yaml", BANANA)
    soon(lambda: "nano-banana" in gate.ids(), what="the model")
    upstream.script(on("submit", "run_for", seconds=2))

    def hung_up_on() -> None:
        with pytest.raises(httpx2.TransportError):
            gate.edit()

    thread = threading.Thread(target=hung_up_on, daemon=True)
    thread.start()
    soon(lambda: gate.rows("SELECT 1 FROM jobs WHERE job IS NOT NULL"), what="a ticket")
    gate.kill()
    thread.join(10)
    (gate.models / "banana.yaml").unlink()
    gate.restart()
    soon(lambda: [one["status"] for one in gate.records()] == ["completed"], every=0.3, what="its end")
    assert upstream.totals()["submitted"] == 1


def test_no_request_fails_during_fifty_exchanges(live: StartLive) -> None:
    gate = live()
    write(gate.models / "banana.yaml", BANANA)
    soon(lambda: "nano-banana" in gate.ids(), what="the model")
    stop = threading.Event()
    served: list[int] = []

    def load(model: str) -> None:
        with gate.connect() as http:
            while not stop.is_set():
                served.append(gate.edit(model, next_prompt(), http=http).status_code)

    def exchange() -> None:
        try:
            for number in range(50):
                before = gate.configuration()["changes"]
                # what the next request needs is there in each version; the whole file is another
                write(gate.models / "banana.yaml", BANANA.replace("Nano Banana", f"Number {number}"))
                gate.reload()
                soon(partial(changed_since, gate, before), what=f"exchange {number}")
        finally:
            stop.set()

    at_once(*(partial(load, model) for model in ("nano-banana", "qwen-image-edit-2509") * 2), exchange)
    assert gate.http.get("/openai/v1/models/nano-banana").json()["name"] == "Number 49"
    assert set(served) == {200}
    assert len(served) >= 10


def changed_since(gate: Gate, before: int) -> bool:
    return bool(gate.http.get("/readyz").json()["configuration"]["changes"] > before)


_turn = threading.Lock()


def next_prompt() -> str:
    with _turn:
        return next(prompts)
