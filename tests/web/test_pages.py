"""What holds for all pages: no markup out of text, a strict policy, little to load, nothing that moves, axe-core."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page, Request, expect

from tests.conftest import PHOTO, Served, StartGateway
from tests.web.conftest import DESKTOP, PHONE, OpenPage, enter_key, fill_in, shoot

ROOT = Path(__file__).parents[2]
WEB = ROOT / "app" / "web"
MODEL = "qwen-image-edit-2509"
ADMIN = "an-admins-key-for-the-pages"
PATHS = ["/", "/models", f"/models/{MODEL}", "/requests", "/usage", "/keys"]

PAYLOADS = [
    "<script>xss=1</script>",
    "<img src=x onerror=xss=1>",
    '"><svg onload=xss=1>',
    "'><iframe srcdoc='<script>parent.xss=1</script>'>",
    "javascript:xss=1",
    "<a href=javascript:xss=1>a</a>",
    "<body onload=xss=1>",
    "<input autofocus onfocus=xss=1>",
    "<details open ontoggle=xss=1>",
    "<video><source onerror=xss=1></video>",
    "</code></pre><script>xss=1</script>",
    "</textarea><img src=x onerror=xss=1>",
    "<math><mtext></p><img src=x onerror=xss=1></math>",
    "{{constructor.constructor('xss=1')()}}",
    "${xss=1}",
    "&lt;img src=x onerror=xss=1&gt;",
    "<style>@import 'javascript:xss=1'</style>",
    "<object data='data:text/html,<script>parent.xss=1</script>'>",
    "<base href='https://evil.example/'>",
    "\u202e<form action=//evil.example><button>xss",
]


@pytest.fixture(scope="module")
def hostile(start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A gateway whose models are called like attacks."""
    folder = tmp_path_factory.mktemp("models")
    for number, payload in enumerate(PAYLOADS):
        text = {"type": "string", "max_length": 5000, "doc": payload}
        offer = {
            "provider": "fal",
            "endpoint": "fal-ai/qwen-image-edit-2509",
            "accepts": {"images": 3},
            "params": {
                "prompt": {"how": "passthrough", "required": True, **text},
                "image": {"how": "renamed", "to": "image_urls", "type": "images", "required": True, "doc": payload},
                "style_name": {"how": "passthrough", "type": "string", "values": [payload, "b"], "doc": payload},
            },
        }
        model = {"id": f"hostile-{number}", "name": payload, "creator": payload, "description": payload}
        model |= {"aliases": [f"{payload}{number}"], "modes": ["image-edit"], "offers": [offer]}
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(model))
    return start_gateway(IMAGEGATE_MODELS_DIR=str(folder))


