"""config.yml, the environment and `*_file` secrets, as one checked value.

Order, the later wins: the schema's defaults, the file, `RNS_SECTION__KEY` variables. Unknown keys,
wrong types and impossible values are errors that begin with the key's path. Knows neither Flask
nor MongoDB.
"""

from app.settings.checks import check_listener
from app.settings.environment import ENVIRONMENT_PREFIX
from app.settings.loading import find_file, load_settings
from app.settings.schema import (
    TLS,
    Access,
    DockerAuth,
    Endpoint,
    Limits,
    Log,
    Migration,
    MigrationOptions,
    MongoDB,
    Notifications,
    PulledWithin,
    Registry,
    Renaming,
    RepositoryFilter,
    Server,
    Settings,
    Source,
    TagFilter,
    Target,
)
from app.settings.values import parse_bind, parse_duration
from app.settings.yaml_file import parse_yaml

__all__ = [
    "ENVIRONMENT_PREFIX",
    "TLS",
    "Access",
    "DockerAuth",
    "Endpoint",
    "Limits",
    "Log",
    "Migration",
    "MigrationOptions",
    "MongoDB",
    "Notifications",
    "PulledWithin",
    "Registry",
    "Renaming",
    "RepositoryFilter",
    "Server",
    "Settings",
    "Source",
    "TagFilter",
    "Target",
    "check_listener",
    "find_file",
    "load_settings",
    "parse_bind",
    "parse_duration",
    "parse_yaml",
]
