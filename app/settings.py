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
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
import yaml

from app.errors import ConfigError

ENVIRONMENT_PREFIX = "RNS_"
RESERVED_VARIABLES = ("RNS_CONFIG", "RNS_TEST_MONGODB_URI")
# Keys that have a `<key>_file` twin.
SECRETS = {"token", "tokens", "secret_key", "metrics_token", "uri", "password"}
MAX_WORKERS = 256

# msgspec's names of types, as a person who writes YAML would say them.
_TYPE_WORDS = {
    "object": "a section",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "date": "a date",
    "datetime": "a date",
}
_NEEDS_QUOTES = {"int", "float", "bool", "date", "datetime"}  # what YAML makes of bare text


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class TLS(_Section, frozen=True):
    """PEM files; both or neither."""

    certificate: str = ""
    private_key: str = ""


class Server(_Section, frozen=True):
    """How gunicorn listens.

    `hosts` are the names that pages and API answer to, any without one (`.example.com`: all
    below). `trusted_proxies` is the number of proxies that set X-Forwarded-*. `metrics_token` lets
    in who reads /metrics; without one nobody may.
    """

    bind: str = "127.0.0.1:8000"
    workers: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 4
    tls: TLS = TLS()
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    secret_key: str = ""
    secret_key_file: str = ""
    hosts: list[str] = []
    metrics_token: str = ""
    metrics_token_file: str = ""


class MongoDB(_Section, frozen=True):
    """`uri` is `embedded` or a MongoDB URI; `data_dir` is relative to the working directory."""

    uri: str = "embedded"
    uri_file: str = ""
    database: Annotated[str, msgspec.Meta(min_length=1, max_length=63)] = "registry"
    data_dir: Annotated[str, msgspec.Meta(min_length=1)] = "data"


class DockerAuth(_Section, frozen=True):
    """Where docker_auth keeps accounts and ACL; empty: in mongodb.

    `htpasswd` is a file with the accounts instead, as the registry itself reads it (bcrypt only).
    """

    uri: str = ""
    uri_file: str = ""
    database: str = ""
    accounts: Annotated[str, msgspec.Meta(min_length=1)] = "users"
    acl: Annotated[str, msgspec.Meta(min_length=1)] = "acl"
    service: str = "registry"
    htpasswd: str = ""


class Access(_Section, frozen=True):
    """`own_namespace`: after the ACL, an account sees the repositories under its own name."""

    own_namespace: bool = True
    administrators: list[str] = msgspec.field(default_factory=lambda: ["admin"])


class Registry(_Section, frozen=True):
    """One registry that may send events; `name` is what its events are filed under.

    `tokens` are taken beside `token`, so that one can be changed without losing an event;
    `tokens_file` holds one a line.
    """

    name: str = "default"
    hosts: list[str] = []
    token: str = ""
    token_file: str = ""
    tokens: list[str] = []
    tokens_file: str = ""
    url: str = ""
    username: str = ""
    password: str = ""
    password_file: str = ""
    ca_file: str = ""
    insecure: bool = False

    @property
    def all_tokens(self) -> list[str]:
        """Every token that a request from this registry may carry."""
        return [token for token in (self.token, *self.tokens) if token]


class Notifications(_Section, frozen=True):
    """`max_body_bytes` bounds one POST /events; `retention_days` 0 keeps events for ever."""

    allow_anonymous: bool = False
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=256 * 1024 * 1024)] = 4 * 1024 * 1024
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0


class Analysis(_Section, frozen=True):
    """`time_zone` is the IANA name of the zone in which a day of the figures begins and ends."""

    time_zone: str = "UTC"


class Endpoint(_Section, frozen=True, kw_only=True):
    """A registry that a migration reads or writes; files are PEM.

    The password is one of `password`, `password_file`, `password_env` (the name of a variable) and
    `authfile` (docker's config.json, for the user's name too); files and variables are read anew
    whenever it is needed. `token_realms` are other origins that may see the password, where the
    registry sends us for a token.
    """

    url: str = ""
    username: str = ""
    username_env: str = ""
    password: str = ""
    password_file: str = ""
    password_env: str = ""
    authfile: str = ""
    token_realms: list[str] = []
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    insecure: bool = False
    plain_http: bool = False


