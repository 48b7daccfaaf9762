"""Who we are to a registry: anonymous, Basic, or a Bearer token, and where that may be told.

Source: RFC 9110 section 11, distribution's docs "Token Authentication Specification".
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from urllib.parse import urlencode

import msgspec
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from app.errors import ConfigError
from app.registry.errors import ErrorClass, RegistryError

TOKEN_LIFETIME_S = 60  # token specification: when `expires_in` is missing
USED_LIFETIME = 0.75  # of a token's life: clocks differ, and a request takes time
MIN_PUT_BYTES = 1024 * 1024  # a request body that small is not cut further
MAX_TOKENS = 1000  # kept at a time
REFUSED_S = 30.0  # for which a password that was refused is not sent again

Origin = tuple[str, str, int]  # scheme, host, port
FetchToken = Callable[[str, str], bytes]  # (URL, Authorization header) → body of the answer


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a registry is and how to speak to it. Files are PEM; times are seconds.

    Of the passwords one is given; files and variables are read anew each time it is needed.
    """

    url: str  # scheme, host and port
    username: str = ""
    username_env: str = ""  # the name of an environment variable
    password: str = ""
    password_file: str = ""
    password_env: str = ""
    authfile: str = ""  # docker's config.json: user and password by the registry's host
    token_realms: tuple[str, ...] = ()  # other origins, or whole URLs, that may see the password
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    insecure: bool = False  # take any certificate
    plain_http: bool = False  # allow an http:// URL
    connect_timeout_s: float = 5
    read_timeout_s: float = 60  # between two bytes
    max_put_bytes: int = 10**9  # a larger blob goes up in chunks
    chunk_bytes: int = 50 * 10**6

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def check(self) -> None:
        """Raise ConfigError if the URL or a file cannot be used."""
        if not origin_of(self.url):
            raise ConfigError("url: expected https://host or https://host:port")
        parsed = parse_url(self.url)
        if parsed.auth or parsed.query or parsed.fragment or (parsed.path or "/") != "/":
            raise ConfigError("url: only scheme, host and port; credentials have their own keys")
        if parsed.scheme == "http" and not self.plain_http:
            raise ConfigError("plain_http: must be true for an http:// url")
        for index, realm in enumerate(self.token_realms):
            if not origin_of(realm):
                raise ConfigError(f"token_realms[{index}]: expected https://host or a whole URL")
        if min(self.chunk_bytes, self.max_put_bytes) < MIN_PUT_BYTES:
            raise ConfigError("chunk_bytes, max_put_bytes: at least 1 MiB")
        for key in ("ca_file", "client_cert", "client_key"):
            file = getattr(self, key)
            if file and not Path(file).is_file():
                raise ConfigError(f"{key}: no such file: {file}")


def origin_of(url: str) -> Origin | None:
    """Scheme, host and port, None for what is no absolute http URL.

    By the parser that the connection uses: others see another host in `https://a\\@b/`.
    """
    try:
        parsed = parse_url(url)
    except LocationParseError:
        return None
    scheme, host = parsed.scheme, parsed.host
    if not host or scheme not in ("http", "https"):
        return None
    return scheme, host, parsed.port or (443 if scheme == "https" else 80)


def add_query(url: str, parameters: Sequence[tuple[str, str]]) -> str:
    """`url` with more parameters; those it has stay byte for byte."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def hide_secrets(body: bytes, authorization: str) -> bytes:
    """`body` without the credentials that were sent: a server may throw them back."""
    scheme, _, sent = authorization.partition(" ")
    secrets = [sent.encode()]
    if scheme == "Basic":
        secrets.append(base64.b64decode(sent).partition(b":")[2])
    for secret in filter(None, secrets):
        body = body.replace(secret, b"***")
    return body


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate that a 401 offers."""

    scheme: str  # basic or bearer
    parameters: dict[str, str]