@pytest.fixture(scope="module")
def unsized(start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A gateway with a model that takes no size, and one to which sizes go as they are."""
    folder = tmp_path_factory.mktemp("models")
    text = (Path(__file__).parents[1] / "params" / "models" / "unsized.yaml").read_text()
    (folder / "unsized.yaml").write_text(text)
    row = "      size: {how: passthrough, type: string}\n"
    (folder / "passed.yaml").write_text(text.replace("id: unsized", "id: passed") + row)
    return start_gateway(IMAGEGATE_MODELS_DIR=str(folder))


def unharmed(page: Page) -> None:
    assert page.evaluate("typeof xss") == "undefined"
    planted = (
        "iframe, object, embed, base, form[action], [onerror], [onload], [onfocus], [ontoggle], img[src=x], main script"
    )
    assert page.locator(planted).count() == 0
    assert page.locator("a[href^=javascript]").count() == 0


def test_text_stays_text(hostile: Served, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(hostile, "/models")
    for number, payload in enumerate(PAYLOADS):
        expect(page.locator(f"a[href='/models/hostile-{number}'] h3")).to_have_text(payload.replace("\u202e", "\u202e"))
    unharmed(page)
    page.goto(f"{hostile.url}/?model=hostile-1")
    page.locator("#p-prompt").wait_for()
    names = [f"{number}{re.sub('[/]', '_', payload)}.jpg" for number, payload in enumerate(PAYLOADS[:3])]
    for name in names:
        (tmp_path / name).write_bytes(PHOTO.read_bytes())
    page.locator("#p-image").set_input_files([tmp_path / name for name in names])
    page.get_by_role("tab", name="What will be sent").click()
    for payload in PAYLOADS:
        page.locator("#p-prompt").fill(payload)
        expect(page.locator("#see-panel .code").first).to_contain_text(json.dumps(payload, ensure_ascii=False)[1:-1])
    page.get_by_role("tab", name="Code").click()
    for language in ("Python", "JavaScript", "curl"):
        page.get_by_role("tab", name=language).click()
        unharmed(page)
    page.goto(f"{hostile.url}/models/hostile-2")
    expect(page.get_by_role("heading", level=1)).to_have_text(PAYLOADS[2])
    unharmed(page)


def test_errors_and_addresses_stay_text(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway)
    fill_in(page)
    for payload in PAYLOADS:
        page.locator("#p-size").fill(payload)
        expect(page.locator("#p-size-wrong")).to_be_visible()
    unharmed(page)
    for path in (
        "/models/<img src=x onerror=xss=1>",
        "/requests/<img src=x onerror=xss=1>",
        "/?model=<script>xss=1</script>",
    ):
        page.goto(gateway.url + path)
        page.locator("main h1").first.wait_for(state="attached")
        unharmed(page)
    run = {"model": MODEL, "prompt": PAYLOADS[1], "image_url": "data:,", "size": PAYLOADS[2]}
    assert gateway.post(run).status_code == 400


def test_the_policy_is_strict_and_holds_for_every_file(gateway: Served) -> None:
    shell = gateway.get("/")
    assets = re.findall(r'(?:src|href)="(/assets/[^"]+)"', shell.text)
    assert len(assets) > 15
    for path in ["/", "/models/a/b", *assets]:
        answer = gateway.get(path)
        assert answer.status_code == 200, path
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert (
            policy["default-src"]
            == policy["base-uri"]
            == policy["form-action"]
            == policy["frame-ancestors"]
            == "'none'"
        )
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", shell.text)


def test_pictures_may_come_from_the_public_url_too(start_gateway: StartGateway) -> None:
    page = start_gateway(IMAGEGATE_PUBLIC_URL="http://pictures.test:81/base").get("/")
    policy = page.headers["content-security-policy"]
    assert "img-src 'self' blob: data: https: http://pictures.test:81;" in policy


def test_nothing_of_ours_makes_markup_of_text() -> None:
    for path in WEB.glob("*.js"):
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|dangerously|\beval\b|new Function", path.read_text()
        )
        assert found is None, f"{path.name}: {found}"


def test_files_are_cached_for_good_and_pages_are_asked_for_again(gateway: Served) -> None:
    shell = gateway.get("/")
    assert shell.headers["cache-control"] == "no-cache"
    assert gateway.get("/", headers={"if-none-match": shell.headers["etag"]}).status_code == 304
    [script] = re.findall(r'src="(/assets/[^"]+/app.js)"', shell.text)
    answer = gateway.get(script)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (WEB / "app.js").read_bytes()
    plain = gateway.get(script, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert gateway.http.head(script).headers["content-length"] == str(len(gzip.compress(plain.content, 9, mtime=0)))
    for wrong in (
        re.sub(r"assets/\w+", "assets/0123", script),
        script.replace("app.js", "..%2f..%2fmain.py"),
        script.replace("app.js", "index.html"),
        script.replace("app.js", "vendor/README.md"),
    ):
        assert gateway.get(wrong).status_code == 404, wrong


def test_the_first_view_is_light_and_nothing_moves(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway, "/healthz")
    protocol = page.context.new_cdp_session(page)
    protocol.send("Network.enable")
    loaded: list[float] = []
    protocol.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
    for size in (DESKTOP, PHONE):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.goto(gateway.url)
        page.locator("#p-prompt").wait_for()
        page.wait_for_load_state("networkidle")
        shift = """() => new Promise(done => {
          let sum = 0;
          const add = list => list.getEntries().forEach(entry => { sum += entry.value; });
          new PerformanceObserver(add).observe({type: 'layout-shift', buffered: true});
          setTimeout(() => done(sum), 200);
        })"""
        assert page.evaluate(shift) < 0.02
    assert len(loaded) > 20
    assert sum(loaded) < 150_000


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_axe_finds_nothing_serious(gateway: Served, open_page: OpenPage, axe: str, path: str, dark: bool) -> None:
    page = open_page(gateway, path, dark=dark, size=PHONE if dark else DESKTOP)
    page.locator("main h1").first.wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    if path == "/":
        fill_in(page)
        while page.locator("details:not([open]) > summary").count():
            page.locator("details:not([open]) > summary").first.click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Made by").wait_for()
        page.wait_for_timeout(250)
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [
        (one["id"], [node["html"][:120] + " " + str(node.get("failureSummary"))[:200] for node in one["nodes"][:3]])
        for one in bad
    ] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    name = "playground" if path == "/" else path.strip("/").split("/")[0] + ("-one" if path.count("/") > 1 else "")
    shoot(page, f"{name}-{'phone-dark' if dark else 'desktop-light'}")


def test_the_theme_follows_the_system_until_it_is_chosen(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway, "/models", dark=True)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Switch to the light theme").click()
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert page.evaluate(ground) == dark


def test_a_model_that_is_a_file_appears_with_its_controls(hostile: Served, open_page: OpenPage) -> None:
    page = open_page(hostile, "/models/hostile-4")
    page.get_by_role("link", name="Try it").click()
    expect(page.locator("#model")).to_have_value("hostile-4")
    page.locator("summary", has_text="More settings").click()
    expect(page.locator("#p-style_name option")).to_have_text(["not set", PAYLOADS[4], "b"])


@pytest.mark.parametrize(
    ("model", "said"),
    [("z-image-turbo", "none: from words alone"), (MODEL, re.compile(r"^up to 3, each .* and 40 megapixels$"))],
)
def test_a_models_page_says_how_many_pictures_it_takes(
    gateway: Served, open_page: OpenPage, model: str, said: str | re.Pattern[str]
) -> None:
    page = open_page(gateway, f"/models/{model}")
    limits = page.get_by_role("region", name="Limits")
    expect(limits.locator("dt", has_text="Pictures in").locator("xpath=following-sibling::dd[1]")).to_have_text(said)
    expect(limits.locator("dt", has_text="Formats it reads")).to_have_count(int(model == MODEL))


@pytest.mark.parametrize(
    ("model", "said", "unsaid"),
    [
        ("qwen-image-edit-2509", "Sides it makes: 256 to 2048 pixels, in steps of 16", "Sizes it makes"),
        ("gpt-image-1.5-edit", "Sizes it makes: 1024x1024, 1536x1024, 1024x1536", "Sides it makes"),
        ("flux-kontext-pro", "Shapes: 21:9, 16:9, 4:3, 3:2, 1:1, 2:3, 3:4, 9:16, 9:21", "Sides it makes"),
        ("unsized", "Sizes it makes: its own", "Sides it makes"),
        ("passed", "Formats it reads: png, jpeg, webp; others are converted", "it makes"),
    ],
)
def test_a_models_page_says_which_sizes_it_makes(
    unsized: Served, open_page: OpenPage, model: str, said: str, unsaid: str
) -> None:
    limits = open_page(unsized, f"/models/{model}").get_by_role("region", name="Limits")
    name, value = said.split(": ", 1)
    expect(limits.locator("dt", has_text=name).locator("xpath=following-sibling::dd[1]")).to_have_text(value)
    expect(limits.locator("dt", has_text=unsaid)).to_have_count(0)


@pytest.mark.parametrize("path", ["/nowhere", "/openai", "/models.php", "/requests/a/b"])
def test_a_person_who_looks_where_nothing_is_gets_a_page_that_leads_home(
    gateway: Served, open_page: OpenPage, path: str
) -> None:
    page = open_page(gateway, path)
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    page.get_by_role("link", name="Open the playground").click()
    expect(page).to_have_url(f"{gateway.url}/")
    page.go_back()
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/nowhere", "*/*"),
        ("GET", "/nowhere", "application/json"),
        ("POST", "/nowhere", "text/html"),
        ("GET", "/openai/v1/nowhere", "text/html"),
        ("GET", "/v1/nowhere", "text/html"),
        ("GET", "/files/nowhere", "text/html"),
    ],
)
def test_a_program_gets_the_envelope_there(gateway: Served, method: str, path: str, accept: str) -> None:
    answer = gateway.http.request(method, path, headers={"accept": accept})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_pages_follow_the_history(gateway: Served, open_page: OpenPage) -> None:
    page = open_page(gateway)
    page.locator("#p-prompt").fill("kept while away")
    page.get_by_role("navigation").get_by_role("link", name="Models").click()
    page.locator(f"a[href='/models/{MODEL}']").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Qwen Image Edit 2509")
    assert page.title() == "Model · imagegate"
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Models")
    page.get_by_role("navigation").get_by_role("link", name="Playground").click()
    expect(page.locator("#p-prompt")).to_have_value("kept while away")


def serious(page: Page, axe: str) -> list[str]:
    """What axe-core finds that keeps people out."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")]


