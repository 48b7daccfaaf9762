"""The configuration as types, one for each section of config.yml; the defaults stand here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

# Keys that have a `<key>_file` twin.
SECRETS = {"token", "tokens", "secret_key", "metrics_token", "uri", "password"}
MAX_WORKERS = 256


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class TLS(_Section, frozen=True):
    """PEM files; both or neither."""

    certificate: str = ""
    private_key: str = ""


class Server(_Section, frozen=True):
    """How gunicorn listens.

    `hosts` are the names that pages and API answer to, any without one (`.example.com`: all
    below). `base_path`, as `/rns`, stands before every path. `trusted_proxies` is the number of
    proxies that set X-Forwarded-*. `metrics_token` lets in who reads /metrics; without one nobody
    may.
    """

    bind: str = "127.0.0.1:8000"
    workers: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 32
    tls: TLS = TLS()
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    secret_key: str = ""
    secret_key_file: str = ""
    hosts: list[str] = []
    metrics_token: str = ""
    metrics_token_file: str = ""
    base_path: str = ""


class Log(_Section, frozen=True):
    """`json` is one object a line, for programs that collect logs."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MongoDB(_Section, frozen=True):
    """`uri` is `embedded` or a MongoDB URI; `data_dir` is relative to the working directory."""

    uri: str = "embedded"
    uri_file: str = ""
    database: Annotated[str, msgspec.Meta(min_length=1, max_length=63)] = "registry"
    data_dir: Annotated[str, msgspec.Meta(min_length=1)] = "data"


class DockerAuth(_Section, frozen=True):
    """Where docker_auth keeps accounts and ACL; empty: in mongodb.

    `htpasswd` is a file with the accounts instead, as the registry itself reads it (bcrypt only).
    With `token_url` docker_auth's token endpoint is asked whether a password is right; `ca_file`
    (PEM) is who signed its certificate. `acl_file` is docker_auth's own YAML file, read for its
    `acl:` alone.
    """

    uri: str = ""
    uri_file: str = ""
    database: str = ""
    accounts: Annotated[str, msgspec.Meta(min_length=1)] = "users"
    acl: Annotated[str, msgspec.Meta(min_length=1)] = "acl"
    service: str = "registry"
    htpasswd: str = ""
    token_url: str = ""
    ca_file: str = ""
    acl_file: str = ""


class Access(_Section, frozen=True):
    """`own_namespace`: after the ACL, an account sees the repositories under its own name.

    `anonymous`: docker_auth's account "" sees repositories and tags without signing in. `records`:
    what an account that is no administrator sees of other people.
    `sign_in_header` is the header in which a proxy says who signed in; it is taken only from the
    addresses of `sign_in_from` (CIDR).
    """

    own_namespace: bool = True
    administrators: list[str] = msgspec.field(default_factory=lambda: ["admin"])
    anonymous: bool = False
    records: Literal["all", "without_addresses", "own"] = "all"
    sign_in_header: str = ""
    sign_in_from: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])


class Registry(_Section, frozen=True):
    """One registry that may send events; `name` is what its events are filed under.

    `tokens` are taken beside `token`, so that one can be changed without losing an event;
    `tokens_file` holds one a line. With a `url` the registry is compared with the catalogue, as
    often as `check_every` says (`24h`; 0: never). `debug_url` is its debug server, which tells how
    many events it has not sent yet.
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
    check_every: str | int = "24h"
    debug_url: str = ""

    @property
    def all_tokens(self) -> list[str]:
        """Every token that a request from this registry may carry."""
        return [token for token in (self.token, *self.tokens) if token]


class Notifications(_Section, frozen=True):
    """`max_body_bytes` bounds one POST /events, `max_inbox_bytes` what waits to be worked in.

    `retention_days` 0 keeps events for ever. `projectors` work in events at the same time, each for
    some of the repositories, in all servers together.
    """

    allow_anonymous: bool = False
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=256 * 1024 * 1024)] = 4 * 1024 * 1024
    max_inbox_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 1024 * 1024 * 1024
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0
    projectors: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class Analysis(_Section, frozen=True):
    """`time_zone` is the IANA name of the zone in which a day of the figures begins and ends."""

    time_zone: str = "UTC"


class Endpoint(_Section, frozen=True, kw_only=True):
    """A registry that a migration reads or writes; files are PEM.

    The password is one of `password`, `password_file`, `password_env` (the name of a variable) and
    `authfile` (docker's config.json, for the user's name too); files and variables are read anew
    whenever it is needed. `token_realms` are other origins that may see the password, where the
    registry sends us for a token. In place of all that, `oci_dir` is a folder of OCI image layouts.
    """

    url: str = ""
    oci_dir: str = ""
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
    `verify_every` is how often workers compare both sides (`24h`; 0: never). Of indexes
    only some `platforms` (`linux/amd64`) may be taken, which changes their digests.
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
    log: Log = Log()
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

    @property
    def database_place(self) -> str:
        """Where the database is, without the password of its URI."""
        if self.is_embedded:
            return f"embedded, in {Path(self.mongodb.data_dir).absolute()}"
        scheme, _, rest = self.mongodb.uri.partition("://")
        hosts = rest.rpartition("@")[2].partition("/")[0].partition("?")[0]
        return f"{self.mongodb.database} at {scheme}://{hosts}"


def keys_of(kind: Any) -> dict[str, Any]:
    """The keys of a section and their types; none of anything else."""
    return get_type_hints(kind) if hasattr(kind, "__struct_fields__") else {}
