"""What stands in the deployment's files is what the gateway reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from app.config import Config, load_config, unread_variables

ROOT = Path(__file__).parents[2]
NOT_OURS = {"FAL_KEY", "FORWARDED_ALLOW_IPS", "PGPASSWORD"}  # the adapter's, uvicorn's, asyncpg's
_REFERENCE = re.compile(r"\$\{([A-Z0-9_]+)(?::-([^}]*))?\}")


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def filled(environment: dict[str, str], env: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """As docker compose fills it with what is in .env."""
    return {
        name: _REFERENCE.sub(lambda match: env.get(match[1]) or match[2] or "", value)
        for name, value in environment.items()
    }


@pytest.mark.parametrize("service", ["gateway", "gateways", "bucket"])
def test_the_gateway_reads_every_variable_that_compose_sets(service: str, tmp_path: Path) -> None:
    environ = {**filled(services()[service]["environment"]), "IMAGEGATE_CONFIG": str(tmp_path / "config.yaml")}
    (tmp_path / "config.yaml").write_text("{}\n")
    assert unread_variables(environ) == []
    assert {name for name in environ if not name.startswith("IMAGEGATE_")} <= NOT_OURS
    assert isinstance(load_config(environ), Config)


@pytest.mark.parametrize("service", ["gateway", "gateways"])
def test_what_is_written_into_the_env_file_becomes_the_gateways_settings(service: str, tmp_path: Path) -> None:
    env = {
        "FAL_KEY": "id:secret",
        "IMAGEGATE_API_KEY": "a-clients-key",
        "IMAGEGATE_ADMIN_KEY": "an-admins-key",
        "IMAGEGATE_ALLOW_OPEN": "false",
        "IMAGEGATE_PUBLIC_URL": "https://images.example.com",
        "IMAGEGATE_SIGNING_KEYS": "0123456789abcdef0123456789abcdef",
        "S3_ACCESS_KEY_ID": "access",
        "S3_SECRET_ACCESS_KEY": "secret/with+signs",
    }
    environ = filled(services()[service]["environment"], env)
    assert environ["FAL_KEY"] == "id:secret"
    (tmp_path / "config.yaml").write_text("{}\n")
    config = load_config({**environ, "IMAGEGATE_CONFIG": str(tmp_path / "config.yaml")})
    assert config.api_key.get_secret_value() == "a-clients-key"
    assert config.admin_key.get_secret_value() == "an-admins-key"
    assert config.allow_open is False
    assert config.public_url == "https://images.example.com"
    if service == "gateways":
        assert [key.get_secret_value() for key in config.signing_keys] == [env["IMAGEGATE_SIGNING_KEYS"]]
        assert config.storage.access_key_id == "access"
        assert config.storage.secret_access_key.get_secret_value() == "secret/with+signs"


def test_every_variable_that_compose_asks_for_is_explained_in_the_example_and_none_else() -> None:
    asked = {name for name, _ in _REFERENCE.findall((ROOT / "compose.yaml").read_text("utf-8"))}
    explained = set(re.findall(r"^# ([A-Z0-9_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert asked == explained


def test_a_password_of_any_characters_does_not_break_the_database_url() -> None:
    """It is no part of the URL; asyncpg takes it from libpq's variable."""
    for service in ("gateways", "bucket"):
        environment = services()[service]["environment"]
        assert "$" not in environment["IMAGEGATE_DATABASE_URL"]
        assert environment["PGPASSWORD"] == services()["postgres"]["environment"]["POSTGRES_PASSWORD"]


def test_what_the_page_puts_into_an_override_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    override = yaml.safe_load(block)["services"]["gateway"]
    environ = {**filled(services()["gateway"]["environment"]), **override["environment"]}
    assert override["volumes"] == [f"./config.yaml:{environ['IMAGEGATE_CONFIG']}:ro"]
    secret = tmp_path / "admin_key.txt"
    secret.write_text("from a file\n")
    environ |= {"IMAGEGATE_CONFIG": str(ROOT / "config.yaml"), "IMAGEGATE_ADMIN_KEY_FILE": str(secret)}
    assert unread_variables(environ) == []
    config = load_config(environ)
    assert config.admin_key.get_secret_value() == "from a file"
    assert config.results.response_format == "b64_json"


def test_no_port_is_published_beyond_this_machine() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_proxy_is_more_patient_than_the_gateway_and_never_asks_twice() -> None:
    conf = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text("utf-8")
    config = Config()
    seconds = re.search(r"proxy_read_timeout (\d+)s;", conf)
    megabytes = re.search(r"client_max_body_size (\d+)m;", conf)
    assert seconds is not None
    assert float(seconds[1]) > config.max_request_seconds
    assert megabytes is not None
    assert int(megabytes[1]) << 20 > config.limits.body_bytes
    assert "non_idempotent" not in conf
    assert "proxy_buffering off;" in conf
    assert "proxy_request_buffering off;" in conf


def test_what_the_proxy_itself_says_has_the_shape_of_the_gateways_errors() -> None:
    conf = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text("utf-8")
    said = {int(status): json.loads(body)["error"] for status, body in re.findall(r"return (\d+) '(.*)';", conf)}
    assert {status: error["code"] for status, error in said.items()} == {
        413: "request_too_large",
        502: "gateway_unavailable",
    }
    assert all(list(error) == ["message", "type", "param", "code"] for error in said.values())
    errors = (ROOT / "docs" / "errors.md").read_text("utf-8")
    words = (ROOT / "app" / "web" / "words.js").read_text("utf-8")
    assert all(f"`{error['code']}`" in errors and f"  {error['code']}: [" in words for error in said.values())


def test_a_stop_waits_for_running_requests() -> None:
    assert services()["gateway"]["stop_grace_period"] == "4m"
    assert Config().drain_seconds < 4 * 60
