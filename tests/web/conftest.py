"""A real browser over a real gateway: Debian's Chromium, one for the session, a fresh context for each test.

Whatever a page complains about (a violated policy, an error in the console) fails the test that saw it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.conftest import Served
from tests.fakes.npm import installed

HERE = Path(__file__).parent
SHOTS = HERE / "screenshots"
DESKTOP, PHONE = (1440, 900), (360, 740)
PATIENCE = 30_000.0  # ms, for a machine that has other things to do; nothing waits for it that works

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window. Not longer than a module: as long as Playwright is there an event loop runs
    in this thread, and no other test could run one."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed, and CI must not skip the pages")
        pytest.skip("chromium is not installed: THE PAGES WERE NOT TESTED (apt-get install chromium)")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-proxy-server"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """open_page(gateway, "/models", size=PHONE, dark=True) -> Page."""
    complaints: list[str] = []
    contexts = []

    def heard(message: ConsoleMessage) -> None:
        # Chromium writes every answer from 400 on into the console: those are the gateway's, and tested as such.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    def open_(gateway: Served, path: str = "/", *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(gateway.url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source, installed from the lock by the first worker that needs it."""
    return (installed(HERE, "the pages' accessibility") / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """OpenAI's SDK for JavaScript: the one of the clients' tests."""
    return installed(HERE.parent / "api" / "clients" / "node", "the JavaScript clients")


def shoot(page: Page, name: str) -> None:
    """Keep what it looks like, for people."""
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def fill_in(page: Page, prompt: str = "make it a snowy night") -> None:
    """The sample photo and some words, and the price that the gateway asks for them."""
    page.get_by_role("button", name="Use the sample photo").click()
    page.locator("#p-prompt").fill(prompt)
    page.get_by_text("picture of", exact=False).first.wait_for()


def enter_key(page: Page, key: str, *, keep: bool = False) -> None:
    """As a person gives a page its key; `keep` for the tab, over a reload."""
    page.get_by_role("button", name="API key").first.click()
    page.get_by_label("Key for this gateway").fill(key)
    if keep:
        page.get_by_label("Keep it until this tab").check()
    page.get_by_role("button", name="Use this key").click()
