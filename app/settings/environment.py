"""`RNS_SECTION__KEY` variables, laid over what the file says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from app.errors import ConfigError
from app.settings.schema import SECRETS, Settings, keys_of
from app.settings.yaml_file import parse_yaml

ENVIRONMENT_PREFIX = "RNS_"
RESERVED_VARIABLES = ("RNS_CONFIG", "RNS_TEST_MONGODB_URI")


def overlay_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Set what the variables say, in place.

    Raises:
        ConfigError: a variable with our prefix names no key.
    """
    for variable in sorted(environ, key=_by_number):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in RESERVED_VARIABLES:
            continue
        if _SERVICE_LINK.fullmatch(variable):
            continue
        path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if path[0] not in keys_of(Settings):
            raise ConfigError(f"{variable}: no such key")
        here: Any = document
        for step in path[:-1]:
            here = _descend(here, step, variable)
        if not isinstance(here, dict):
            raise ConfigError(f"{variable}: no such key")
        here[path[-1]] = _read_variable(environ[variable], path)


# What Kubernetes sets in each container for a Service that is called `rns`.
_SERVICE_LINK = re.compile(
    r"RNS_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


def _by_number(variable: str) -> list[str | int]:
    """A sort key: entry 10 of a list comes after entry 9."""
    parts = re.split(r"([0-9]+)", variable)
    return [int(part) if part.isdecimal() else part for part in parts]


def _descend(here: Any, step: str, variable: str) -> Any:
    """The part named by one step of a variable; a number picks an entry of a list."""
    if isinstance(here, list):
        if not step.isdecimal() or int(step) > len(here):
            raise ConfigError(f"{variable}: {step} is not an entry of the list (0 to {len(here)})")
        if int(step) == len(here):
            here.append({})
        return here[int(step)]
    if not isinstance(here, dict):
        raise ConfigError(f"{variable}: no such key")
    if here.get(step) is None:
        here[step] = [] if step in ("registries", "migrations") else {}
    return here[step]


def _read_variable(text: str, path: list[str]) -> Any:
    """The value of a variable: YAML, unless the key takes text, which stays as it is.

    Tokens may also stand as in a `tokens_file`, with blanks between them.
    """
    key = path[-1].removesuffix("_file")
    if path[-1] == "tokens":
        if not text.startswith("["):
            return text.split()
    elif not text or key in SECRETS or _is_text(path):
        return text
    try:
        return parse_yaml(text, "")
    except ConfigError:
        return text


def _is_text(path: list[str]) -> bool:
    kind: Any = Settings
    for step in path:
        kind = get_args(kind)[0] if get_origin(kind) is list else keys_of(kind).get(step)
    return kind is str
