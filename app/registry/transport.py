"""HTTP with one registry: who we are, time limits, redirects, and errors that say what to do.

Source: RFC 9110; OCI distribution-spec 1.1 for what a registry may redirect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from app.registry.auth import Auth, Endpoint, hide_secrets, origin_of, parse_challenges
from app.registry.errors import ErrorClass, RegistryError, Subject, error_from_answer
from app.registry.waits import PATIENCE_S, SHOWN_S, Pause, Waits
from app.rules.clients import OWN_USER_AGENT
from app.rules.text import clean_text
from app.version import VERSION

PIECE_BYTES = 256 * 1024  # read and written at a time
MAX_ERROR_BYTES = 64 * 1024  # of an error's body; the rest is not read
MAX_REDIRECTS = 5
MAX_BODY_S = 600.0  # for a whole body that is not a blob
POOL_SIZE = 64  # connections that are kept open

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # how OpenSSL calls plain HTTP
_TLS_ALERT = "\x15\x03"  # RFC 8446 section 5.1: the beginning of a record
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {
    "User-Agent": f"{OWN_USER_AGENT}{VERSION}",  # by which our own pulls are left out
    "Accept-Encoding": "identity",  # digests are of the bytes themselves
}


class Answer(msgspec.Struct, frozen=True):
    """A whole answer; `url` is where it came from, after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Body:
    """A request body that is made while it is sent: once, and of a known length in bytes."""

    def __init__(self, pieces: Iterable[bytes], length: int) -> None:
        self._pieces = pieces
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def map(self, change: Callable[[Iterable[bytes]], Iterable[bytes]]) -> Body:
        """The same with its pieces passed through `change`."""
        return Body(change(self._pieces), self._length)

    def __len__(self) -> int:
        return self._length


class Hooks(msgspec.Struct, frozen=True):
    """What is called around requests.

    `before_request` with the method before each, and may wait; `after_request` with the method and
    the answer's status; `wait` with the seconds of a pause that the registry asked for.
    """

    before_request: Callable[[str], None] = lambda method: None
    after_request: Callable[[str, int], None] = lambda method, status: None
    wait: Callable[[float], None] = time.sleep


