"""config.yml, the environment and `*_file` secrets, as one checked value.

Order, the later wins: the defaults below, the file, `RNS_SECTION__KEY` variables. Unknown keys,
wrong types and impossible values are errors that begin with the key's path. Knows neither Flask
nor MongoDB.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from app.errors import ConfigError

ENVIRONMENT_PREFIX = "RNS_"
RESERVED_VARIABLES = ("RNS_CONFIG", "RNS_TEST_MONGODB_URI")
SECRETS = {"token", "secret_key", "uri", "password"}  # keys that have a `<key>_file` twin
MAX_WORKERS = 256


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class TLS(_Section, frozen=True):
    """PEM files; both or neither."""

    certificate: str = ""
    private_key: str = ""


class Server(_Section, frozen=True):
    """How gunicorn listens. `trusted_proxies` is the number of proxies that set X-Forwarded-*."""

    bind: str = "127.0.0.1:8000"
    workers: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 4
    tls: TLS = TLS()
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    secret_key: str = ""
    secret_key_file: str = ""


class MongoDB(_Section, frozen=True):
    """`uri` is `embedded` or a MongoDB URI; `data_dir` is relative to the working directory."""

    uri: str = "embedded"
    uri_file: str = ""
    database: Annotated[str, msgspec.Meta(min_length=1, max_length=63)] = "registry"
    data_dir: Annotated[str, msgspec.Meta(min_length=1)] = "data"


class DockerAuth(_Section, frozen=True):
    """Where docker_auth keeps accounts and ACL; empty: in mongodb."""

    uri: str = ""
    uri_file: str = ""
    database: str = ""
    accounts: Annotated[str, msgspec.Meta(min_length=1)] = "users"
    acl: Annotated[str, msgspec.Meta(min_length=1)] = "acl"
    service: str = "registry"


class Access(_Section, frozen=True):
    """`own_namespace`: after the ACL, an account sees the repositories under its own name."""

    own_namespace: bool = True
    administrators: list[str] = msgspec.field(default_factory=lambda: ["admin"])


class Registry(_Section, frozen=True):
    """One registry that may send events; `name` is what its events are filed under."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = "default"
    hosts: list[str] = []
    token: str = ""
    token_file: str = ""
    url: str = ""
    username: str = ""
    password: str = ""
    password_file: str = ""
    ca_file: str = ""
    insecure: bool = False


class Notifications(_Section, frozen=True):
    """`max_body_bytes` bounds one POST /events; `retention_days` 0 keeps events for ever."""

    allow_anonymous: bool = False
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=256 * 1024 * 1024)] = 4 * 1024 * 1024
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0


