"""What a request proves its account with: a password, an API token, or a proxy's word."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_network
from unicodedata import normalize

import flask
from flask import request
from werkzeug.datastructures import Authorization
from werkzeug.utils import cached_property

from app.errors import InvalidQuery, NotAuthenticated, NotAuthorized, Throttled
from app.logs import hide_tokens
from app.rules.access import check_account_name
from app.rules.addresses import parse_ip
from app.rules.tokens import is_token
from app.store.accounts import SignedIn
from app.store.sign_ins import BASIC, FORM, HEADER, REFUSED, SIGNED_IN, TOKEN, SignIn, now
from app.store.tokens import ApiToken
from app.web.client import PEER
from app.web.runtime import runtime

logger = logging.getLogger(__name__)

WRONG = "The user name or the password is wrong."
WRONG_TOKEN = "The API token is wrong, revoked or over, or its account is gone."  # noqa: S105

# Beside the API, what a token may read: where `format` makes a file of a list.
_EXPORTS = {
    "search.repositories",
    "search.tags",
    "analysis.records",
    "analysis.unused",
    "analysis.recall",
    "analysis.storage",
    "access.sign_ins",
    "migration.jobs",
    "migration.drift",
}


class Request(flask.Request):
    """A request whose header Authorization may hold anything."""

    @cached_property
    def authorization(self) -> Authorization | None:
        """None where it cannot be read; werkzeug raises where it is not ASCII."""
        try:
            return super().authorization
        except ValueError:
            return None


def has_authorization() -> bool:
    """Whether the header Authorization came, also one that cannot be read."""
    return bool(request.headers.get("Authorization"))


def find_by_authorization() -> tuple[SignedIn, str] | None:
    """The account of the header Authorization and by what means, None without the header.

    Raises:
        NotAuthenticated: it is wrong, or none that is known here.
        NotAuthorized: it is a token, which does not open this.
        Throttled: too many attempts failed before this one.
    """
    if not has_authorization():
        return None
    if token := _given_token():
        return _check_token(*token), TOKEN
    given = _given()
    if given.type != "basic" or given.username is None or given.password is None:
        raise NotAuthenticated(
            "Authorization: expected HTTP Basic with a registry account, or Bearer with an API "
            "token."
        )
    signed_in = check_password(given.username, given.password, BASIC)
    if signed_in is None:
        raise NotAuthenticated(WRONG)
    return signed_in, BASIC


def find_by_token() -> SignedIn | None:
    """The account of the API token, None if that is not right any more; nothing is on record."""
    token = _given_token()
    found = _find_token(*token) if token else None
    return found[1] if found else None


def _given() -> Authorization:
    return request.authorization or Authorization("")  # None where it cannot be read


def _given_token() -> tuple[str, str | None] | None:
    """What may be an API token, and the account that came with it, None if none did."""
    given = _given()
    if given.type == "bearer" and given.token:
        return given.token, None
    if given.type == "basic" and given.username is not None and is_token(given.password or ""):
        return given.password or "", given.username
    return None


def check_password(
    name: str, password: str, means: str, session_id: str | None = None
) -> SignedIn | None:
    """The account, if the password is right; throttled and put on record.

    Raises:
        Throttled: too many attempts failed before this one, or come at the same moment.
        AccountsUnavailable: docker_auth's token server does not tell.
    """
    places = runtime().sign_in_places
    # Nobody waits here: a flood of attempts would hold the threads that answer registries.
    if not places.acquire(blocking=False):
        raise Throttled("Too many sign in at this moment: try again in a second.", 1)
    try:
        return _check_password(name, password, means, session_id)
    finally:
        places.release()


def _check_password(
    name: str, password: str, means: str, session_id: str | None
) -> SignedIn | None:
    _refuse_where_throttled(name)
    here = runtime()
    if here.token_server is None:
        signed_in = here.stores.accounts.sign_in(name, password)
    else:
        is_right = here.token_server.accepts(name, password)
        signed_in = here.stores.accounts.find(name) if is_right else None
    record(name, means, SIGNED_IN if signed_in else REFUSED, session_id if signed_in else None)
    return signed_in


def _find_token(token: str, account: str | None) -> tuple[ApiToken, SignedIn] | None:
    stores = runtime().stores
    found = stores.tokens.find(token, now()) if is_token(token) else None
    is_owner = found is not None and account in (None, found.account)
    signed_in = stores.accounts.find(found.account) if found and is_owner else None
    return (found, signed_in) if found and signed_in else None


def _check_token(token: str, account: str | None) -> SignedIn:
    """The account of a token; `account` is the name that came with it, None if none did.

    A right one is not throttled: nobody guesses it, and a colleague's failures at the same address
    must not stop a script.
    """
    owned = _find_token(token, account)
    if owned is None:
        _refuse_where_throttled(account)
        record(account or "", TOKEN, REFUSED)
        raise NotAuthenticated(WRONG_TOKEN)
    found, signed_in = owned
    if runtime().stores.tokens.note_use(found, request.remote_addr or "", now()):
        record(found.account, f"{TOKEN} {found.name}", SIGNED_IN)
    is_export = request.endpoint in _EXPORTS and request.args.get("format") in ("csv", "ndjson")
    is_read = request.method in ("GET", "HEAD")
    if not is_read or not (request.blueprint == "api" or is_export):
        raise NotAuthorized(
            "An API token reads /api/v1 and the exports of lists; it opens nothing else."
        )
    return signed_in


def find_by_header() -> SignedIn | None:
    """The account that a proxy names in `access.sign_in_header`; None where it names none.

    Source: as Grafana (`auth.proxy`, `whitelist`) and Gitea (`REVERSE_PROXY_TRUSTED_PROXIES`) do.

    Raises:
        NotAuthorized: what it names is no account here.
    """
    header = runtime().settings.access.sign_in_header
    value = request.headers.get(header) if header else None
    if value is None or not _is_from_proxy(header):
        return None
    try:
        name = value.encode("latin-1").decode("utf-8")  # WSGI reads the bytes as Latin-1
        if "," in name:  # or the header came twice
            raise InvalidQuery("a comma")
        check_account_name(name)
    except (UnicodeError, InvalidQuery):
        raise NotAuthorized(
            f"{header}: the proxy in front of this server names no account that can be."
        ) from None
    found = runtime().stores.accounts.find(name)
    record(name, HEADER, SIGNED_IN if found else REFUSED)
    if found is None:
        raise NotAuthorized(f"{header}: there is no account {name} on this server.")
    return found


def _is_from_proxy(header: str) -> bool:
    """Whether the other end of the connection, whatever X-Forwarded-For says, may name accounts."""
    peer = request.environ.get(PEER, "")
    address = parse_ip(peer)  # a Unix socket has none
    networks = map(ip_network, runtime().settings.access.sign_in_from)
    is_proxy = address is not None and any(address in network for network in networks)
    if not is_proxy:
        _tell_once(header, peer)
    return is_proxy and runtime().settings.server.trusted_proxies > 0


@lru_cache(maxsize=1000)
def _tell_once(header: str, peer: str) -> None:
    logger.warning(
        "%s from %s is not taken: access.sign_in_from does not have this address", header, peer
    )


def _refuse_where_throttled(name: str | None) -> None:
    address = request.remote_addr or ""
    account = None if name is None else _counted(name)
    spelling = _recorded(name or "")
    wait = runtime().stores.sign_ins.find_wait(account, address, now(), spelling)
    if wait > timedelta():
        seconds = math.ceil(wait.total_seconds())
        whom = f"sign-in of {account!r} from {address or 'a Unix socket'}"
        runtime().complaints.tell(logger, whom, f"throttled: for {seconds} s", logging.WARNING)
        raise Throttled(f"Too many failed sign-ins: try again in {seconds} seconds.", seconds)


def record(name: str, means: str, outcome: str, session_id: str | None = None) -> None:
    """Put on record what an account did, or somebody tried to."""
    agent, address = request.user_agent.string[:512], request.remote_addr or ""
    account = _counted(name) if outcome == REFUSED else _recorded(name)
    row = SignIn(now(), account, address, means, outcome, agent)
    runtime().stores.sign_ins.add(row, session_id)
    if means == FORM or outcome != SIGNED_IN:
        source = address or "a Unix socket"
        logger.info("%s: %r from %s by %s", outcome, account, source, means)


def _recorded(name: str) -> str:
    """A name as the audit has it: somebody may give a token as one."""
    return hide_tokens(name)[:255]


def _counted(name: str) -> str:
    """The name that failures are counted by: LDAP takes Alice and alice for one (RFC 4518)."""
    if runtime().token_server is None:
        return _recorded(name)
    return _recorded(" ".join(normalize("NFKC", name).casefold().split()))
