"""What no type can say: files that must exist, names that must differ, plans that go in circles."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from app.errors import ConfigError
from app.settings.schema import (
    DockerAuth,
    Endpoint,
    Migration,
    MigrationOptions,
    Registry,
    Settings,
)
from app.settings.values import parse_bind, parse_duration

MIN_KEY_LENGTH = 16  # of the key that signs sessions; who has a cookie can try keys for ever


def check_settings(settings: Settings) -> None:
    """Raise ConfigError where values of the right types cannot work, or not together."""
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
    _check_docker_auth(settings.docker_auth)
    _check_sign_in_header(settings)
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_access(settings: Settings) -> None:
    if 0 < len(settings.server.secret_key) < MIN_KEY_LENGTH:
        raise ConfigError(
            f"server.secret_key: expected at least {MIN_KEY_LENGTH} characters, as openssl rand "
            "-hex 32 makes: whoever guesses it can be anybody"
        )
    if not re.fullmatch(r"[!-~]*", settings.server.metrics_token):
        raise ConfigError("server.metrics_token: only ASCII without spaces can go into a header")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", settings.server.base_path):
        raise ConfigError("server.base_path: expected a path without a slash at its end, as /rns")
    for index, host in enumerate(settings.server.hosts):
        if not re.fullmatch(r"\.?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host):
            raise ConfigError(
                f"server.hosts[{index}]: expected a name without scheme and port, as "
                "registry.example.com; .example.com stands for all names below it"
            )


def _check_docker_auth(there: DockerAuth) -> None:
    for key in ("htpasswd", "ca_file"):
        file = getattr(there, key)
        if file and not Path(file).is_file():
            raise ConfigError(f"docker_auth.{key}: no such file: {file}")
    if not there.token_url:
        return
    if there.htpasswd:
        raise ConfigError("docker_auth.token_url: htpasswd is given too; keep one of the two")
    try:
        url = urlsplit(there.token_url)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_url = False
    if not is_url or url.username is not None or url.fragment or re.search(r"\s", there.token_url):
        raise ConfigError("docker_auth.token_url: expected as https://auth.example.org:5001/auth")


# What says something else, or comes from the client.
_NO_ACCOUNT = re.compile(
    r"authorization|proxy-.*|cookie|host|user-agent|referer|origin|content-.*|x-forwarded-(for|proto|host)|x-csrf.*",
    re.IGNORECASE,
)


def _check_sign_in_header(settings: Settings) -> None:
    """A header that anybody could send would let anybody be anybody."""
    access = settings.access
    for index, text in enumerate(access.sign_in_from):
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            raise ConfigError(
                f"access.sign_in_from[{index}]: expected an address or CIDR, as 10.0.0.5"
            ) from None
        if network.prefixlen == 0:
            raise ConfigError(
                f"access.sign_in_from[{index}]: is everybody; name the addresses of the proxies"
            )
    if not access.sign_in_header:
        return
    if not re.fullmatch(r"[A-Za-z0-9-]+", access.sign_in_header) or _NO_ACCOUNT.fullmatch(
        access.sign_in_header
    ):
        raise ConfigError(
            "access.sign_in_header: expected the header that names the account, as X-Forwarded-User"
        )
    if settings.server.trusted_proxies < 1:
        raise ConfigError(
            "access.sign_in_header: needs server.trusted_proxies of 1 or more: without a proxy in "
            "front, whoever sends the header would be whom it names"
        )
    if not access.sign_in_from:
        raise ConfigError("access.sign_in_from: name the addresses of the proxies")


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
        for key, url in (("url", registry.url), ("debug_url", registry.debug_url)):
            if "@" in url:
                raise ConfigError(
                    f"registries[{index}].{key}: expected no user and password in it; it is shown"
                )
        _check_duration(str(registry.check_every), f"registries[{index}].check_every")


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
            known = registries | ({""} if side == "target" else set())
            if not endpoint.oci_dir and endpoint.registry_id not in known:
                raise ConfigError(
                    f"{path}.{side}.registry_id: no registry in registries has this name"
                )
        if migration.source.oci_dir and migration.options.untagged != "none":
            raise ConfigError(f"{path}.options.untagged: no events tell of source.oci_dir")
        if _place(migration.source) == _place(migration.target):
            raise ConfigError(f"{path}.target.url: is the source's")
    _check_circles(settings.migrations)


def _check_options(options: MigrationOptions, path: str) -> None:
    if options.deletes is True:
        raise ConfigError(f"{path}.deletes: expected off, tags or tags_and_digests")
    _check_platforms(options, path)
    for key, text in (
        ("verify_every", str(options.verify_every)),
        ("untagged.pulled_within", getattr(options.untagged, "pulled_within", "0")),
    ):
        _check_duration(text, f"{path}.{key}")


def _check_duration(text: str, path: str) -> None:
    try:
        parse_duration(text)
    except ValueError:
        raise ConfigError(f"{path}: expected a time as 90m, 24h or 30d") from None


def _check_platforms(options: MigrationOptions, path: str) -> None:
    if options.platforms == "all":
        return
    texts = [options.platforms] if isinstance(options.platforms, str) else options.platforms
    is_list = bool(options.platforms) and not isinstance(options.platforms, str)
    if not is_list or not all(map(_PLATFORM.fullmatch, texts)):
        raise ConfigError(f"{path}.platforms: expected all, or a list as [linux/amd64]")
    if options.deletes == "tags_and_digests":
        raise ConfigError(
            f"{path}.platforms: with deletes: tags_and_digests a filter would delete; use tags"
        )


_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")


def _check_endpoint(endpoint: Endpoint, path: str) -> None:
    if endpoint.oci_dir:
        nothing = Endpoint(oci_dir=endpoint.oci_dir)
        for key in Endpoint.__struct_fields__:
            if getattr(endpoint, key) != getattr(nothing, key):
                raise ConfigError(f"{path}.{key}: oci_dir is given, a folder; keep one of the two")
    elif not endpoint.url:
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
    if of.source.oci_dir or of.target.oci_dir:
        raise ConfigError(
            f"{path}.reverse_of: {of.name} has a folder at one side; write a migration of its own"
        )
    if of.options.platforms != "all":
        raise ConfigError(
            f"{path}.reverse_of: {of.name} takes some platforms only; its way back would put them "
            "in the place of whole images"
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
    """Host and port, by which registries are told apart here, or the folder."""
    if endpoint.oci_dir:
        return str(Path(endpoint.oci_dir).absolute()), 0
    try:
        parts = urlsplit(endpoint.url)
        return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:  # whatever it is, app.registry refuses it
        return endpoint.url, 0
