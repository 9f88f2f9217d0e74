"""imagegate models: what is there, what is wrong with a file, what a model's parameters are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.catalogue.describe import markdown, overview
from app.catalogue.files import HERE, CatalogueError, ModelFiles, Problem
from app.catalogue.load import Catalogue, read_folder
from app.catalogue.schema import Model
from app.config import load_config
from app.models import load_models, model_files
from app.registry import provider_classes


def show() -> int:
    """All models, a line each."""
    for model in _configured():
        print(f"{model.id:40} {', '.join(model.modes):24} {', '.join(offer.provider for offer in model.offers)}")
    return 0


def table(names: Iterable[str]) -> int:
    """The parameters of models, as the README shows them."""
    catalogue = _configured()
    for name in names:
        print(markdown(catalogue.require(name).model.offers[0]))
    return 0


def catalogue() -> int:
    """All built-in models as docs/models.md shows them."""
    print(overview(model for _, model in read_folder(model_files(provider_classes()), HERE / "models")[0].values()))
    return 0


def check(paths: Iterable[str]) -> int:
    """Judge files by themselves and folders as wholes, each as if they were `models_dir`; without any, what is
    configured. All that is wrong is said; 1 if anything is."""
    config = load_config()
    classes = provider_classes(config.providers)
    files = model_files(classes)
    chosen = [Path(path) for path in paths]
    if not chosen:
        try:
            return _report("configured", {model.id: model for model in load_models(config, classes, files)}, [])
        except CatalogueError as error:
            return _report("configured", {}, error.problems)
    builtin = {id: model for id, (_, model) in read_folder(files, HERE / "models")[0].items()}
    return max(_report(str(path), *_judge(path, builtin, files)) for path in chosen)


def _configured() -> Catalogue:
    config = load_config()
    return load_models(config, provider_classes(config.providers))


def _judge(path: Path, builtin: Mapping[str, Model], files: ModelFiles) -> tuple[dict[str, Model], list[Problem]]:
    if path.is_dir():
        found, problems = read_folder(files, path)
        models = {id: model for id, (_, model) in found.items()}
        if not found and not problems:
            problems = [Problem("no *.yaml in this folder", path.name)]
    else:
        try:
            model = files.model(path)
        except CatalogueError as error:
            return {}, list(error.problems)
        models, problems = {model.id: model}, []
    try:
        Catalogue({**builtin, **models}.values())
    except CatalogueError as error:
        problems += error.problems
    return models, problems


def _report(what: str, models: Mapping[str, Model], problems: Iterable[Problem]) -> int:
    wrong = list(problems)
    for problem in wrong:
        print(problem, file=sys.stderr)
    if wrong:
        return 1
    for model in models.values():
        print(f"{what}: {model.id}: {len(model.offers)} offer(s), {len(model.offers[0].params)} rows: fine")
    return 0
