"""Secrets that lie in a file, as Docker and Kubernetes hand them out: NAME_FILE is the path of what NAME would be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

SUFFIX = "_FILE"
_LIMIT = 64 << 10  # bytes; a secret is short


class SecretFileError(ValueError):
    """A secret that cannot be read, or is given twice. The message names the variable, never the secret."""


def given_secret(variable: str, environ: Mapping[str, str]) -> str:
    """What the variable holds, or the file that VARIABLE_FILE names, without the white space around it; "" if neither
    is set. Raises SecretFileError."""
    path = environ.get(variable + SUFFIX, "")
    if not path:
        return environ.get(variable, "")
    if environ.get(variable):
        raise SecretFileError(f"{variable} and {variable}{SUFFIX} are both set: which of them is meant?")
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LIMIT + 1)
        secret = data.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SecretFileError(f"{variable}{SUFFIX}: {path} cannot be read: {why}") from None
    if not secret or len(data) > _LIMIT:
        raise SecretFileError(f"{variable}{SUFFIX}: {path} is {'larger than 64 KiB' if secret else 'empty'}")
    return secret


def secret_files(variables: Iterable[str], environ: Mapping[str, str]) -> list[Path]:
    """The files that these variables' secrets come from."""
    return [Path(path) for variable in variables if (path := environ.get(variable + SUFFIX, ""))]
