"""docker_auth's token endpoint, asked whether a password is right.

Source: distribution's docs "Token Authentication Specification"; cesanta/docker_auth
`auth_server/server/server.go`: 401 for a wrong password, a token for a right one.
"""

from __future__ import annotations

import base64
import logging
import secrets
import ssl
import threading
import time
from ipaddress import ip_address

import msgspec
import requests
import urllib3

from app.errors import AccountsUnavailable
from app.registry.auth import add_query, origin_of
from app.registry.waits import within
from app.rules.clients import OWN_USER_AGENT
from app.version import VERSION

logger = logging.getLogger(__name__)

TIMEOUT_S = 3.0  # to connect, and again for each part of the answer
ANSWER_S = 6.0  # for all of that together
MAX_BYTES = 64 * 1024
MAX_AT_A_TIME = 4  # questions of one process: a server that hangs must not hold every thread
CHECKED_S = 3600.0  # for how long the server is known to refuse a wrong password
BUSY = "docker_auth.token_url: too many sign-ins wait for it"
MAX_NAME_LENGTH, MAX_PASSWORD_LENGTH = 255, 1024  # characters


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class TokenServer:
    """A server that knows accounts we do not. Threads share it."""

    def __init__(self, url: str, service: str, ca_file: str = "") -> None:
        self.url = url
        self._service = service
        self._verify = ca_file or True
        self._places = threading.BoundedSemaphore(MAX_AT_A_TIME)
        self._lock = threading.Lock()
        self._checked_until = 0.0  # time.monotonic()

    @property
    def is_plain(self) -> bool:
        """Whether passwords go over the network unencrypted."""
        scheme, host, _ = origin_of(self.url) or ("", "", 0)
        try:
            is_local = ip_address(host.strip("[]")).is_loopback
        except ValueError:
            is_local = host == "localhost"
        return scheme == "http" and not is_local

    def accepts(self, name: str, password: str) -> bool:
        """Whether the server knows this account with this password.

        Nothing is asked for an empty one of the two: LDAP takes an empty password for a right one,
        and an empty name is docker_auth's anonymous account.

        Raises:
            AccountsUnavailable: it answers neither yes nor no, or says yes to everybody.
        """
        if not name or not password or ":" in name:  # HTTP Basic ends the name at a colon
            return False
        if len(name) > MAX_NAME_LENGTH or len(password) > MAX_PASSWORD_LENGTH:
            return False
        self._check_now_and_then()
        return self._ask(name, password)

    def check(self) -> None:
        """Make sure that a wrong password is refused: some servers give a token to everybody.

        Raises:
            AccountsUnavailable: it is not, or nobody can tell.
        """
        if self._ask(f"rns-check-{secrets.token_hex(8)}", secrets.token_urlsafe(24)):
            raise AccountsUnavailable(
                "docker_auth.token_url: gives a token for a made-up account with a made-up "
                "password; nobody can sign in while it does"
            )

    def _check_now_and_then(self) -> None:
        if time.monotonic() < self._checked_until:
            return
        if not self._lock.acquire(timeout=TIMEOUT_S):
            raise AccountsUnavailable(BUSY)
        try:
            if time.monotonic() >= self._checked_until:
                self.check()
                self._checked_until = time.monotonic() + CHECKED_S
        finally:
            self._lock.release()

    def _ask(self, name: str, password: str) -> bool:
        if not self._places.acquire(timeout=TIMEOUT_S):
            raise AccountsUnavailable(BUSY)
        try:
            return within(ANSWER_S, lambda: self._ask_and_leave(name, password))
        except TimeoutError:
            raise AccountsUnavailable(
                f"docker_auth.token_url: no whole answer in {ANSWER_S:g} s"
            ) from None

    def _ask_and_leave(self, name: str, password: str) -> bool:
        """Ask, and leave the place only then, so that what hangs holds a few threads at most."""
        try:
            return self._ask_for_token(name, password)
        finally:
            self._places.release()

    def _ask_for_token(self, name: str, password: str) -> bool:
        try:
            credentials = base64.b64encode(f"{name}:{password}".encode()).decode()
            url = add_query(self.url, [("service", self._service), ("account", name)])
        except UnicodeEncodeError:
            return False
        headers = {
            "Authorization": f"Basic {credentials}",
            "User-Agent": f"{OWN_USER_AGENT}{VERSION}",
            "Accept-Encoding": "identity",
        }
        try:
            with requests.Session() as session:
                session.trust_env = False  # neither a proxy of the environment nor netrc
                with session.get(
                    url,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    verify=self._verify,
                    allow_redirects=False,  # the password goes nowhere else
                    stream=True,
                ) as answer:
                    return self._read(answer)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise AccountsUnavailable(f"docker_auth.token_url: no answer: {_why(error)}") from None

    def _read(self, answer: requests.Response) -> bool:
        if answer.status_code == 401:
            return False
        if answer.status_code != 200:
            raise AccountsUnavailable(f"docker_auth.token_url: answers {answer.status_code}")
        body = answer.raw.read(MAX_BYTES, decode_content=True)
        try:
            said = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = _Answer()
        if not (said.token or said.access_token):
            raise AccountsUnavailable("docker_auth.token_url: answers 200 without a token")
        return True


def _why(error: BaseException) -> str:
    """What went wrong, in words; not the error's own, which have the URL with the account's name.

    At the bottom of what requests and urllib3 make of it is an error of the socket or of TLS.
    """
    bottom = error
    while bottom.__context__ is not None:
        bottom = bottom.__context__
    if isinstance(bottom, ssl.SSLCertVerificationError):
        return f"its certificate is not right: {bottom.verify_message}"
    if isinstance(bottom, OSError) and bottom.strerror:
        return bottom.strerror
    return type(error).__name__
