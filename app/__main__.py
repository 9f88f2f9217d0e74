"""The command line: serve · demo · sandbox · keys · models · storage · plan."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from app.cli import keys

if TYPE_CHECKING:
    from app.config import Config

EXIT_UNUSABLE = 2  # settings, model files or plug-ins that cannot be used


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; the exit code."""
    parser = argparse.ArgumentParser(prog="imagegate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--host", help="address to listen on (IMAGEGATE_HOST)")
    serve.add_argument("--port", type=int, help="port to listen on (IMAGEGATE_PORT)")
    serve.add_argument("--sandbox", action="store_true", help="use the providers' sandboxes, whatever is configured")
    serve.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)

    demo = commands.add_parser("demo", help="edit a sample photo through a sandbox, with the OpenAI SDK")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the pictures")
    demo.set_defaults(run=_demo)

    sandbox = commands.add_parser("sandbox", help="run a provider's stand-in")
    sandbox.add_argument("provider", nargs="?", default="fal", help="whose place it takes (default: fal)")
    sandbox.add_argument("--host", default="127.0.0.1")
    sandbox.add_argument("--port", type=int, default=8010, help="0 takes a free one (default: 8010)")
    sandbox.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    sandbox.set_defaults(run=_sandbox)

    keys.add_parser(commands)

    models = commands.add_parser("models", help="list, check and import models, print a model's parameters")
    models.set_defaults(run=_models, action="list")
    actions = models.add_subparsers(dest="action")
    actions.add_parser("list", help="all models, a line each; also without any action")
    check = actions.add_parser("check", help="say all that is wrong with model files; 1 if anything is")
    check.add_argument("name", nargs="*", help="files, and folders of them; none: what is configured")
    actions.add_parser("overview", help="print the built-in models as docs/models.md shows them")
    table = actions.add_parser("table", help="print the parameters of models, as the README shows them")
    table.add_argument("name", nargs="+", help="models")
    draft = actions.add_parser("import", help="draft a model file from what the provider publishes of an endpoint")
    draft.add_argument("endpoint", help="an endpoint (fal-ai/…), or the URL of its OpenAPI document")
    draft.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a saved document; nothing is fetched")
    draft.add_argument("--provider", default="fal", help="whose endpoint it is (default: fal)")

    storage = commands.add_parser("storage", help="try the store that is configured, or make its S3 bucket")
    storage.add_argument("action", choices=["check", "make-bucket"])
    storage.set_defaults(run=_storage)

    plan = commands.add_parser("plan", help="print what a request compiles to; nothing is sent")
    plan.add_argument("model")
    plan.add_argument("params", nargs="*", metavar="NAME=VALUE", help="as in a form; image=FILE names a picture")
    plan.set_defaults(run=_plan)

    chosen = parser.parse_args(arguments)
    return _reporting(chosen)


