"""Signing in with a registry account, and what the one who signed in may see."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from flask import Blueprint, current_app, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from app.errors import NotAuthenticated, NotAuthorized, Throttled
from app.rules.access import Account, compile_rule
from app.store.accounts import MAX_PASSWORD_BYTES, SignedIn
from app.store.scope import Records, Scope
from app.store.sign_ins import REFUSED, SIGNED_IN, SIGNED_OUT, SignIn, now
from app.web.forms import SignInForm
from app.web.runtime import runtime

logger = logging.getLogger(__name__)
bp = Blueprint("signin", __name__)

SESSION_LIFETIME = timedelta(days=7)  # however active
MAX_NAME_LENGTH = 255  # of a name that was tried, in the audit and the log
SIGN_IN = "Sign in with your registry account."
WRONG = "The user name or the password is wrong."
TOO_LONG = f"A password has at most {MAX_PASSWORD_BYTES} bytes: bcrypt reads no more."


class Viewer(msgspec.Struct, frozen=True):
    """Who asks, and the repositories this request may see."""

    name: str  # "" is the anonymous account
    is_administrator: bool
    scope: Scope


def viewer() -> Viewer:
    """The account that asks, by HTTP Basic or session.

    Raises:
        NotAuthenticated: neither.
    """
    found = visitor()
    if not found.name:
        raise NotAuthenticated(SIGN_IN)
    return found


def visitor() -> Viewer:
    """The one who asks for repositories and tags, which the anonymous account may see too.

    Raises:
        NotAuthenticated: nobody signed in, and the anonymous account may not see anything.
    """
    if "viewer" not in g:
        g.viewer = _find_viewer()
    if g.viewer is None:
        raise NotAuthenticated(SIGN_IN)
    return g.viewer  # type: ignore[no-any-return]


def administrator() -> Viewer:
    """The one who asks, an administrator.

    Raises:
        NotAuthenticated: nobody signed in.
        NotAuthorized: another account.
    """
    found = viewer()
    if not found.is_administrator:
        raise NotAuthorized("This page is for administrators (access.administrators).")
    return found


def is_signed_in(who: Callable[[], Viewer] = viewer) -> bool:
    """Whether an account asks; with `visitor`, the anonymous one too.

    Raises:
        NotAuthenticated: wrong credentials came with the request.
    """
    try:
        who()
    except NotAuthenticated:
        if request.authorization:
            raise
        return False
    return True


def is_administrator() -> bool:
    """Whether the page head shows what only administrators may open; asks no database."""
    found = g.get("viewer")
    return bool(found and found.is_administrator)


def account_name() -> str:
    """The signed-in account's name for the page head, "" without one; asks no database."""
    found = g.get("viewer")
    return found.name if found else ""


def is_anonymous() -> bool:
    """Whether the anonymous account asks, which would see more if it signed in."""
    found = g.get("viewer")
    return bool(found and not found.name)


def shown_of_others() -> Records:
    """What the one who asks sees of other people; asks no database."""
    found = g.get("viewer")
    return found.scope.records if found else "own"


def sign_in(name: str, password: str) -> str | None:
    """Start a session; returns None, or the message to show when it did not work."""
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
        return TOO_LONG
    session_id = secrets.token_urlsafe(16)
    signed_in = _authenticate(name, password, "form", session_id)
    if signed_in is None:
        return WRONG
    session.clear()
    session.permanent = True
    session["id"] = session_id
    session["account"] = name
    session["stamp"] = _stamp(signed_in)
    session["since"] = datetime.now(UTC).timestamp()
    g.viewer = _viewer_for(signed_in.account)
    return None


def _authenticate(
    name: str, password: str, means: str, session_id: str | None = None
) -> SignedIn | None:
    """The account, if the password is right; throttled and put on record.

    Raises:
        Throttled: too many attempts failed before this one.
    """
    stores, address = runtime().stores, request.remote_addr or ""
    shown = name[:MAX_NAME_LENGTH]
    wait = stores.sign_ins.find_wait(shown, address, now())
    if wait > timedelta():
        seconds = math.ceil(wait.total_seconds())
        logger.warning("sign-in of %r from %s: throttled for %d s", shown, address, seconds)
        raise Throttled(f"Too many failed sign-ins: try again in {seconds} seconds.", seconds)
    signed_in = stores.accounts.sign_in(name, password)
    _record(shown, means, SIGNED_IN if signed_in else REFUSED, session_id if signed_in else None)
    return signed_in