class Source(Endpoint, frozen=True, kw_only=True):
    """`registry_id` is the name, in `registries`, under which its events come in.

    `debug_url` is its debug server, which tells how many events it has not sent yet.
    """

    registry_id: str = "default"
    debug_url: str = ""


class Limits(_Section, frozen=True):
    """What all workers together may do to a target; 0 is no limit.

    `images` and `blobs` are copies at a time of one worker.
    """

    images: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    blobs: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    requests_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0
    mb_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0
    max_blob_gb: Annotated[float, msgspec.Meta(ge=0)] = 0
    chunk_mb: Annotated[int, msgspec.Meta(ge=2, le=5000)] = 50


class Target(Endpoint, frozen=True, kw_only=True):
    """Where a migration writes to.

    A way back (`reverse_of`) reads from there, and needs `registry_id` and `debug_url` for it.
    """

    limits: Limits = Limits()
    registry_id: str = ""
    debug_url: str = ""


class RepositoryFilter(_Section, frozen=True):
    """Patterns: globs (`*` within a component, `**` across), or `re:` and a regular expression."""

    include: list[str] = []
    exclude: list[str] = []


class TagFilter(RepositoryFilter, frozen=True):
    """Also `semver:` and a range; `keep_latest` of each repository's old tags, 0 for all.

    With `digest_tags: follow` tags of signatures (`sha256-….sig`) go with their repository;
    `filter` treats them as others.
    """

    keep_latest: Annotated[int, msgspec.Meta(ge=0)] = 0
    digest_tags: Literal["follow", "filter"] = "follow"


class Renaming(_Section, frozen=True, rename={"from_": "from"}):
    """Repositories that begin with `from` get `to` in its place."""

    from_: str = ""
    to: str = ""


class PulledWithin(_Section, frozen=True):
    """As text, `30d`: see parse_duration."""

    pulled_within: str


class MigrationOptions(_Section, frozen=True):
    """`existing`: what becomes of a tag of the target that somebody else made.

    `deletes` is what is deleted at the target because it was at the source, and only if we put it
    there. YAML reads a bare `off` as false. `untagged` are digests without a tag of which our
    events tell. `debounce_s` is how long a push waits if its tag was copied just before.
    `verify_every` is how often workers compare both sides (`24h`; 0: never). `platforms` is there
    to say why nothing else is taken.
    """

    existing: Literal["overwrite", "skip", "backup", "fail"] = "overwrite"
    deletes: bool | Literal["off", "tags", "tags_and_digests"] = "off"
    referrers: bool = True
    foreign_layers: Literal["skip", "copy"] = "skip"
    untagged: Literal["none", "all_known"] | PulledWithin = "none"
    platforms: str | list[str] = "all"
    debounce_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 2
    verify_every: str | int = "24h"
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 8


class Migration(_Section, frozen=True, kw_only=True):
    """A plan: everything of `source` that the filters let through, to `target`.

    With `reverse_of`, the name of another, it is the way back of that one, which then gives all but
    the options.
    """

    name: str
    reverse_of: str = ""
    source: Source = Source()
    target: Target = Target()
    repos: RepositoryFilter = RepositoryFilter()
    tags: TagFilter = TagFilter()
    map: list[Renaming] = []
    options: MigrationOptions = MigrationOptions()


class Settings(_Section, frozen=True):
    """The whole configuration, checked; secrets already read from their files."""

    server: Server = Server()
    mongodb: MongoDB = MongoDB()
    docker_auth: DockerAuth = DockerAuth()
    access: Access = Access()
    registries: list[Registry] = msgspec.field(default_factory=lambda: [Registry()])
    notifications: Notifications = Notifications()
    analysis: Analysis = Analysis()
    migrations: list[Migration] = []

    @property
    def is_embedded(self) -> bool:
        """Whether this program runs its own database."""
        return self.mongodb.uri == "embedded"


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
    _drop_nulls(document, Settings)
    _read_secret_files(document)
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_with_path_first(str(error))) from None
    _check(settings)
    return settings


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    document = _parse_yaml(text, str(file))
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected sections, as in `server:`, and found none")
    return document


