"""The file, the environment and the secret files, put together and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from app.errors import ConfigError
from app.settings.checks import check_settings
from app.settings.environment import overlay_environment
from app.settings.messages import key_path, name_choices, with_path_first
from app.settings.schema import SECRETS, Settings, keys_of
from app.settings.yaml_file import read_yaml


def find_file(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that `load_settings` reads, None where there is none; see there."""
    named = path or (Path(environ["RNS_CONFIG"]) if environ.get("RNS_CONFIG") else None)
    file = named or Path("config.yml")
    return file if named or file.exists() else None


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the configuration from `path` and `environ`.

    Without `path` the file named by RNS_CONFIG is read, else `config.yml` of the working directory
    if there is one. A file that was asked for by name must exist.

    Raises:
        ConfigError: the message begins with the path of the key that is wrong.
    """
    file = find_file(path, environ)
    document: Any = read_yaml(file) if file else {}
    overlay_environment(document, environ)
    _drop_nulls(document, Settings)
    _read_secret_files(document)
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        message = with_path_first(str(error))
        if message.partition(": ")[2].startswith("invalid enum value"):
            message = name_choices(message, Settings)
        raise ConfigError(message) from None
    check_settings(settings)
    return settings


def _drop_nulls(part: Any, kind: Any) -> None:
    """Take out known keys with nothing after them, in place: they keep their default."""
    if isinstance(part, list) and get_origin(kind) is list:
        for entry in part:
            _drop_nulls(entry, get_args(kind)[0])
    if isinstance(part, dict):
        for key, below in keys_of(kind).items():
            if part.get(key, part) is None:
                del part[key]
            else:
                _drop_nulls(part.get(key), below)


def _read_secret_files(part: Any, path: str = "") -> None:
    """Replace each empty secret by the content of its `<key>_file`, in place."""
    if isinstance(part, list):
        for index, entry in enumerate(part):
            _read_secret_files(entry, f"{path}[{index}]")
    if not isinstance(part, dict) or path.startswith("migrations["):
        return
    for key, value in list(part.items()):
        below = key_path(path, str(key))
        secret = str(key).removesuffix("_file")
        if str(key).endswith("_file") and secret in SECRETS and isinstance(value, str) and value:
            if part.get(secret) and part[secret] != "embedded":
                raise ConfigError(f"{below}: {secret} is given too; keep one of the two")
            try:
                text = Path(value).read_text("utf-8-sig").strip()
            except (OSError, ValueError) as error:
                raise ConfigError(f"{below}: cannot be read: {error}") from None
            part[secret] = text.split() if secret == "tokens" else text  # noqa: S105 - a key
            if not part[secret]:
                raise ConfigError(f"{below}: the file {value} is empty")
        else:
            _read_secret_files(value, below)