def _reporting(chosen: argparse.Namespace) -> int:
    """Run a command; what cannot be used is one clear line each, not a traceback."""
    from app.catalogue.load import CatalogueError
    from app.children import ChildFailed
    from app.config import ConfigError
    from app.errors import GatewayError
    from app.registry import RegistryError

    try:
        code: int = chosen.run(chosen)
    except (ConfigError, CatalogueError, RegistryError, ChildFailed) as error:
        for line in str(error).splitlines():
            print(f"imagegate: {line}", file=sys.stderr)
        return EXIT_UNUSABLE
    except GatewayError as error:
        print(f"imagegate: {error.code}: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"imagegate: {error.filename or chosen.command}: {error.strerror or error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        return 130
    return code


def _serve(chosen: argparse.Namespace) -> int:
    from app import logs
    from app.config import load_config, unread_variables
    from app.registry import provider_classes, provider_variables

    load = partial(load_config, overrides={"host": chosen.host, "port": chosen.port})
    config = load()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something that it could reload
    logs.set_up(config.log_level, config.log_format, _secrets(config, {}))
    for variable in unread_variables(known=provider_variables(provider_classes(config.providers).values())):
        _say(config, logging.WARNING, f"{variable} is set, but there is no such setting")
    with ExitStack() as stack:
        settings, stand_ins = _provider_settings(config, stack, force_sandbox=chosen.sandbox)
        redactor = logs.set_up(config.log_level, config.log_format, _secrets(config, settings))
        from app.checks import check_database, check_storage
        from app.main import build
        from app.memory import settle

        check_database(config)
        check_storage(config)
        application = build(config, settings, load=load, stand_ins=stand_ins, hide=redactor.learn)
        settle()
        listener = _listening(config.host, config.port)
        stack.callback(listener.close)
        host = f"[{config.host}]" if ":" in config.host else config.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        if not chosen.announce:
            _say(config, logging.INFO, f"listening on {url} - base URL for SDKs: {url}/openai/v1")
        said = {"url": url} if chosen.announce else None
        return _run(
            application.asgi,
            listener,
            said,
            head=config.limits.head_seconds,
            drain=config.drain_seconds,
            stopping=application.stopping,
            reload=application.reload,
        )


def _say(config: Config, level: int, text: str) -> None:
    """To whoever started it: a line for people, or one of the log if that is for machines."""
    from app.logs import for_machines

    if for_machines(config.log_format):
        logging.getLogger("imagegate").log(level, text)
    else:
        print(f"imagegate: {text}", file=sys.stderr)


def _secrets(config: Config, settings: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What no line of the log may show. `settings` are the providers', complete."""
    from app.config import secrets_of
    from app.registry import provider_classes
    from app.tracing import secrets_of_traces

    classes = provider_classes(config.providers)
    found = [text for text in secrets_of(config) if text]
    found += [settings[name][one.name] for name in settings for one in classes[name].settings if one.secret]
    return found + secrets_of_traces(os.environ)


def _listening(host: str, port: int) -> socket.socket:
    from app.config import ConfigError
    from app.server import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _provider_settings(
    config: Config, stack: ExitStack, *, force_sandbox: bool
) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """Each needed provider's settings. One that was given nothing at all is replaced by its sandbox, if one is
    installed, and that is said aloud; the second value names those. Raises RegistryError if required settings are
    missing."""
    from app.children import Child
    from app.models import load_models
    from app.registry import RegistryError, provider_classes, sandboxes, settings_for

    classes = provider_classes(config.providers)
    stand_ins = sandboxes()
    found: dict[str, dict[str, str]] = {}
    replaced: set[str] = set()
    for name in load_models(config, classes).providers():
        values, missing = settings_for(classes[name], config.providers.get(name, {}))
        untouched = all(values[setting.name] == setting.default for setting in classes[name].settings)
        if name in stand_ins and (force_sandbox or (missing and untouched)):
            child = stack.enter_context(Child(["sandbox", name, "--port", "0"]))
            values |= child.said["settings"]
            replaced.add(name)
            if not force_sandbox:
                wanted = " or ".join(setting.env for setting in missing)
                _say(
                    config,
                    logging.WARNING,
                    f"{wanted} is not set: using the built-in {stand_ins[name].label}; "
                    "its pictures are samples, no AI, and nothing is billed.",
                )
        elif missing:
            needed = ", ".join(f"{setting.env} ({setting.doc.rstrip('.')})" for setting in missing)
            raise RegistryError(f"provider {name} lacks {needed}")
        found[name] = values
    return found, frozenset(replaced)


def _sandbox(chosen: argparse.Namespace) -> int:
    from app.registry import RegistryError, sandboxes

    stand_ins = sandboxes()
    if chosen.provider not in stand_ins:
        raise RegistryError(f"no sandbox for {chosen.provider!r} (installed: {', '.join(sorted(stand_ins))})")
    stand_in = stand_ins[chosen.provider]
    try:
        app = stand_in.app()
    except ValueError as error:  # what it was told by its environment
        raise RegistryError(f"{stand_in.label}: {error}") from error
    listener = _listening(chosen.host, chosen.port)
    url = f"http://{chosen.host}:{listener.getsockname()[1]}"
    settings = {**stand_in.settings(url), "label": stand_in.label}
    if not chosen.announce:
        print(f"{stand_in.label} on {url}; settings that reach it: {json.dumps(settings)}", file=sys.stderr)
    said = {"url": url, "settings": settings} if chosen.announce else None
    return _run(app, listener, said, head=15, drain=1)


def _run(
    app: Any,
    listener: Any,
    said: dict[str, Any] | None,
    *,
    head: float,
    drain: float,
    stopping: Callable[[], None] | None = None,
    reload: Callable[[], None] | None = None,
) -> int:
    """Serve until a signal, or, for a child that announces itself, until its parent ends."""
    from app.children import announce, stop_with_parent
    from app.server import make_server

    server = make_server(app, head_seconds=head, drain_seconds=drain, stopping=stopping)
    if reload is not None:
        signal.signal(signal.SIGHUP, lambda number, frame: reload())
    if said is not None:
        announce(said)

        def stop() -> None:
            server.should_exit = True

        stop_with_parent(stop)
    # uvicorn raises the signal again once it has stopped: a stop that went well is no death by signal.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server.run(sockets=[listener])
    if server.force_exit:
        logging.shutdown()
        os._exit(1)  # at once: threads that still encode would be waited for
    return 0


def _demo(chosen: argparse.Namespace) -> int:
    from app.demo import demo

    return demo(chosen.out)


def _models(chosen: argparse.Namespace) -> int:
    from app.cli import importing, models

    match chosen.action:
        case "check":
            return models.check(chosen.name)
        case "overview":
            return models.catalogue()
        case "table":
            return models.table(chosen.name)
        case "import":
            return importing.run(chosen.endpoint, chosen.source, chosen.provider)
    return models.show()


def _storage(chosen: argparse.Namespace) -> int:
    import asyncio

    from app.checks import try_storage
    from app.config import ConfigError, load_config
    from app.storage.base import StorageError
    from app.storage.bucket import make_bucket

    config = load_config()
    where = config.storage.url or config.data_dir
    try:
        if chosen.action == "make-bucket":
            made = asyncio.run(make_bucket(config.storage))
            print(f"{where}: {'made' if made else 'was there already'}")
        try_storage(config)
    except StorageError as error:
        raise ConfigError(f"storage.url: {where}: {error}") from None
    print(f"{where}: writes, lists and deletes")
    return 0


def _plan(chosen: argparse.Namespace) -> int:
    """Compile a request that is given as NAME=VALUE words, and show the plan and its price."""
    from app import pricing
    from app.api import names, wire
    from app.config import load_config
    from app.media.blob import MemoryBlob
    from app.media.sniff import inspect
    from app.models import load_models
    from app.params.engine import compile_plan
    from app.registry import provider_classes
    from app.types import Caller, EditRequest, Given

    config = load_config()
    found = load_models(config, provider_classes(config.providers)).require(chosen.model)
    model = found.model
    texts: list[tuple[str, str]] = []
    pictures: dict[str, list[Any]] = {}
    for word in chosen.params:
        name, _, value = word.partition("=")
        base = names.split(name)[0]
        if base in names.PICTURE_WORDS:
            data = Path(value.removeprefix("@")).read_bytes()
            media = inspect(
                MemoryBlob(data),
                hashlib.sha256(data).hexdigest(),
                index=0,
                param=base,
                max_pixels=config.limits.image_pixels,
            )
            pictures.setdefault(names.PICTURE_WORDS[base], []).append(media)
        else:
            texts.append((name, value))
    params = {name: Given(name, value, text=True) for name, value in names.nest(texts).items()}
    params |= {name: Given(name, tuple(media)) for name, media in pictures.items()}
    request = EditRequest(
        "req_plan",
        model.modes[0],
        chosen.model,
        params,
        Caller("cli", "command line"),
        config.strict,
        config.results.response_format,
    )
    for offer in found.doing(model.modes[0]).offers:
        plan = compile_plan(request, model.id, offer)
        quote = pricing.quote(plan)
        print(json.dumps({"provider": offer.provider, **wire.plan(plan)}, indent=2, ensure_ascii=False))
        print(f"price: {'unknown' if quote.total is None else f'{quote.total.normalize():f} {quote.currency}'}")
    return 0


def end() -> NoReturn:
    """Run what the command line says, and end with its code."""
    code = main()
    if "obstore" in sys.modules:
        # Its threads may ask for the interpreter while that goes away, and Rust answers with an abort: seen at 3 of 40
        # ends of `storage check` (obstore 0.12.1, 2026-11-26). All that is ours is closed by now.
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end()
