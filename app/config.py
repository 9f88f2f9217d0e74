"""Settings: config.yaml, then the environment over it. Unknown keys are errors; every field documents itself.

The file is the one named by IMAGEGATE_CONFIG, else ./config.yaml, else the defaults hold. A top-level field `x` is
overridden by IMAGEGATE_X, a grouped one `limits.image_bytes` by IMAGEGATE_LIMITS_IMAGE_BYTES. `${NAME}` and
`${NAME:-default}` in the file's strings are filled from the environment. A secret can lie in a file of its own, which
IMAGEGATE_X_FILE names.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator

from app.fields import Bytes, BytesOrNone, Strict
from app.secretfile import SUFFIX, SecretFileError, given_secret

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class ConfigError(Exception):
    """Settings that cannot be used; each line of the message names the setting and the reason."""


class Limits(Strict):
    """How much a request may bring."""

    body_bytes: Bytes = Field(64 << 20, description="Whole body of a form.")
    json_bytes: Bytes = Field(32 << 20, description="Whole body of a JSON request; it is held in memory.")
    image_bytes: Bytes = Field(20 << 20, description="One input picture.")
    images: int = Field(16, gt=0, description="Input pictures in one request, whatever the model takes.")
    image_pixels: int = Field(50_000_000, gt=0, description="Pixels of one input picture.")
    fields: int = Field(200, gt=0, description="Text fields in one form.")
    field_bytes: Bytes = Field(128 << 10, description="One text field; 32,000 characters can take 128,000 bytes.")
    spool_bytes: Bytes = Field(2 << 20, description="Uploads above this go to disk while they come in.")
    spool_memory_bytes: Bytes = Field(
        64 << 20, description="Uploads and results in memory at once; beyond it all of them go to disk."
    )
    head_seconds: float = Field(15, gt=0, description="Time for a request's headers to arrive.")
    body_seconds: float = Field(30, gt=0, description="Time for a body to arrive; one more second for each MiB.")
    fetch_seconds: float = Field(20, gt=0, description="Time to fetch one picture that a request names by URL.")
    result_bytes: Bytes = Field(64 << 20, description="One picture that a provider made.")
    result_pixels: int = Field(80_000_000, gt=0, description="Pixels of one picture that a provider made.")
    jobs: int = Field(500, ge=0, description="Jobs at once at one provider; 0: no limit.")
    jobs_per_key: int = Field(0, ge=0, description="Jobs at once of one API key at one provider; 0: no limit.")
    queue: int = Field(1000, ge=0, description="Jobs that may wait for their turn at one provider; beyond it 429.")
    memory_bytes: Bytes = Field(256 << 20, description="Request bodies in memory at once; beyond it 503.")
    free_bytes: Bytes = Field(
        256 << 20, description="Free disk space below which nothing is bought; on a small disk, 5 % of it."
    )


class Results(Strict):
    """How pictures are handed to clients."""

    response_format: Literal["url", "b64_json"] = Field("url", description="When the request does not say.")
    delivery: Literal["auto", "store"] = Field(
        "auto",
        description="`auto` hands on the provider's URL if no byte has to change; `store` keeps every picture here.",
    )
    url_seconds: int = Field(3600, gt=0, description="How long a stored picture's URL lives.")


class StorageSettings(Strict):
    """Where pictures are kept."""

    url: str = Field(
        "",
        description="s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; empty: a folder in data_dir.",
    )
    endpoint: str = Field("", description="Where the bucket is, if not at its cloud: such as https://minio:9000.")
    region: str = Field("", description="The bucket's region (S3).")
    access_key_id: str = Field("", description="S3: access key id. Azure: account. Empty: from AWS_…, AZURE_….")
    secret_access_key: SecretStr = Field(
        SecretStr(""),
        description="S3: its secret. Azure: account key. GCS: a service account's JSON. Empty: as the cloud has it.",
    )
    allow_http: bool = Field(False, description="Talk to an endpoint without TLS.")
    links: Literal["signed", "presigned"] = Field(
        "signed",
        description="`signed`: the gateway serves the pictures; `presigned`: URLs in answers lead to the bucket.",
    )
    budget_bytes: BytesOrNone = Field(
        0, description="All that may be kept on this machine's disk, expired or not; 0: as much as fits."
    )


class MetricsSettings(Strict):
    """GET /metrics, for Prometheus."""

    enabled: bool = Field(True, description="Count, and answer GET /metrics.")
    key: SecretStr = Field(SecretStr(""), description="Who sends it as a bearer token may read /metrics from anywhere.")
    allow: tuple[str, ...] = Field(
        ("127.0.0.0/8", "::1/128"),
        description="Networks from which /metrics may be read without a key; not through a proxy.",
    )

    @field_validator("allow")
    @classmethod
    def _networks(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for network in allow:
            ipaddress.ip_network(network)
        return allow


class Repeats(Strict):
    """How long answers are kept for who asks again."""

    keep_seconds: int = Field(
        86_400,
        gt=0,
        description="An answer to a request with an Idempotency-Key, and what nobody was there to receive.",
    )
    retry_seconds: int = Field(
        900, ge=0, description="Any other answer: for SDKs that repeat by themselves (x-stainless-retry-count)."
    )
    join_seconds: float = Field(
        0, ge=0, description="Within them an equal request of the same key is taken for a repeat, whoever sends it."
    )


class LogSettings(Strict):
    """What is kept of requests that are over."""

    prompts: bool = Field(False, description="Keep prompts and other texts of what was sent, for `payload_days`.")
    pictures: bool = Field(
        False, description="Keep every picture that was made, for `payload_days`; provider's URLs are not handed on."
    )
    keep_days: float = Field(90, gt=0, description="How long a request stays in GET /v1/requests.")
    payload_days: float = Field(7, ge=0, description="How long what was sent stays with it.")


class Config(Strict):
    """All settings."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str = Field(
        "", description="Base of the URLs in answers, such as https://images.example.com. Empty: as the client asked."
    )
    data_dir: Path = Field(Path("data"), description="Folder for stored pictures, the journal and the signing secret.")
    api_key: SecretStr = Field(SecretStr(""), description="One static API key, for the simplest deployment.")
    signing_keys: tuple[SecretStr, ...] = Field(
        (),
        description="What signs URLs of stored pictures, 32 characters or more each: the first signs, all are taken. "
        "Gateways that share a store share them. Empty: one of its own in data_dir.",
    )
    admin_key: SecretStr = Field(
        SecretStr(""), description="Key of whoever administers the gateway: makes API keys, sees everybody's requests."
    )
    image_origins: tuple[str, ...] = Field(
        (),
        description="Origins besides public https from which callers' pictures may be fetched, such as http://minio:9000.",
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins whose pages may call the gateway; `*` for any. In the environment: separated by commas.",
    )
    allow_open: bool = Field(False, description="Start without any API key on an address that is not loopback.")
    models_dir: Path | None = Field(None, description="Folder with model files of your own.")
    aliases: dict[str, str] = Field(
        default_factory=dict,
        description="Further names of models, for clients that hard-code one: a name or a pattern -> a model.",
    )
    strict: bool = Field(False, description="Refuse unknown parameters instead of passing them to the provider.")
    request_seconds: float = Field(180, gt=0, description="Deadline of a request that names none (x-request-timeout).")
    max_request_seconds: float = Field(600, gt=0, description="The longest deadline that a request may name.")
    on_disconnect: Literal["cancel", "finish"] = Field(
        "cancel",
        description="What becomes of a request whose client hung up: its jobs are cancelled, or finished and kept.",
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="Where the journal is: sqlite:///path or postgresql://…; empty: imagegate.db in data_dir.",
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        description="Where several gateways count rates and jobs at once together: redis://, rediss:// or unix://; "
        "empty: each counts its own.",
    )
    drain_seconds: float = Field(210, gt=0, description="How long running requests may go on after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="A JSON object a line, or text for people; auto: text on a terminal, else JSON."
    )
    pass_traceparent: bool = Field(
        True, description="Tell providers the trace that a request belongs to (W3C traceparent), if it belongs to one."
    )
    limits: Limits = Limits()
    results: Results = Results()
    repeats: Repeats = Repeats()
    log: LogSettings = LogSettings()
    storage: StorageSettings = StorageSettings()
    metrics: MetricsSettings = MetricsSettings()
    providers: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="Settings of the adapters, by provider and name; `adapter` makes another instance of one.",
    )

    @field_validator("signing_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value().encode()) < 32 for key in keys):
            raise ValueError("each needs 32 characters or more, such as `openssl rand -hex 32` makes")
        return keys

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def load_config(environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """File, environment, then `overrides` (command line). Raises ConfigError."""
    environ = os.environ if environ is None else environ
    raw = _from_file(environ)
    _overlay(raw, Config, "IMAGEGATE", environ)
    raw |= {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = (
            f"{'.'.join(str(part) for part in problem['loc']) or 'config'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError("\n".join(lines)) from None
    admin_key = config.admin_key.get_secret_value().strip()
    if admin_key and admin_key == config.api_key.get_secret_value().strip():
        raise ConfigError("admin_key: must be another key than api_key")
    return config


def check_open(config: Config, *, has_keys: bool) -> None:
    """Raises ConfigError if other machines could spend money here without a key. `has_keys`: there are some in the
    database."""
    fixed = (config.api_key, config.admin_key)
    if has_keys or config.is_loopback or config.allow_open or any(key.get_secret_value().strip() for key in fixed):
        return
    raise ConfigError(
        f"host: {config.host} can be reached from other machines, but there is no API key. Set IMAGEGATE_API_KEY or "
        "IMAGEGATE_ADMIN_KEY, make a key with `imagegate keys create`, or set IMAGEGATE_ALLOW_OPEN=true if everybody "
        "who can connect may spend your money."
    )


def unread_variables(environ: Mapping[str, str] | None = None, known: Iterable[str] = ()) -> list[str]:
    """IMAGEGATE_ variables that are set and that nothing reads: typos, most likely. `known` are those that others than
    the settings read."""
    environ = os.environ if environ is None else environ
    read = {
        *known,
        "IMAGEGATE_CONFIG",
        *_variables(Config, "IMAGEGATE"),
        *(name + SUFFIX for name in secret_variables()),
    }
    return sorted(name for name in environ if name.startswith("IMAGEGATE_") and environ[name] and name not in read)


def secret_variables() -> list[str]:
    """The variables whose value can lie in a file."""
    return list(_variables(Config, "IMAGEGATE", secret=True))


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the settings are, if they are in a file."""
    return Path((os.environ if environ is None else environ).get("IMAGEGATE_CONFIG") or "config.yaml")


def secrets_of(config: Strict) -> Iterator[str]:
    """The values that no log may show: every secret field's, and the password that a URL among them holds."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Strict):
            yield from secrets_of(value)
            continue
        for secret in value if isinstance(value, tuple) else (value,):
            if isinstance(secret, SecretStr):
                text = secret.get_secret_value()
                yield text
                with suppress(ValueError):
                    yield unquote(urlsplit(text).password or "")


def _variables(model: type[Strict], prefix: str, *, secret: bool = False) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variable = f"{prefix}_{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            yield from _variables(field.annotation, variable, secret=secret)
        elif not secret or _is_secret(field.annotation):
            yield variable


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)


def _from_file(environ: Mapping[str, str]) -> dict[str, Any]:
    named = environ.get("IMAGEGATE_CONFIG")
    path = config_path(environ)
    if not named and not path.exists():
        return {}
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:  # without the line that PyYAML would show: there may be a secret in it
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise ConfigError(f"{where}: is not YAML: {getattr(error, 'problem', None) or 'odd characters'}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings")
    filled = _fill(raw, environ)
    assert isinstance(filled, dict)
    return filled


def _fill(value: Any, environ: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _REFERENCE.sub(lambda match: environ.get(match[1]) or match[2] or "", value)
        case dict():
            return {key: _fill(item, environ) for key, item in value.items()}
        case list():
            return [_fill(item, environ) for item in value]
    return value


def _overlay(raw: dict[str, Any], model: type[Strict], prefix: str, environ: Mapping[str, str]) -> None:
    for name, field in model.model_fields.items():
        variable = f"{prefix}_{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            group = raw.setdefault(name, {})
            if isinstance(group, dict):
                _overlay(group, field.annotation, variable, environ)
        elif text := _given(variable, field.annotation, environ):
            raw[name] = _from_text(variable, text, get_origin(field.annotation))


def _given(variable: str, annotation: object, environ: Mapping[str, str]) -> str:
    if not _is_secret(annotation):
        return environ.get(variable, "")
    try:
        return given_secret(variable, environ)
    except SecretFileError as error:
        raise ConfigError(str(error)) from None


def _from_text(variable: str, text: str, kind: object) -> Any:
    """A variable's text as its field needs it: mappings as YAML, lists by comma, the rest is pydantic's."""
    if kind is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is not dict:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{variable}: is no mapping, such as {{name: value}}") from None