@pytest.fixture(scope="module")
def administered(start_gateway: StartGateway) -> Served:
    """A gateway with an admin, and nothing else yet."""
    return start_gateway(IMAGEGATE_ADMIN_KEY=ADMIN)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_usage_shows_sums_beside_a_chart(administered: Served, open_page: OpenPage, axe: str) -> None:
    for name, pictures in (("Ada", 5), (PAYLOADS[1], 10)):
        made = administered.post({"name": name}, "/v1/keys", headers=bearer(ADMIN)).json()
        words = {"model": "flux-2-pro", "prompt": "fog", "size": "256x256", "n": pictures}
        answer = administered.post(words, "/openai/v1/images/generations", headers=bearer(made["key"]))
        assert answer.status_code == 200, answer.text
    page = open_page(administered, "/usage")
    enter_key(page, ADMIN, keep=True)
    for _ in range(50):  # the log is written behind the answer
        page.locator(".stats").wait_for()
        if "15" in page.locator(".stats").inner_text():
            break
        page.reload()
    expect(page.locator(".stats")).to_contain_text("$0.45")
    expect(page.locator("svg.chart .bar")).to_have_count(30)
    expect(page.locator("main")).to_contain_text(PAYLOADS[1])
    page.locator("summary", has_text="As a table").first.click()
    unharmed(page)
    assert serious(page, axe) == []
    shoot(page, "usage-with-data-desktop-light")
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    expect(page.locator("svg.chart text").first).to_be_visible()
    drawn = "document.querySelector('svg.chart').getBoundingClientRect().width"
    assert (
        page.evaluate(f"{drawn} / document.querySelector('svg.chart').viewBox.baseVal.width") > 0.75
    )  # words keep size