def _parse_yaml(text: str, name: str) -> Any:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _refuse_duplicates(node)
        return loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {_describe(error)}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply, or contains itself") from None
    except (ValueError, LookupError, AttributeError):  # 2026-13-45, `!!bool x`, `!!timestamp x`
        raise ConfigError(f"{name}: not valid YAML: there is no such date or number") from None


def _refuse_duplicates(node: yaml.Node | None, path: str = "") -> None:
    """Refuse a key that is given twice, which PyYAML takes silently."""
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            _refuse_duplicates(entry, f"{path}[{index}]")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            text = str(key.value)
            below = _join(path, text)
            if text in seen:
                raise ConfigError(f"{below}: given twice (line {key.start_mark.line + 1})")
            seen.add(text)
            _refuse_duplicates(value, below)


def _join(path: str, key: str) -> str:
    """The path of a key; of a key that is none only the beginning: `token:abc` holds a secret."""
    shown = re.sub(r"[^A-Za-z0-9_.-].*", "…", key, flags=re.DOTALL)
    return f"{path}.{shown}" if path else shown


def _describe(error: yaml.YAMLError) -> str:
    """Where the error is and what, without the text found there: it may be a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem or not error.problem_mark:
        return " ".join(str(error).split())
    hint = r"\1; text that begins with * or ! needs quotes"
    problem = re.sub(r"\b(alias|tag) .*", hint, error.problem, flags=re.DOTALL)
    return f"line {error.problem_mark.line + 1}: {problem}"


def _overlay_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable in sorted(environ, key=_by_number):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in RESERVED_VARIABLES:
            continue
        if _SERVICE_LINK.fullmatch(variable):
            continue
        path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if path[0] not in _keys_of(Settings):
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
        return _parse_yaml(text, "")
    except ConfigError:
        return text


def _is_text(path: list[str]) -> bool:
    kind: Any = Settings
    for step in path:
        kind = get_args(kind)[0] if get_origin(kind) is list else _keys_of(kind).get(step)
    return kind is str


def _keys_of(kind: Any) -> dict[str, Any]:
    """The keys of a section and their types; none of anything else."""
    return get_type_hints(kind) if hasattr(kind, "__struct_fields__") else {}


def _drop_nulls(part: Any, kind: Any) -> None:
    """Take out known keys with nothing after them, in place: they keep their default."""
    if isinstance(part, list) and get_origin(kind) is list:
        for entry in part:
            _drop_nulls(entry, get_args(kind)[0])
    if isinstance(part, dict):
        for key, below in _keys_of(kind).items():
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
        below = _join(path, str(key))
        secret = str(key).removesuffix("_file")
        if str(key).endswith("_file") and secret in SECRETS and isinstance(value, str) and value:
            if part.get(secret) and part[secret] != "embedded":
                raise ConfigError(f"{below}: {secret} is given too; keep one of the two")
            try:
                text = Path(value).read_text("utf-8").strip()
            except (OSError, ValueError) as error:
                raise ConfigError(f"{below}: cannot be read: {error}") from None
            part[secret] = text.split() if secret == "tokens" else text  # noqa: S105
            if not part[secret]:
                raise ConfigError(f"{below}: the file {value} is empty")
        else:
            _read_secret_files(value, below)


def _with_path_first(message: str) -> str:
    """Turn msgspec's "… - at `$.server.workers`" into "server.workers: …", in plain words."""
    match = re.fullmatch(r"(.*?) - at (`key` in )?`\$\.?(.*)`", message, re.DOTALL)
    text, is_key, path = match.groups() if match else (message, None, "")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    if unknown:
        return f"{_join(path, unknown[1]) or 'config'}: unknown key"
    if is_key:
        return f"{path or 'config'}: a key that is not text"
    wanted = re.fullmatch(r"Expected `str`, got `(.*)`", text)
    text = re.sub(r"`(\w+)`", lambda name: _TYPE_WORDS.get(name[1], name[1]), text)
    hint = "; put quotes around it" if wanted and wanted[1] in _NEEDS_QUOTES else ""
    return f"{path or 'config'}: {text[:1].lower()}{text[1:]}{hint}"


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
    _check_migrations(settings)
    _check_access(settings)
    try:
        ZoneInfo(settings.analysis.time_zone)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ConfigError("analysis.time_zone: no such zone; expected as Europe/Berlin") from None
    check_listener(settings, parse_bind(settings.server.bind)[0], settings.server.bind)