def _record(name: str, means: str, outcome: str, session_id: str | None) -> None:
    agent, address = request.user_agent.string[:512], request.remote_addr or ""
    row = SignIn(now(), name, address, means, outcome, agent)
    runtime().stores.sign_ins.add(row, session_id)
    if means == "form" or outcome == REFUSED:
        logger.info("%s: %r from %s", outcome, name, address)


def _find_viewer() -> Viewer | None:
    basic = request.authorization
    if basic is not None:
        if basic.type != "basic" or basic.username is None or basic.password is None:
            raise NotAuthenticated("Authorization: expected HTTP Basic with a registry account.")
        signed_in = _authenticate(basic.username, basic.password, "basic")
        if signed_in is None:
            raise NotAuthenticated(WRONG)
        return _viewer_for(signed_in.account)
    signed_in = _from_session()
    if signed_in:
        return _viewer_for(signed_in.account)
    return _find_anonymous() if runtime().settings.access.anonymous else None


def _find_anonymous() -> Viewer | None:
    account = runtime().stores.accounts.find_anonymous()
    found = _viewer_for(account) if account else None
    return found if found and found.scope.queries else None


def _from_session() -> SignedIn | None:
    """The account of the session, unless it was removed or its password changed since."""
    keys = ("account", "stamp", "since", "id")
    name, stamp, since, session_id = (session.get(key) for key in keys)
    if not (name and stamp and since and session_id):
        return None
    found = runtime().stores.accounts.find(name)
    age = datetime.now(UTC).timestamp() - since
    is_valid = (
        found is not None
        and hmac.compare_digest(stamp, _stamp(found))
        and age < SESSION_LIFETIME.total_seconds()
        and not runtime().stores.sign_ins.is_ended(session_id)
    )
    if not is_valid:
        session.clear()
        return None
    return found


def _stamp(signed_in: SignedIn) -> str:
    secret = current_app.config["SECRET_KEY"].encode()
    return hmac.new(secret, signed_in.password_hash, hashlib.sha256).hexdigest()


def _viewer_for(account: Account) -> Viewer:
    here = runtime()
    access = here.settings.access
    rule = compile_rule(
        here.stores.accounts.load_acl(),
        account,
        address=request.remote_addr,
        service=here.settings.docker_auth.service,
        own_namespace=access.own_namespace,
        administrators=access.administrators,
    )
    is_administrator = bool(account.name) and account.name in access.administrators
    records: Records = "all" if is_administrator else access.records
    scope = here.stores.catalogue.find_scope(rule, account.name, records if account.name else "own")
    return Viewer(account.name, is_administrator, scope)


@bp.get("/")
def index() -> Response:
    """To the search pages."""
    return redirect(url_for("search.home"))


@bp.route("/login", methods=["GET", "POST"])
def login() -> Any:
    """Sign in: 200 the form, 303 to `next`, 401 the form again."""
    form = SignInForm()
    target = local_path(request.values.get("next", "")) or url_for("search.home")
    if request.method != "POST":
        return render_template("login.html", form=form, next=target)
    message = "Fill in user name and password."
    if form.validate():
        message = sign_in(form.username.data, form.password.data) or ""
        if not message:
            return redirect(target, 303)
    return render_template("login.html", form=form, next=target, message=message), 401


@bp.post("/logout")
def logout() -> Response:
    """End the session, also where its cookie was copied to; 303 to the sign-in page."""
    signed_in = _from_session()
    if signed_in:
        _record(signed_in.account.name, "form", SIGNED_OUT, session["id"])
    session.clear()
    return redirect(url_for("signin.login"), 303)


def local_path(target: str) -> str | None:
    """`target` if it is a path on this server, else None: no open redirect.

    Browsers read a backslash as a slash and drop control characters.
    """
    is_local = target.startswith("/") and not target.startswith("//")
    return target if is_local and "\\" not in target and target.isprintable() else None