class Transport:
    """Requests to one registry. Threads share it."""

    def __init__(self, endpoint: Endpoint, hooks: Hooks) -> None:
        endpoint.check()
        self.url = endpoint.url.rstrip("/")
        self.origin = origin_of(endpoint.url)
        self._endpoint = endpoint
        self._auth = Auth(endpoint, self._fetch_token)
        self._hooks = hooks
        self._pause = Pause()
        self._waits = Waits()
        self._adapter = HTTPAdapter(pool_maxsize=POOL_SIZE)
        self._verify = not endpoint.insecure and (endpoint.ca_file or True)
        certificate = (endpoint.client_cert, endpoint.client_key)
        self._cert = certificate if endpoint.client_key else endpoint.client_cert or None
        if endpoint.insecure:  # asked for: not worth a warning for each request
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._adapter.close()

    @property
    def pause_s(self) -> float:
        """Seconds until the registry wants to be asked again; 0 when it may be now."""
        return self._pause.left_s

    @property
    def silence_s(self) -> float:
        """For how many seconds the registry has let a request wait that is under way."""
        return self._waits.longest()[0]

    @property
    def trouble(self) -> str:
        """Why requests do not get on just now, for people; "" while they do."""
        if self._pause.is_on:
            return f"{self.url} asks to wait, for {self.pause_s:.0f} s more"
        silence_s, what = self._waits.longest()
        return f"{self.url}: {what}: no answer for {silence_s:.0f} s" * (silence_s > SHOWN_S)

    def request(
        self,
        method: str,
        url: str,
        subject: Subject,
        scopes: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        expected: Sequence[int] = (200,),
        limit: int = MAX_ERROR_BYTES,
    ) -> Answer:
        """Send, and read the whole answer of at most `limit` bytes.

        `scopes` are what a token must allow, `subject` what the request is about.

        Raises:
            RegistryError: the answer's status is not among `expected`, or there is no answer.
        """
        response = self._send(method, url, scopes, headers, body)
        try:
            self._expect(response, subject, expected, scopes)
            content = self._read_all(response, limit)
        finally:
            response.close()
        return Answer(response.status_code, response.headers, content, response.url)

    def ping(self, url: str, answer_s: float) -> None:
        """Return if a GET is answered 200, an answer that begins within so many seconds."""
        response = self._send("GET", url, [], answer_s=answer_s)
        try:
            self._expect(response, "api", (200,))
            self._read_all(response, MAX_ERROR_BYTES, cut=True)
        finally:
            response.close()

    @contextmanager
    def open(
        self, url: str, subject: Subject, scopes: Sequence[str], within_s: float
    ) -> Iterator[Iterator[bytes]]:
        """GET as a stream of pieces that must be read while the context lasts, and in that time."""
        deadline = time.monotonic() + within_s
        response = self._send("GET", url, scopes)
        try:
            self._expect(response, subject, (200,), scopes)
            yield self._read(response, deadline)
        finally:
            response.close()

    def resolve(self, url: str, location: str) -> str:
        """The absolute URL of a Location or Link, relative or not, in the answer of `url`."""
        try:
            return urljoin(url, location)
        except ValueError:
            raise self.error("unsupported", "the registry sends us to what is no URL") from None

    def error(self, error_class: ErrorClass, message: str) -> RegistryError:
        """An error of this registry that none of its answers told."""
        return RegistryError(error_class, f"{self.url}: {message}", registry=self.url)

    def _expect(
        self,
        response: requests.Response,
        subject: Subject,
        expected: Sequence[int],
        scopes: Sequence[str] = (),
    ) -> None:
        if response.status_code in expected:
            return
        if response.status_code == 400 and response.request.method == "HEAD":
            self._look_for_tls()
        body = self._read_all(response, MAX_ERROR_BYTES, cut=True)
        url = urlsplit(response.url)
        is_own = origin_of(response.url) == self.origin
        raise error_from_answer(
            self.url,
            response.request.method or "",
            url.path if is_own else f"{url.scheme}://{url.hostname}{url.path}",
            subject,
            response.status_code,
            response.headers,
            hide_secrets(body, response.request.headers.get("Authorization", "")),
            is_known=bool(scopes) and _takes_token(response),
        )

    def _look_for_tls(self) -> None:
        """Raise `tls` if this is plain HTTP to a port of TLS: its answer to a HEAD says nothing."""
        if not self.url.startswith("http:"):
            return
        response = self._transmit(self._prepare("GET", f"{self.url}/v2/", {}), "")
        try:
            if response.status_code == 400:
                self._expect(response, "api", ())
        except RegistryError as error:
            if error.error_class == "tls":
                raise
        finally:
            response.close()

    def _send(
        self,
        method: str,
        url: str,
        scopes: Sequence[str],
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        answer_s: float = 0,
    ) -> requests.Response:
        """Send, authenticate where asked to, follow redirects of reads; the body is still unread.

        Credentials go to the registry's own origin only: not with a redirect to a blob store, and
        not to an upload URL elsewhere.
        """
        for _ in range(MAX_REDIRECTS):
            prepared = self._prepare(method, url, headers or {}, body)
            # What must be answered soon waits for nobody who may hang.
            with nullcontext() if answer_s else self._auth.one_at_a_time():
                response = self._authenticate(prepared, scopes, answer_s)
                self._auth.is_taken = response.status_code != 401
            location = response.headers.get("Location", "")
            is_read = method in ("GET", "HEAD")
            if response.status_code not in _REDIRECTS or not location or not is_read:
                return response
            self._drop(response)
            url = self.resolve(response.url, location)
        raise self.error("unsupported", f"more than {MAX_REDIRECTS} redirects")

    def _authenticate(
        self, prepared: requests.PreparedRequest, scopes: Sequence[str], answer_s: float
    ) -> requests.Response:
        """Send with what is known of credentials, and once more with what the answer asks for."""
        is_own = origin_of(prepared.url or "") == self.origin
        authorization = self._auth.header(scopes) if is_own else ""
        response = self._transmit(prepared, authorization, answer_s)
        if response.status_code == 401 and is_own:
            renewed = self._renew(response, scopes, authorization)
            if renewed and isinstance(prepared.body, Body):  # which cannot be sent twice
                if not _takes_token(response):
                    response.close()
                    raise self.error("server", "what we signed in with ran out during an upload")
            elif renewed:
                self._drop(response)
                response = self._transmit(prepared, renewed, answer_s)
            if response.status_code == 401:
                self._auth.refuse(renewed or authorization)
        return response

    def _renew(self, response: requests.Response, scopes: Sequence[str], refused: str) -> str:
        challenge = response.headers.get("WWW-Authenticate", "")
        try:
            return self._auth.renew(challenge, scopes, refused)
        except RegistryError:
            response.close()
            raise

    def _drop(self, response: requests.Response) -> None:
        """Read what is left, so that the connection can be used again."""
        try:
            self._read_all(response, MAX_ERROR_BYTES, cut=True)
        finally:
            response.close()

    def _prepare(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None = None
    ) -> requests.PreparedRequest:
        try:
            return requests.Request(method, url, {**_HEADERS, **headers}, data=body).prepare()
        except requests.RequestException:
            raise self.error("unsupported", "the registry sends us to what is no URL") from None

    def _transmit(
        self, prepared: requests.PreparedRequest, authorization: str, answer_s: float = 0
    ) -> requests.Response:
        """Send once, and again after a pause that the registry asks for, unless that is long."""
        if authorization:
            prepared.headers["Authorization"] = authorization
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with nullcontext() if answer_s else self._pause.turn():
                self._wait_for_turn(deadline)
                response = self._exchange(prepared, answer_s)
                is_paused = self._pause.note(response.status_code, response.headers)
            is_over = isinstance(prepared.body, Body)  # which cannot be sent twice
            if not is_paused or is_over or self._pause.left_s > deadline - time.monotonic():
                return response
            self._drop(response)

    def _wait_for_turn(self, deadline: float) -> None:
        """Wait while the registry wants to be left alone, until the deadline (monotonic) at most.

        Raises:
            RegistryError: `rate_limited`.
        """
        while seconds := self._pause.left_s:
            if seconds > deadline - time.monotonic():
                message = f"{self.url}: the registry asked to wait, for {seconds:.0f} s more"
                raise RegistryError("rate_limited", message, registry=self.url, retry_after=seconds)
            self._hooks.wait(seconds)

    def _exchange(self, prepared: requests.PreparedRequest, answer_s: float) -> requests.Response:
        endpoint, method, body = self._endpoint, prepared.method or "", prepared.body
        read_s = answer_s or endpoint.read_timeout_s
        # urllib3 lets each write of a new connection take the time for connecting.
        timeout = (read_s if isinstance(body, Body) else endpoint.connect_timeout_s, read_s)
        self._hooks.before_request(method)
        what, key = f"{method} {urlsplit(prepared.url or '').path}", object()
        try:  # not through a Session, which follows its own rules on cookies, netrc and redirects
            with self._waits.wait(what, key):
                if isinstance(body, Body):
                    prepared.body = body.map(lambda pieces: self._waits.watch(pieces, what, key))
                response = self._adapter.send(
                    prepared, stream=True, timeout=timeout, verify=self._verify, cert=self._cert
                )
        except OSError as error:
            raise self._unreachable(error) from None  # its text has a URL with an upload's state
        self._hooks.after_request(method, response.status_code)
        return response

    def _fetch_token(self, url: str, authorization: str) -> bytes:
        prepared = self._prepare("GET", url, {})
        response = self._transmit(prepared, authorization)
        if response.status_code == 401:
            self._auth.refuse(authorization)
        try:
            self._expect(response, "api", (200,))
            return self._read_all(response, MAX_ERROR_BYTES)
        finally:
            response.close()

    def _read(self, response: requests.Response, deadline: float) -> Iterator[bytes]:
        """The body in pieces, as they come and undecoded; `down` past the deadline (monotonic)."""
        what = f"the body of GET {urlsplit(response.url).path}"
        while True:
            try:
                with self._waits.wait(what):
                    piece = response.raw.read1(PIECE_BYTES, decode_content=False)
            except (OSError, urllib3.exceptions.HTTPError) as error:
                raise self._unreachable(error) from None
            if not piece:
                return
            if time.monotonic() > deadline:
                raise self.error("down", "takes too long to send a body")
            yield piece

    def _read_all(self, response: requests.Response, limit: int, cut: bool = False) -> bytes:
        """The body, of which more than `limit` bytes is an error, or is left out with `cut`."""
        content = bytearray()
        for piece in self._read(response, time.monotonic() + MAX_BODY_S):
            content += piece
            if len(content) > limit:
                if cut:
                    break
                raise self.error("unsupported", f"an answer of more than {limit} bytes")
        return bytes(content[:limit])

    def _unreachable(self, error: BaseException) -> RegistryError:
        error_class: ErrorClass = "down"
        while True:
            if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
                error_class = "tls"
            if error.__context__ is None or isinstance(error.__context__, RegistryError):
                break  # the latter was answered by this request, and did not cause its error
            error = error.__context__
        reason = clean_text(str(error), 200) or type(error).__name__
        if any(words in reason for words in _NO_TLS):
            reason = "it speaks no TLS; for plain HTTP write http:// and plain_http: true"
        elif _TLS_ALERT in str(error):
            error_class, reason = "tls", "it speaks TLS: write https:// and leave out plain_http"
        return self.error(error_class, f"no answer: {reason}")


def _takes_token(response: requests.Response) -> bool:
    """Whether a 401 to a token is about what the token allows, and not about the token.

    Source: RFC 6750 section 3.1; distribution says one of the two errors, others often none.
    """
    request = response.request
    if not request.headers.get("Authorization", "").startswith("Bearer "):
        return False
    challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
    said = {challenge.parameters.get("error", "") for challenge in challenges}
    is_new = not isinstance(request.body, Body)  # else it may have been too old
    return "insufficient_scope" in said or (is_new and "invalid_token" not in said)