def check_listener(settings: Settings, host: str, shown: str) -> None:
    """Raise ConfigError where anybody beyond loopback could send events without a token."""
    if _is_loopback(host) or settings.notifications.allow_anonymous:
        return
    for index, registry in enumerate(settings.registries):
        if not registry.all_tokens:
            raise ConfigError(
                f"registries[{index}].token: is needed to listen on {shown}; "
                "set one, or notifications.allow_anonymous: true to take events from anybody"
            )


def _check_access(settings: Settings) -> None:
    if not re.fullmatch(r"[!-~]*", settings.server.metrics_token):
        raise ConfigError("server.metrics_token: only ASCII without spaces can go into a header")
    file = settings.docker_auth.htpasswd
    if file and not Path(file).is_file():
        raise ConfigError(f"docker_auth.htpasswd: no such file: {file}")
    for index, host in enumerate(settings.server.hosts):
        if not re.fullmatch(r"\.?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host):
            raise ConfigError(
                f"server.hosts[{index}]: expected a name without scheme and port, as "
                "registry.example.com; .example.com stands for all names below it"
            )


def _check_uri(uri: str, section: str) -> None:
    word = "embedded" if section == "mongodb" else ""
    if uri != word and not uri.startswith(("mongodb://", "mongodb+srv://")):
        raise ConfigError(
            f"{section}.uri: expected {word or 'nothing'}, mongodb://… or mongodb+srv://…"
        )


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NAME_RULE = "expected up to 63 of a-z, 0-9, dot, _ and -, beginning with a letter or digit"


def _check_registries(registries: list[Registry]) -> None:
    if not registries:
        raise ConfigError("registries: at least one registry is needed")
    names: set[str] = set()
    tokens: set[str] = set()
    for index, registry in enumerate(registries):
        if registry.name in names:
            raise ConfigError(f"registries[{index}].name: another registry has the same")
        names.add(registry.name)
        if tokens & set(registry.all_tokens):
            raise ConfigError(f"registries[{index}].token: another registry has the same")
        tokens.update(registry.all_tokens)
    for index, registry in enumerate(registries):
        if not _NAME.fullmatch(registry.name):
            raise ConfigError(f"registries[{index}].name: {_NAME_RULE}")
        if not all(re.fullmatch(r"[!-~]+", token) for token in registry.all_tokens):
            raise ConfigError(
                f"registries[{index}].token: only ASCII without spaces can go into a header"
            )


def _check_migrations(settings: Settings) -> None:
    registries = {registry.name for registry in settings.registries}
    names: set[str] = set()
    for index, migration in enumerate(settings.migrations):
        path = f"migrations[{index}]"
        if migration.name in names:
            raise ConfigError(f"{path}.name: another migration has the same")
        names.add(migration.name)
        if not _NAME.fullmatch(migration.name):
            raise ConfigError(f"{path}.name: {_NAME_RULE}")
        _check_options(migration.options, f"{path}.options")
        if migration.reverse_of:
            _check_reverse(migration, path, settings)
            continue
        for side, endpoint in (("source", migration.source), ("target", migration.target)):
            _check_endpoint(endpoint, f"{path}.{side}")
            if endpoint.registry_id not in registries | ({""} if side == "target" else set()):
                raise ConfigError(
                    f"{path}.{side}.registry_id: no registry in registries has this name"
                )
        if _place(migration.source) == _place(migration.target):
            raise ConfigError(f"{path}.target.url: is the source's")
    _check_circles(settings.migrations)


def _check_options(options: MigrationOptions, path: str) -> None:
    if options.deletes is True:
        raise ConfigError(f"{path}.deletes: expected off, tags or tags_and_digests")
    if options.platforms != "all":
        raise ConfigError(
            f"{path}.platforms: expected all; a part of the platforms would change the digest of "
            "every index, and nothing could be compared any more"
        )
    for key, text in (
        ("verify_every", str(options.verify_every)),
        ("untagged.pulled_within", getattr(options.untagged, "pulled_within", "0")),
    ):
        try:
            parse_duration(text)
        except ValueError:
            raise ConfigError(f"{path}.{key}: expected a time as 90m, 24h or 30d") from None


def _check_endpoint(endpoint: Endpoint, path: str) -> None:
    if not endpoint.url:
        raise ConfigError(f"{path}.url: is needed")
    for keys in (
        ("password", "password_file", "password_env", "authfile"),
        ("username", "username_env", "authfile"),
    ):
        given = [key for key in keys if getattr(endpoint, key)]
        if len(given) > 1:
            raise ConfigError(f"{path}.{given[1]}: {given[0]} is given too; keep one of the two")


def _check_reverse(migration: Migration, path: str, settings: Settings) -> None:
    """A way back has all but its options from the plan that it is the way back of."""
    nothing = Migration(name=migration.name)
    for key in ("source", "target", "repos", "tags", "map"):
        if getattr(migration, key) != getattr(nothing, key):
            raise ConfigError(f"{path}.{key}: comes from {migration.reverse_of}; leave it out")
    of = next((plan for plan in settings.migrations if plan.name == migration.reverse_of), None)
    if of is None or of.reverse_of:
        raise ConfigError(
            f"{path}.reverse_of: expected the name of a migration that is no way back itself"
        )
    if sum(plan.reverse_of == of.name for plan in settings.migrations) > 1:
        raise ConfigError(f"{path}.reverse_of: {of.name} has another way back already")
    if not of.target.registry_id:
        where = settings.migrations.index(of)
        raise ConfigError(
            f"migrations[{where}].target.registry_id: is needed for {migration.name}, which reads "
            "from there: the name in registries under which its events come in"
        )


def _check_circles(migrations: list[Migration]) -> None:
    """Refuse plans that lead back to where they began: an old tag would win over a new one."""
    forward = [plan for plan in migrations if not plan.reverse_of]
    for plan in forward:
        reached = {_place(plan.target)}
        while True:
            more = {_place(next.target) for next in forward if _place(next.source) in reached}
            if more <= reached:
                break
            reached |= more
        if _place(plan.source) in reached:
            raise ConfigError(
                f"migrations[{migrations.index(plan)}].target.url: leads back to its source by "
                "way of another migration; for a way back use reverse_of"
            )


def _place(endpoint: Endpoint) -> tuple[str, int]:
    """Host and port, by which registries are told apart here."""
    try:
        parts = urlsplit(endpoint.url)
        return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:  # whatever it is, app.registry refuses it
        return endpoint.url, 0


def parse_duration(text: str) -> timedelta:
    """The time that `90s`, `15m`, `24h` or `30d` says; `0` is none.

    Raises:
        ValueError: it says no time.
    """
    match = re.fullmatch(r"0|([0-9]{1,5})([smhd])", text)
    if not match:
        raise ValueError(text)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2] or "s"]
    return timedelta(**{unit: int(match[1] or 0)})


def parse_bind(bind: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port` or `:port` (all addresses).

    Raises:
        ConfigError: it is none of them.
    """
    match = _BIND.fullmatch(bind)
    if not match or int(match["port"]) > 65535:
        raise ConfigError(f"server.bind: expected address:port, got {bind!r}")
    host = match["v6"] or match["host"]
    return host or "0.0.0.0", int(match["port"])  # noqa: S104 - what ":8000" means


# What gunicorn reads the same way: an IPv6 address needs its brackets.
_BIND = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^\[\]\s:/]*)):(?P<port>[0-9]{1,5})")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