_TOKEN = re.compile(
    r'(?P<key>[\w-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*))|(?P<scheme>[\w-]+)'
)


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, several of which may be joined by commas."""
    found: list[Challenge] = []
    for token in _TOKEN.finditer(header):
        if token["scheme"]:
            found.append(Challenge(token["scheme"].lower(), {}))
        elif found:
            value = token["plain"] if token["quoted"] is None else token["quoted"]
            found[-1].parameters[token["key"].lower()] = re.sub(r"\\(.)", r"\1", value)
    return found


class _Token:
    def __init__(self) -> None:
        self.lock = Lock()
        self.header = ""
        self.renew_at = 0.0  # time.monotonic()


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class _AuthEntry(msgspec.Struct):
    auth: str = ""


class _AuthFile(msgspec.Struct):
    auths: dict[str, _AuthEntry] = {}


class Auth:
    """The Authorization header for each request to one registry. All threads share one.

    `fetch_token` makes the request to the token server. Nothing here sends a header: the client
    does, and to the registry's own origin only.
    """

    def __init__(self, endpoint: Endpoint, fetch_token: FetchToken) -> None:
        self._endpoint = endpoint
        self._fetch_token = fetch_token
        self._challenge: Challenge | None = None
        self.is_taken = False  # the registry took our credentials, or asked for none, just now
        self._proof = Lock()
        self._refused, self._refused_until = "", 0.0  # header, time.monotonic()
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._lock = Lock()

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Let one request after the other through as long as our credentials may be wrong.

        Some servers lock an account after a few wrong passwords.
        """
        if self.is_taken:
            yield
            return
        with self._proof:
            yield

    def header(self, scopes: Sequence[str]) -> str:
        """What to send with a request that needs `scopes`, "" as long as nobody asked.

        Raises:
            RegistryError: `auth`, `realm`, or what became of the request for a token.
        """
        challenge = self._challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            return self._basic()
        with self._lock:
            if len(self._tokens) >= MAX_TOKENS:
                self._tokens.clear()
            token = self._tokens.setdefault(tuple(scopes), _Token())
        with token.lock:  # threads that need the same token wait for one request
            if time.monotonic() >= token.renew_at:
                self._renew(token, challenge, scopes)
            return token.header

    def renew(self, www_authenticate: str, scopes: Sequence[str], refused: str) -> str:
        """A header to try after a 401 to `refused`, "" when there is no other."""
        offered = {challenge.scheme: challenge for challenge in parse_challenges(www_authenticate)}
        challenge = offered.get("bearer") or offered.get("basic")
        if challenge is None:
            return ""
        self._challenge = challenge
        with self._lock:
            token = self._tokens.get(tuple(scopes))
            if token and token.header == refused:  # no other thread was faster
                del self._tokens[tuple(scopes)]
        header = self.header(scopes)
        return "" if header == refused else header

    def refuse(self, authorization: str) -> None:
        """Note that these credentials were refused: those who wait do not try them one by one."""
        if authorization.startswith("Basic "):
            self._refused, self._refused_until = authorization, time.monotonic() + REFUSED_S

    def _basic(self) -> str:
        credentials = self._read_credentials()
        if not credentials:
            return ""
        header = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        if header == self._refused and time.monotonic() < self._refused_until:
            message = "user name and password were refused just now: check them"
            raise self._error("auth", message)
        return header

    def _read_credentials(self) -> str:
        """`user:password`, or "" where we are nobody."""
        endpoint = self._endpoint
        if endpoint.authfile:
            return self._read_authfile(endpoint.authfile)
        name = self._read_variable("username_env") or endpoint.username
        return f"{name}:{self._read_password()}" if name else ""

    def _read_password(self) -> str:
        file = self._endpoint.password_file
        if not file:
            return self._read_variable("password_env") or self._endpoint.password
        try:
            return Path(file).read_text("utf-8-sig").strip()
        except (OSError, ValueError):
            raise self._error("auth", f"password_file {file} cannot be read") from None

    def _read_variable(self, key: str) -> str:
        """The value of the variable that a key names, "" where it names none."""
        variable = getattr(self._endpoint, key)
        value = os.environ.get(variable, "") if variable else ""
        if variable and not value:
            raise self._error("auth", f"{key}: the variable {variable} is not set")
        return value

    def _read_authfile(self, file: str) -> str:
        """The credentials for this registry in docker's config.json.

        Source: docker's cli/config/configfile, `auths`. Keys may be URLs; those of one host and
        port are the same.
        """
        url = self._endpoint.url
        own = origin_of(url)
        try:
            auths = msgspec.json.decode(Path(file).read_bytes(), type=_AuthFile).auths
            for key, entry in auths.items():
                origin = origin_of(key if "://" in key else f"{url.partition(':')[0]}://{key}")
                if entry.auth and own and origin and origin[1:] == own[1:]:
                    return base64.b64decode(entry.auth, validate=True).decode()
        except (OSError, ValueError):
            raise self._error("auth", f"authfile {file} cannot be read") from None
        raise self._error("auth", f"authfile {file} has no `auth` for this registry")

    def _renew(self, token: _Token, challenge: Challenge, scopes: Sequence[str]) -> None:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm)
        query = [("scope", scope) for scope in scopes]
        if service := challenge.parameters.get("service"):
            query.insert(0, ("service", service))
        started = time.monotonic()
        body = self._fetch_token(add_query(realm, query), self._basic())
        try:
            answer = msgspec.json.decode(body, type=_TokenAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._error("auth", f"{_shown(realm)} answers with no token") from None
        text = answer.token or answer.access_token
        if not re.fullmatch(r"[!-~]+", text):
            raise self._error("auth", f"{_shown(realm)} answers with no usable token")
        lifetime = TOKEN_LIFETIME_S if answer.expires_in is None else answer.expires_in
        token.header = f"Bearer {text}"
        token.renew_at = started + lifetime * USED_LIFETIME

    def _check_realm(self, realm: str) -> None:
        """Refuse to go for a token to where nobody said that our password may go."""
        origin = origin_of(realm)
        for allowed in (self._endpoint.url, *self._endpoint.token_realms) if origin else ():
            is_origin = allowed == self._endpoint.url or (parse_url(allowed).path or "/") == "/"
            if realm == allowed or (is_origin and origin == origin_of(allowed)):
                return
        raise self._error(
            "realm",
            f"the registry sends us for a token to {_shown(realm)}; "
            "if that is right, add it to token_realms",
        )

    def _error(self, error_class: ErrorClass, message: str) -> RegistryError:
        url = self._endpoint.url
        return RegistryError(error_class, f"{url}: {message}", registry=url)


def _shown(url: str) -> str:
    """The origin of a URL as text."""
    origin = origin_of(url)
    return "{}://{}:{}".format(*origin) if origin else "what is no URL"