@pytest.mark.parametrize("status", ["running", "completed", "partial", "failed", "cancelled"])
def test_the_request_log_may_be_narrowed_by_status(gateway: Served, open_page: OpenPage, status: str) -> None:
    page = open_page(gateway, "/requests")
    with page.expect_response(lambda answer: f"status={status}" in answer.url) as narrowed:
        page.get_by_label("Show").select_option(status)
    assert narrowed.value.status == 200
    assert {row["status"] for row in narrowed.value.json()["data"]} <= {status}


def test_keys_are_made_shown_once_limited_rotated_and_revoked(
    start_gateway: StartGateway, open_page: OpenPage, axe: str
) -> None:
    gateway = start_gateway(IMAGEGATE_ADMIN_KEY=ADMIN, IMAGEGATE_REQUEST_SECONDS="178")  # whose keys are nobody else's
    sent: list[tuple[str, str, Any]] = []

    def hear(request: Request) -> None:
        if "/v1/keys" in request.url and request.method != "GET":
            sent.append((request.method, request.url.split("/v1/")[1], request.post_data and request.post_data_json))

    def status(key: str) -> int:
        return gateway.get("/openai/v1/models", headers=bearer(key)).status_code

    page = open_page(gateway, "/keys")
    page.on("request", hear)
    enter_key(page, ADMIN, keep=True)
    page.get_by_role("button", name="Make the first key").click()
    page.get_by_label("Name").fill("Grace")
    page.get_by_label("Budget a day").fill("2.5")
    page.get_by_label("Expires in days").fill("30")
    page.get_by_role("button", name="Make the key").click()
    shown = page.get_by_role("dialog").locator("pre")
    expect(shown).to_contain_text("ig_")
    first = shown.inner_text()
    assert status(first) == 200
    assert serious(page, axe) == []
    shoot(page, "key-shown-desktop-light")
    page.keyboard.press("Escape")
    words = {"model": "flux-2-pro", "prompt": "fog", "size": "256x256"}
    assert gateway.post(words, "/openai/v1/images/generations", headers=bearer(first)).status_code == 200
    page.reload()
    expect(page.locator("table")).to_contain_text("$0.03 of $2.50")
    assert first not in page.content()
    [key] = gateway.get("/v1/keys", headers=bearer(ADMIN)).json()["data"]
    assert key["expires"] - key["created"] == 2_592_000
    page.get_by_role("button", name="Change the limits of Grace").click()
    page.get_by_label("Budget a day").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("table")).to_contain_text("none")
    page.get_by_role("button", name="Rotate Grace").click()
    page.get_by_role("button", name="Rotate", exact=True).click()
    expect(shown).to_contain_text("ig_")
    second = shown.inner_text()
    assert (status(first), status(second)) == (401, 200)
    page.keyboard.press("Escape")
    shoot(page, "keys-with-data-desktop-light")
    page.get_by_role("button", name="Revoke Grace").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("table")).to_contain_text("revoked")
    assert status(second) == 401
    assert sent == [
        ("POST", "keys", {"name": "Grace", "budget_day": 2.5, "expires_in": 2_592_000}),
        ("PATCH", f"keys/{key['id']}", {"budget_day": None}),
        ("POST", f"keys/{key['id']}/rotate", {}),
        ("DELETE", f"keys/{key['id']}", None),
    ]


def test_every_file_is_packaged_and_the_vendored_one_is_what_it_says() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]["app"]
    for path in WEB.rglob("*"):
        if path.is_file():
            name = path.relative_to(ROOT / "app").as_posix()
            assert any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns), name
    vendored = hashlib.sha256((WEB / "vendor" / "preact-htm.js").read_bytes()).hexdigest()
    assert vendored == "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"


def test_an_open_gateways_own_pages_may_call_it_and_others_not(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    body = {"model": MODEL, "prompt": "a", "image_url": "data:,"}
    own = {"origin": "http://192.0.2.7:8000", "host": "192.0.2.7:8000"}
    rebound = {"origin": "http://evil.example:8000", "host": "evil.example:8000"}
    foreign = {"origin": "http://192.0.2.7:8000", "host": "127.0.0.1:8000"}
    https = {"origin": "https://images.example", "host": "images.example", "sec-fetch-site": "same-origin"}
    for headers, status in ((own, 400), (https, 400), (rebound, 403), (foreign, 403)):
        assert gateway.post(body, headers=headers).status_code == status, headers
