"""The command line, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from app.children import Child, ChildFailed
from app.demo import SAMPLE
from tests.fakes import nursery
from tests.fakes.sandbox import SandboxServer

ROOT = Path(__file__).parents[2]


def imagegate(
    *arguments: str, cwd: Path = ROOT, forked: bool = True, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A command, to its end. `forked`: by the nursery, not by an interpreter of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEGATE_", "FAL_"))}
    command, env = [sys.executable, "-m", "app", *arguments], {**clean, **environ}
    if forked:
        return nursery.run(command, cwd=cwd, env=env, timeout=60)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_the_demo_edits_the_sample_and_says_how(tmp_path: Path) -> None:
    # A key that would cost money if the demo used it, and a port where nothing listens.
    done = imagegate(
        "demo",
        "--out",
        str(tmp_path),
        forked=False,
        FAL_KEY="real:key",
        FAL_QUEUE_URL="http://127.0.0.1:9",
        IMAGEGATE_RESULTS_RESPONSE_FORMAT="b64_json",
        HTTP_PROXY="http://127.0.0.1:9",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "before.jpg").read_bytes() == SAMPLE.read_bytes()
    with Image.open(tmp_path / "after.png") as after:
        after.load()
        assert after.size == (1200, 800)
        assert after.format == "PNG"
    assert str((tmp_path / "after.png").resolve()) in done.stdout
    assert "curl http://127.0.0.1:8000/openai/v1/images/edits" in done.stdout
    assert '"image_size": {' in done.stdout
    assert "real:key" not in done.stdout + done.stderr


def test_plan_prints_what_a_request_compiles_to(tmp_path: Path) -> None:
    done = imagegate("plan", "qwen-image-edit-2509", "prompt=night", f"image=@{SAMPLE}", "n=2", "seed=5", "size=16:9")
    assert done.returncode == 0, done.stderr
    text, _, price = done.stdout.rpartition("price: ")
    plan = json.loads(text)
    assert [call["seed"] for call in plan["calls"]] == [5, 6]
    assert plan["calls"][0]["image_size"] == {"width": 1360, "height": 768}
    assert price.strip() == "0.06 USD"


def test_plan_names_what_is_wrong() -> None:
    done = imagegate("plan", "qwen-image-edit-2509", f"image=@{SAMPLE}")
    assert done.returncode == 1
    assert done.stderr == "imagegate: missing_required_parameter: Missing required parameter: 'prompt'.\n"


def test_models_lists_and_checks(tmp_path: Path) -> None:
    assert "qwen-image-edit-2509" in imagegate("models").stdout
    good = ROOT / "app" / "catalogue" / "models" / "qwen-image-edit-2509.yaml"
    assert imagegate("models", "check", str(good)).returncode == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text(good.read_text("utf-8").replace("to: guidance_scale", "too: guidance_scale"), encoding="utf-8")
    done = imagegate("models", "check", str(good), str(bad))
    assert done.returncode == 1
    assert "qwen-image-edit-2509: 1 offer(s)" in done.stdout
    assert "row cfg_scale" in done.stderr


def test_models_check_says_all_that_is_wrong_with_files_and_folders(tmp_path: Path) -> None:
    good = (ROOT / "app" / "catalogue" / "models" / "qwen-image-edit-2509.yaml").read_text("utf-8")
    at = {line.strip(): number for number, line in enumerate(good.splitlines(), 1)}
    bad = good.replace("to: guidance_scale", "too: guidance_scale").replace("by: dimensions", "by: magic", 1)
    bad = bad.replace("per_call: 1 ", "per_call: 9 ").replace("type: string\n        default: auto", "default: auto")
    (tmp_path / "a.yaml").write_text(bad, encoding="utf-8")
    (tmp_path / "b.yaml").write_text(good.replace("id: qwen", "id: other\nid: qwen").replace("2509\n", "2510\n", 1))
    (tmp_path / "c.yaml").write_text("id: [\n")
    (tmp_path / "d.yaml").write_text(good.replace("id: qwen-image-edit-2509", "id: other"), encoding="utf-8")
    offer = "qwen-image-edit-2509: offer fal-ai/qwen-image-edit-2509"
    done = imagegate("models", "check", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    for line in (
        f"a.yaml:{at['cfg_scale:']}: {offer}: row cfg_scale: to: Field required",
        f"a.yaml:{at['to: guidance_scale']}: {offer}: row cfg_scale: too: Extra inputs are not permitted",
        f"{offer}: row size: no converter 'magic' (known: dimensions, words)",
        f"{offer}: row n: per_call 9 is above max_per_call 4",
        "b.yaml:5: 'id' stands here twice",
        "c.yaml:2: is not YAML",
        "other: the name 'qwen-image-edit-plus-2509' already belongs to qwen-image-edit-2509",
    ):
        assert line in done.stderr, done.stderr
    assert imagegate("models", "check").returncode == 0
    assert imagegate("models", "check", IMAGEGATE_MODELS_DIR=str(tmp_path)).returncode == 1
    assert imagegate("models", "check", str(tmp_path / "nowhere.yaml")).returncode == 1


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"IMAGEGATE_HOST": "0.0.0.0"}, "no API key"),
        ({"IMAGEGATE_HOST": "0.0.0.0", "IMAGEGATE_API_KEY": " "}, "no API key"),
        ({"IMAGEGATE_PORT": "http"}, "port"),
        ({"IMAGEGATE_MODELS_DIR": "/nowhere"}, "/nowhere"),
        ({"IMAGEGATE_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml"),
        ({"FAL_QUEUE_URL": "http://127.0.0.1:9"}, "FAL_KEY"),
        ({"FAL_KEY": "two words"}, "FAL_KEY"),
        ({"FAL_KEY": "a:b", "FAL_KEY_FILE": "/dev/null"}, "FAL_KEY and FAL_KEY_FILE are both set"),
        ({"FAL_KEY_FILE": "/nowhere"}, "FAL_KEY_FILE: /nowhere cannot be read"),
        ({"FAL_KEY_FILE": "/dev/null"}, "FAL_KEY_FILE: /dev/null is empty"),
        ({"IMAGEGATE_API_KEY_FILE": "/nowhere"}, "IMAGEGATE_API_KEY_FILE: /nowhere cannot be read"),
        ({"IMAGEGATE_DATABASE_URL": "x", "IMAGEGATE_DATABASE_URL_FILE": "/dev/null"}, "are both set"),
        ({"IMAGEGATE_IMAGE_ORIGINS": "nonsense"}, "image_origins"),
        ({"IMAGEGATE_DATA_DIR": "/proc/nothing"}, "data_dir"),
        ({"IMAGEGATE_PROVIDERS": "{fall: {key: x}}"}, "providers.fall"),
        ({"IMAGEGATE_SIGNING_KEYS": "short"}, "signing_keys"),
        ({"IMAGEGATE_STORAGE_URL": "ftp://pictures"}, "storage.url"),
        ({"IMAGEGATE_STORAGE_LINKS": "public"}, "storage.links"),
        ({"IMAGEGATE_STORAGE_BUDGET_BYTES": "-1"}, "storage.budget_bytes"),
        ({"IMAGEGATE_STORAGE_URL": "s3://p", "IMAGEGATE_STORAGE_ENDPOINT": "http://m:9"}, "storage.endpoint"),
        ({"IMAGEGATE_STORAGE_ENDPOINT": "https://minio:9000"}, "storage.endpoint"),
        ({"IMAGEGATE_STORAGE_LINKS": "presigned"}, "storage.links"),
        ({"IMAGEGATE_STORAGE_URL": "s3://p", "AWS_ACCESS_KEY_ID": "only"}, "storage: "),
    ],
)
def test_settings_that_cannot_be_used_stop_the_start_with_one_clear_line(
    tmp_path: Path, environ: dict[str, str], reason: str
) -> None:
    done = imagegate("serve", cwd=tmp_path, **environ)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len([line for line in done.stderr.splitlines() if "built-in" not in line]) == 1
    assert "Traceback" not in done.stderr


def test_an_unknown_setting_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("prot: 8000\nproviders: {fal: {kye: x}}\n")
    done = imagegate("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert "prot" in done.stderr


def test_an_unknown_setting_of_a_provider_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("providers: {fal: {kye: x}}\n")
    done = imagegate("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert "providers.fal.kye" in done.stderr


@pytest.mark.usefixtures("true_starts")
def test_serving_without_a_key_says_that_the_sandbox_is_used(tmp_path: Path) -> None:
    clean = {name: "" for name in os.environ if name.startswith(("IMAGEGATE_", "FAL_"))}
    log = tmp_path / "stderr"
    environ = {**clean, "IMAGEGATE_DATA_DIR": str(tmp_path)}
    with log.open("w") as stderr, Child(["serve", "--port", "0"], environ, stderr=stderr) as gateway:
        assert gateway.said["url"].startswith("http://127.0.0.1:")
    lines = [json.loads(line) for line in log.read_text().splitlines() if "sandbox" in line]
    assert [line["message"] for line in lines] == [
        "FAL_KEY is not set: using the built-in fal.ai sandbox; its pictures are samples, no AI, and nothing is billed."
    ]


@pytest.mark.usefixtures("true_starts")
def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with SandboxServer() as taken:
        port = taken.url.rpartition(":")[2]
        with pytest.raises(ChildFailed):
            Child(
                ["serve", "--sandbox", "--port", port],
                {"IMAGEGATE_DATA_DIR": str(tmp_path)},
                stderr=subprocess.DEVNULL,
            )


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys; from app.children import Child; "
        "child = Child(['sandbox', '--port', '0']); print(child.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the sandbox outlived the process that started it")


def test_a_variable_that_nothing_reads_is_told(tmp_path: Path) -> None:
    done = imagegate("serve", cwd=tmp_path, IMAGEGATE_PROT="8000", IMAGEGATE_MODELS_DIR="/nowhere")
    assert "IMAGEGATE_PROT is set, but there is no such setting" in done.stderr


def test_a_schema_of_the_sandboxs_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"endpoints": ["a/b"], "fields": {}, "size": {"ratio": "aspect_ratio"}}')
    done = imagegate("sandbox", "--port", "0", FAL_SANDBOX_SCHEMAS=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"imagegate: fal.ai sandbox: {tmp_path}/wrong.json: ValueError: unknown key in size: ratio"
    ]


def test_a_file_that_is_missing_is_one_line() -> None:
    done = imagegate("plan", "qwen-image-edit-2509", "prompt=x", "image=@/nowhere.png")
    assert (done.returncode, done.stderr) == (2, "imagegate: /nowhere.png: No such file or directory\n")


def test_plan_uses_the_settings(tmp_path: Path) -> None:
    done = imagegate(
        "plan", "qwen-image-edit-2509", "prompt=x", f"image=@{SAMPLE}", IMAGEGATE_RESULTS_RESPONSE_FORMAT="b64_json"
    )
    assert json.loads(done.stdout.rpartition("price: ")[0])["delivery"]["response_format"] == "b64_json"


def test_sigterm_ends_it_well_and_its_sandbox_with_it(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEGATE_", "FAL_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0"],
        cwd=ROOT,
        env={**clean, "IMAGEGATE_DATA_DIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "startup complete" in line:
                break
        process.terminate()
        assert process.wait(timeout=20) == 0