class Settings(_Section, frozen=True):
    """The whole configuration, checked; secrets already read from their files."""

    server: Server = Server()
    mongodb: MongoDB = MongoDB()
    docker_auth: DockerAuth = DockerAuth()
    access: Access = Access()
    registries: list[Registry] = msgspec.field(default_factory=lambda: [Registry()])
    notifications: Notifications = Notifications()
    migrations: list[dict[str, Any]] = []

    @property
    def is_embedded(self) -> bool:
        """Whether this program runs its own database."""
        return self.mongodb.uri == "embedded"


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which PyYAML takes silently."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key}: given twice (line {node.start_mark.line + 1})")
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the configuration from `path` and `environ`.

    Without `path` the file named by RNS_CONFIG is read, else `config.yml` of the working directory
    if there is one. A file that was asked for by name must exist.

    Raises:
        ConfigError: the message begins with the path of the key that is wrong.
    """
    named = path or (Path(environ["RNS_CONFIG"]) if environ.get("RNS_CONFIG") else None)
    file = named or Path("config.yml")
    document: Any = {}
    if named or file.exists():
        document = _read_yaml(file)
    _overlay_environment(document, environ)
    _read_secret_files(document)
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_with_path_first(str(error), document)) from None
    _check(settings)
    return settings


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        document = yaml.load(file.read_text("utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected a mapping of sections, got {type(document).__name__}")
    return document


def _overlay_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in RESERVED_VARIABLES:
            continue
        path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        here: Any = document
        for step in path[:-1]:
            here = _descend(here, step, variable)
        _assign(here, path[-1], text, variable)


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


def _assign(here: Any, key: str, text: str, variable: str) -> None:
    if not isinstance(here, dict):
        raise ConfigError(f"{variable}: no such key")
    is_secret = key in SECRETS or key in {f"{secret}_file" for secret in SECRETS}
    try:
        here[key] = text if is_secret else yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        here[key] = text


def _read_secret_files(part: Any, path: str = "") -> None:
    """Replace each empty secret by the content of its `<key>_file`, in place."""
    if isinstance(part, list):
        for index, entry in enumerate(part):
            _read_secret_files(entry, f"{path}[{index}]")
    if not isinstance(part, dict) or path.startswith("migrations"):
        return
    for key, value in list(part.items()):
        below = f"{path}.{key}" if path else str(key)
        secret = str(key).removesuffix("_file")
        if str(key).endswith("_file") and secret in SECRETS and isinstance(value, str) and value:
            if part.get(secret) and part[secret] != "embedded":
                raise ConfigError(f"{below}: {secret} is given too; keep one of the two")
            try:
                part[secret] = Path(value).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{below}: cannot be read: {error}") from None
            if not part[secret]:
                raise ConfigError(f"{below}: the file {value} is empty")
        else:
            _read_secret_files(value, below)


def _with_path_first(message: str, document: Any) -> str:
    """Turn msgspec's "… - at `$.server.workers`" into "server.workers: …"."""
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message)
    text, path = (match[1], match[2]) if match else (message, "")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        path = f"{path}.{unknown[1]}" if path else unknown[1]
        text = "unknown key"
    path = re.sub(r"\[\.\.\.\]", "[…]", path)
    return f"{path or 'config'}: {text[:1].lower()}{text[1:]}"


def _check(settings: Settings) -> None:
    tls = settings.server.tls
    if bool(tls.certificate) != bool(tls.private_key):
        missing = "private_key" if tls.certificate else "certificate"
        raise ConfigError(f"server.tls.{missing}: is needed too; TLS takes both files")
    for key in ("certificate", "private_key"):
        file = getattr(tls, key)
        if file and not Path(file).is_file():
            raise ConfigError(f"server.tls.{key}: no such file: {file}")
    for section in ("mongodb", "docker_auth"):
        _check_uri(getattr(settings, section).uri, section)
    _check_registries(settings.registries)
    host = parse_bind(settings.server.bind)[0]
    if not _is_loopback(host) and not settings.notifications.allow_anonymous:
        for index, registry in enumerate(settings.registries):
            if not registry.token:
                raise ConfigError(
                    f"registries[{index}].token: is needed to listen on {settings.server.bind}; "
                    "set one, or notifications.allow_anonymous: true to take events from anybody"
                )


def _check_uri(uri: str, section: str) -> None:
    allowed = ("mongodb://", "mongodb+srv://")
    is_word = uri == ("embedded" if section == "mongodb" else "")
    if not is_word and not uri.startswith(allowed):
        raise ConfigError(f"{section}.uri: expected embedded, mongodb://… or mongodb+srv://…")


def _check_registries(registries: list[Registry]) -> None:
    if not registries:
        raise ConfigError("registries: at least one registry is needed")
    for key in ("name", "token"):
        seen: set[str] = set()
        for index, registry in enumerate(registries):
            value = getattr(registry, key)
            if value and value in seen:
                raise ConfigError(f"registries[{index}].{key}: another registry has the same")
            seen.add(value)
    for index, registry in enumerate(registries):
        if registry.token and not registry.token.isascii():
            raise ConfigError(f"registries[{index}].token: only ASCII can go into a header")


def parse_bind(bind: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port` or `:port` (all addresses).

    Raises:
        ConfigError: it is none of them.
    """
    host, separator, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"server.bind: expected address:port, got {bind!r}")
    return host or "0.0.0.0", int(port)  # noqa: S104 - what ":8000" means


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
