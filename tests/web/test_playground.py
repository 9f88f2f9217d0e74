"""The playground as people use it: by mouse, by keyboard, on a phone, and when something goes wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import KEY, PHOTO, Json, Served, StartGateway
from tests.web.conftest import PHONE, OpenPage, enter_key, fill_in, shoot

NewJobs = Callable[[], list[Json]]
Script = Callable[..., None]


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def done(page: Page) -> None:
    page.get_by_text("Made by").wait_for()


def value(page: Page, expression: str) -> object:
    return page.evaluate(expression)


def test_an_edit_from_a_dropped_picture_to_a_download(
    gateway: Served, open_page: OpenPage, new_jobs: NewJobs, tmp_path: Path
) -> None:
    page = open_page(gateway)
    page.locator("#p-image").set_input_files(PHOTO)
    page.locator("#p-prompt").fill("sepia, please")
    expect(page.locator(".go output")).to_contain_text("$0.03")
    expect(page.locator(".go output")).to_contain_text("1 picture of 1248x832")
    assert new_jobs() == []  # a price buys nothing
    run(page)
    done(page)
    [job] = new_jobs()
    assert job["payload"]["prompt"] == "sepia, please"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    with Image.open(path) as image:
        assert image.size == (1248, 832)
    shoot(page, "playground-desktop-light")


def test_the_plan_is_the_gateways_own(gateway: Served, open_page: OpenPage, new_jobs: NewJobs) -> None:
    page = open_page(gateway)
    fill_in(page)
    page.locator("input#p-n").fill("2")
    expect(page.locator(".go output")).to_contain_text("$0.06")
    page.get_by_role("tab", name="What will be sent").click()
    panel = page.locator("#see-panel")
    expect(panel).to_contain_text("2 jobs for 2 pictures")
    expect(panel).to_contain_text('"prompt": "make it a snowy night"')
    expect(panel.locator(".badge.converted").first).to_have_text("converted")
    shoot(page, "plan-desktop-light")
    assert new_jobs() == []


def test_several_pictures_come_as_a_grid_and_keep_their_inputs_order(
    gateway: Served, open_page: OpenPage, new_jobs: NewJobs, tmp_path: Path
) -> None:
    red, blue = tmp_path / "red.png", tmp_path / "blue.png"
    Image.new("RGB", (40, 30), "red").save(red)
    Image.new("RGB", (50, 30), "blue").save(blue)
    page = open_page(gateway)
    page.locator("#p-image").set_input_files([red, blue])
    page.get_by_role("button", name="Move blue.png forward").click()
    page.locator("#p-prompt").fill("sepia")
    page.locator("input#p-n").fill("3")
    page.get_by_role("tab", name="What will be sent").click()
    expect(page.locator("#see-panel")).to_contain_text(
        re.compile(r"picture 1: image/png, 50x30.*picture 2: image/png, 40x30", re.DOTALL)
    )
    run(page)
    done(page)
    expect(page.locator(".shot img")).to_have_count(3)
    page.get_by_role("button", name="Show result 3").click()
    expect(page.get_by_alt_text("Result 3")).to_be_visible()
    assert len(new_jobs()) == 3
    page.get_by_role("button", name="Remove red.png").click()
    expect(page.locator(".thumb")).to_have_count(1)


def test_with_the_keyboard_alone(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway)
    page.locator("#p-prompt").wait_for()

    def reach(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab never reached {selector}")

    reach(".skip")
    reach("#p-image")
    reach(".field .button.quiet")
    page.keyboard.press("Enter")
    page.locator(".thumb").wait_for()
    page.keyboard.press("Tab")
    reach("#p-prompt")
    page.keyboard.type("night")
    page.keyboard.press("Control+Enter")
    done(page)
    reach(".compare input")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.locator(".compare input").input_value() == "60"
    page.wait_for_function("document.querySelector('.compare').style.getPropertyValue('--at') === '60%'")
    page.get_by_role("tab", name="Result").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="What will be sent")).to_be_focused()


def test_a_cancelled_run_is_cancelled_at_the_provider(
    gateway: Served, open_page: OpenPage, script: Script, new_jobs: NewJobs
) -> None:
    script({"on": "submit", "fault": "run_for", "args": {"seconds": 60}})
    page = open_page(gateway)
    fill_in(page)
    run(page)
    page.get_by_text("Making 1 picture").wait_for()
    shoot(page, "running-desktop-light")
    deadline = time.monotonic() + 10
    while not new_jobs() and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-code=cancelled]")).to_be_visible()
    while not all(job["cancelled"] for job in new_jobs()) and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert [job["cancelled"] for job in new_jobs()] == [True]


def test_a_painted_mask_keeps_the_rest(gateway: Served, open_page: OpenPage, new_jobs: NewJobs) -> None:
    page = open_page(gateway)
    fill_in(page)
    page.get_by_role("button", name="Paint a mask").click()
    canvas = page.locator(".brush canvas")
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 90, steps=4)
    page.mouse.up()
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    shoot(page, "mask-desktop-light")
    page.get_by_role("button", name="Use this mask").click()
    page.get_by_role("tab", name="What will be sent").click()
    expect(page.locator("#see-panel")).to_contain_text("laid over the original through the mask")
    run(page)
    done(page)
    corner = """async () => {
      const image = document.querySelector('.compare .after');
      await image.decode();
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      const context = canvas.getContext('2d', {willReadFrequently: true});
      context.drawImage(image, 0, 0);
      const before = document.querySelector('.compare .before');
      await before.decode();
      const after = [...context.getImageData(canvas.width - 5, canvas.height - 5, 1, 1).data];
      context.drawImage(before, 0, 0);
      return [canvas.width, after, [...context.getImageData(canvas.width - 5, canvas.height - 5, 1, 1).data]];
    }"""
    wide, after, before = page.evaluate(corner)
    assert wide == 600
    assert max(abs(one - other) for one, other in zip(after, before, strict=True)) <= 2


class TestWhatGoesWrong:
    """Each code has its words, and they say what to do next."""

    def test_no_key_then_a_wrong_one_then_the_right_one(self, locked_gateway: Served, open_page: OpenPage) -> None:
        page = open_page(locked_gateway)
        problem = page.locator("[data-code=invalid_api_key]")
        expect(problem).to_contain_text("wants an API key")
        shoot(page, "no-key-desktop-light")
        problem.get_by_role("button", name="Enter an API key").click()
        page.get_by_label("Key for this gateway").fill("sk-wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(problem).to_contain_text("Incorrect or missing API key")
        problem.get_by_role("button", name="Enter an API key").click()
        page.get_by_label("Key for this gateway").fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        page.locator("#p-prompt").wait_for()
        assert value(page, "document.cookie + JSON.stringify({...localStorage, ...sessionStorage})") == "{}"
        page.get_by_role("link", name="Requests").click()  # the key goes along
        expect(page.get_by_role("heading", name="Requests", exact=True)).to_be_visible()
        expect(page.locator("[data-code]")).to_have_count(0)

    def test_a_key_is_kept_for_the_tab_only_if_asked(self, locked_gateway: Served, open_page: OpenPage) -> None:
        page = open_page(locked_gateway)
        page.get_by_role("button", name="API key").first.click()
        page.get_by_label("Key for this gateway").fill(KEY)
        page.get_by_label("Keep it until this tab").check()
        page.get_by_role("button", name="Use this key").click()
        page.reload()
        page.locator("#p-prompt").wait_for()

    def test_nothing_filled_in(self, gateway: Served, open_page: OpenPage, new_jobs: NewJobs) -> None:
        page = open_page(gateway)
        page.locator("#p-prompt").wait_for()
        run(page)
        expect(page.get_by_text("Add a picture first.")).to_be_visible()
        expect(page.locator("#p-image")).to_be_focused()
        assert new_jobs() == []

    def test_a_wrong_value_is_marked_at_its_field(self, gateway: Served, open_page: OpenPage) -> None:
        page = open_page(gateway)
        fill_in(page)
        page.locator("#p-size").fill("huge")
        expect(page.locator("#p-size-wrong")).to_contain_text("size")
        expect(page.locator("#p-size")).to_have_attribute("aria-invalid", "true")
        page.locator("#p-size").fill("64x64")
        expect(page.locator("#p-size-wrong")).to_have_count(0)
        expect(page.locator(".go output")).to_contain_text("64x64")

    def test_a_picture_that_is_too_large_or_none(self, gateway: Served, open_page: OpenPage, tmp_path: Path) -> None:
        large, none = tmp_path / "large.png", tmp_path / "none.png"
        with large.open("wb") as file:
            file.truncate(21 << 20)
        none.write_bytes(b"no picture")
        page = open_page(gateway)
        page.locator("#p-image").set_input_files(large)
        expect(page.locator("#pictures-wrong")).to_contain_text("large.png is too large")
        page.get_by_role("button", name="Remove large.png").click()
        page.locator("#p-image").set_input_files(none)
        page.locator("#p-prompt").fill("sepia")
        expect(page.locator("#pictures-wrong")).to_be_visible()

    def test_a_provider_that_is_down(self, start_gateway: StartGateway, open_page: OpenPage, script: Script) -> None:
        apart = start_gateway(IMAGEGATE_REQUEST_SECONDS="179")  # its breaker is nobody else's
        script({"on": "submit", "fault": "http", "args": {"status": 500}, "times": 20})
        page = open_page(apart)
        fill_in(page)
        run(page)
        problem = page.locator(".see [data-code]")
        expect(problem).to_have_attribute(
            "data-code", re.compile("provider_unavailable|upstream_ambiguous|provider_bad")
        )
        expect(problem).to_contain_text("provider")
        shoot(page, "provider-down-desktop-light")

    def test_a_refused_picture(self, gateway: Served, open_page: OpenPage, script: Script) -> None:
        script({"on": "submit", "fault": "nsfw"})
        page = open_page(gateway)
        fill_in(page)
        run(page)
        expect(page.locator("[data-code=content_policy_violation]").first).to_contain_text("Reword the prompt")

    def test_a_gateway_that_is_gone(self, gateway: Served, open_page: OpenPage) -> None:
        page = open_page(gateway)
        fill_in(page)
        page.context.set_offline(True)
        run(page)
        expect(page.locator(".see [data-code=unreachable]")).to_contain_text("Check that it is running")
        page.context.set_offline(False)
        page.get_by_role("button", name="Run again").click()
        done(page)


def test_on_a_phone(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway, size=PHONE, dark=True)
    page.locator("#p-prompt").wait_for()
    shoot(page, "playground-phone-dark")
    fill_in(page)
    run(page)
    done(page)
    expect(page.locator(".compare")).to_be_in_viewport()
    assert value(page, "document.documentElement.scrollWidth") == PHONE[0]
    page.wait_for_timeout(400)  # it glides there: for the picture only
    shoot(page, "result-phone-dark")


def run_code(code: str, language: str, folder: Path, node_modules: Path) -> str:
    """What a sample prints, run in `folder` as a reader would."""
    environ = {**os.environ, "IMAGEGATE_API_KEY": KEY, "no_proxy": "*", "NO_PROXY": "*"}
    command = {"curl": ["sh", "-ec", code], "Python": [sys.executable, "-c", code], "JavaScript": ["node", "code.mjs"]}
    if language == "JavaScript":
        (folder / "node_modules").symlink_to(node_modules)
        (folder / "code.mjs").write_text(code)
    ran = subprocess.run(command[language], cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_code_does_what_the_page_did(
    locked_gateway: Served,
    open_page: OpenPage,
    new_jobs: NewJobs,
    node_modules: Path,
    tmp_path: Path,
    language: str,
) -> None:
    name = 'it\'s; a "cup", $HOME.jpg'
    (tmp_path / name).write_bytes(PHOTO.read_bytes())
    page = open_page(locked_gateway)
    enter_key(page, KEY)
    page.locator("#p-image").set_input_files(tmp_path / name)
    page.locator("#p-prompt").fill('@night\'s `date` "sky" $HOME\n<sepia> \\n é;type=x')
    page.locator("#p-seed").fill("7")
    page.locator("#p-size").fill("512x512")
    page.locator("summary", has_text="More settings").click()
    page.locator("input#p-cfg_scale").fill("2.5")
    page.locator("#p-acceleration").select_option("none")
    page.locator("#p-enable_safety_checker").uncheck()
    run(page)
    done(page)
    page.get_by_role("tab", name="Code").click()
    page.get_by_role("tab", name=language).click()
    page.get_by_role("button", name="Copy").click()
    code = str(value(page, "navigator.clipboard.readText()"))
    shoot(page, f"code-{language}-desktop-light")
    said = run_code(code, language, tmp_path, node_modules)
    by_page, by_code = (job["payload"] for job in new_jobs())
    pictures = [payload.pop("image_urls") for payload in (by_page, by_code)]
    assert len(pictures[0]) == len(pictures[1]) == 1
    assert by_code == by_page
    assert by_page["guidance_scale"] == 2.5
    if language != "curl":
        with Image.open(tmp_path / "result-1.png") as image:
            assert image.size == (512, 512)
    else:
        assert '"url"' in said


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
@pytest.mark.parametrize("model", ["z-image-turbo", "qwen-image-edit-inpaint"])
def test_the_code_of_a_models_page_runs(
    locked_gateway: Served,
    open_page: OpenPage,
    new_jobs: NewJobs,
    node_modules: Path,
    tmp_path: Path,
    model: str,
    language: str,
) -> None:
    """One that makes pictures from words, and one that needs a mask."""
    with Image.open(PHOTO) as image:
        image.save(tmp_path / "picture.png")
        Image.new("L", image.size, 255).save(tmp_path / "mask.png")
    page = open_page(locked_gateway, f"/models/{model}")
    enter_key(page, KEY)
    page.get_by_role("tab", name=language, exact=True).click()
    page.get_by_role("button", name="Copy").click()
    run_code(str(value(page, "navigator.clipboard.readText()")), language, tmp_path, node_modules)
    [job] = new_jobs()
    assert job["payload"]["prompt"] == ("a harbour in fog" if model == "z-image-turbo" else "make it a snowy night")


def test_every_code_of_the_gateway_has_its_words() -> None:
    from app.errors import error_classes

    words = (Path(__file__).parents[2] / "app" / "web" / "words.js").read_text("utf-8")
    advised = set(re.findall(r"^  (\w+): \[", words, re.MULTILINE))
    codes = {kind.code for kind in error_classes().values()} | {"decimal_below_min_value", "decimal_above_max_value"}
    assert codes <= advised


def test_the_log_shows_what_became_of_a_run_and_its_pictures(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway)
    fill_in(page)
    run(page)
    done(page)
    page.locator(".facts a[href^='/requests/']").click()
    page.wait_for_function("() => document.querySelector('.kept img')?.naturalWidth === 1248")
    expect(page.locator("table").first).to_contain_text("fal-ai/qwen-image-edit-2509")
    shoot(page, "request-desktop-light")
    page.get_by_role("link", name="All requests").click()
    expect(page.locator("tbody tr").first).to_contain_text("completed")


def test_every_model_runs_from_its_form(gateway: Served, open_page: OpenPage, new_jobs: NewJobs) -> None:
    """Whatever a model's rows ask for is asked for by its form, in words that say what is missing."""
    page = open_page(gateway)
    fill_in(page)
    models = gateway.get("/openai/v1/models").json()["data"]
    assert len(models) >= 20
    for model in models:
        page.get_by_label("Model", exact=True).select_option(model["id"])
        page.locator(f"a[href='/models/{model['id']}']").wait_for()
        expect(page.locator(".thumb")).to_have_count(int("image-edit" in model["modes"]))
        run(page)
        schema = gateway.get(f"/v1/models/{model['id']}?schema=true").json()["providers"][0]["parameters"]
        if any(row["name"] == "mask" and row["required"] for row in schema):
            expect(page.get_by_text("Paint what may change first.")).to_be_visible()
            page.get_by_role("button", name="Paint a mask").click()
            page.locator(".brush canvas").focus()
            page.keyboard.press("Space")
            page.get_by_role("button", name="Use this mask").click()
            run(page)
        expect(page.get_by_text(f"fal/{model['providers'][0]['endpoint']}", exact=True)).to_be_visible()
        done(page)
        page.get_by_role("tab", name="Result").click()
    assert {job["endpoint"] for job in new_jobs()} == {one["providers"][0]["endpoint"] for one in models}


