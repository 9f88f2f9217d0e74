"""Which models there are: our files, then the operator's over them. Nothing of the gateway is loaded for it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from app.catalogue.files import ModelFiles, Names
from app.catalogue.load import HERE, Catalogue, read_catalogue
from app.config import Config
from app.params.convert import CONVERTERS
from app.params.emulate import EMULATORS


def load_models(config: Config, providers: Collection[str], files: ModelFiles | None = None) -> Catalogue:
    """The catalogue; `providers`: those that an offer may name. Raises CatalogueError."""
    return read_catalogue(files or model_files(providers), model_folders(config), config.aliases)


def model_files(providers: Collection[str]) -> ModelFiles:
    """A reader of model files that knows all names which one may use."""
    return ModelFiles(Names(frozenset(providers), frozenset(CONVERTERS), frozenset(EMULATORS)))


def model_folders(config: Config) -> list[Path]:
    """A file in a later one takes the place of an earlier one's."""
    return [HERE / "models", *([config.models_dir] if config.models_dir else [])]