def test_a_sandbox_is_said_to_be_one(
    gateway: Served, start_gateway: StartGateway, sandbox_environ: dict[str, str], open_page: OpenPage
) -> None:
    """Nobody is to take its samples for a model's pictures, or its prices for a bill."""
    nothing = {name: "" for name in sandbox_environ if name.startswith("FAL_")}
    alone = start_gateway(**nothing)
    for served, stands_in in ((alone, True), (gateway, False)):
        assert {
            offer["sandbox"] for model in served.get("/openai/v1/models").json()["data"] for offer in model["providers"]
        } == {stands_in}
        page = open_page(served)
        fill_in(page)
        expect(page.get_by_text("A sandbox stands in for the provider")).to_have_count(int(stands_in))
        run(page)
        done(page)
        expect(page.get_by_text("the sandbox bills nothing")).to_have_count(int(stands_in))


def test_a_model_makes_pictures_from_words(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway)
    model = page.get_by_label("Model", exact=True)
    expect(model.locator("optgroup")).to_have_count(2)
    assert model.locator("optgroup").evaluate_all("all => all.map(one => one.label)") == [
        "Edit pictures",
        "Make pictures from words",
    ]
    model.select_option("qwen-image")
    expect(page.get_by_text("Drop, paste or choose")).to_have_count(0)
    page.locator("#p-prompt").fill("a harbour in fog")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("1024 × 768")).to_be_visible()
    expect(page.get_by_text("fal/fal-ai/qwen-image")).to_be_visible()
    expect(page.locator(".facts dd").first).to_contain_text("unknown")  # and not $0.00: nobody published its price
    page.locator(".facts a[href^='/requests/']").click()
    expect(page.locator(".facts")).to_contain_text("unknown")
