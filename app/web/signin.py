"""Signing in with a registry account, and what the one who signed in may see."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from flask import Blueprint, current_app, g, redirect, render_template, request, session, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from app.errors import NotAuthenticated, NotAuthorized
from app.rules.access import Account, compile_rule
from app.store.accounts import MAX_PASSWORD_BYTES, SignedIn
from app.store.scope import Records, Scope
from app.store.sign_ins import FORM, HEADER, SIGNED_OUT, TOKEN
from app.web.credentials import (
    WRONG,
    check_password,
    find_by_authorization,
    find_by_header,
    find_by_token,
    has_authorization,
    record,
)
from app.web.forms import SignInForm
from app.web.runtime import runtime
from app.web.texts import told

bp = Blueprint("signin", __name__)

SESSION_LIFETIME = timedelta(days=7)
UNKNOWN_SESSION_LIFETIME = timedelta(hours=8)
SIGN_IN = "Sign in with your registry account."
TOO_LONG = f"A password has at most {MAX_PASSWORD_BYTES} bytes: bcrypt reads no more."


class Viewer(msgspec.Struct, frozen=True):
    """Who asks, and the repositories this request may see."""

    name: str  # "" is the anonymous account
    is_administrator: bool
    scope: Scope
    means: str  # of app.store.sign_ins; FORM for a session, "" for nobody


def viewer() -> Viewer:
    """The account that asks, by the header Authorization, a proxy's word or a session.

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
        if has_authorization():
            raise
        return False
    return True


def look_again() -> None:
    """Have the rest of a long answer show what the one who asks may see by now.

    Raises:
        NotAuthenticated: the account, the session or the token is gone.
    """
    asked, accounts = visitor(), runtime().stores.accounts
    account: Account | None
    if asked.name:
        finders = {FORM: _from_session, TOKEN: find_by_token}
        # Otherwise by name: a password takes long to check.
        found = finders.get(asked.means, lambda: accounts.find(asked.name))()
        account = found.account if found else None
    else:
        account = accounts.find_anonymous()
    if account is None:
        raise NotAuthenticated("whoever asked is no longer signed in")
    g.viewer = _viewer_for(account, asked.means)


def is_administrator() -> bool:
    """Whether the page head shows what only administrators may open; asks no database."""
    found = g.get("viewer")
    return bool(found and found.is_administrator)


def account_name() -> str:
    """The signed-in account's name for the page head, "" without one; asks no database."""
    found = g.get("viewer")
    return found.name if found else ""


def is_visitor() -> bool:
    """Whether one asks who may search, be it the anonymous account; asks no database."""
    return bool(g.get("viewer"))


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
    is_long = len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES
    if is_long and runtime().stores.accounts.place != "token_url":
        return told(TOO_LONG)
    session_id = secrets.token_urlsafe(16)
    signed_in = check_password(name, password, FORM, session_id)
    if signed_in is None:
        return told(WRONG)
    start_session(signed_in, session_id)
    g.viewer = _viewer_for(signed_in.account, FORM)
    return None


def start_session(signed_in: SignedIn, session_id: str) -> None:
    """Answer with the cookie of this session, whatever cookie came."""
    session.clear()
    session.permanent = True
    session["id"] = session_id
    session["account"] = signed_in.account.name
    session["stamp"] = _stamp(signed_in)
    session["since"] = datetime.now(UTC).timestamp()


def renew_session() -> None:
    """Let this session go on although its account has a new password."""
    if found := runtime().stores.accounts.find(session["account"]):
        session["stamp"] = _stamp(found)


def _find_viewer() -> Viewer | None:
    if found := find_by_authorization():
        signed_in, means = found
        return _viewer_for(signed_in.account, means)
    if named := find_by_header():
        return _viewer_for(named.account, HEADER)
    if of_session := _from_session():
        return _viewer_for(of_session.account, FORM)
    return _find_anonymous() if runtime().settings.access.anonymous else None


def _find_anonymous() -> Viewer | None:
    account = runtime().stores.accounts.find_anonymous()
    found = _viewer_for(account, "") if account else None
    return found if found and found.scope.queries else None


def _from_session() -> SignedIn | None:
    """The account of the session, unless it was removed or its password changed since.

    Where a token server knows the accounts, nobody tells us of either: the session is short.
    """
    keys = ("account", "stamp", "since", "id")
    name, stamp, since, session_id = (session.get(key) for key in keys)
    if not (name and stamp and since and session_id):
        return None
    found = runtime().stores.accounts.find(name)
    age = datetime.now(UTC).timestamp() - since
    is_valid = (
        found is not None
        and hmac.compare_digest(stamp, _stamp(found))
        and age < session_lifetime().total_seconds()
        and not runtime().stores.sign_ins.is_ended(session_id)
    )
    if not is_valid:
        session.clear()
        return None
    return found


def session_lifetime() -> timedelta:
    """How long a session lasts, however active."""
    is_known = runtime().stores.accounts.place != "token_url"
    return SESSION_LIFETIME if is_known else UNKNOWN_SESSION_LIFETIME


def _stamp(signed_in: SignedIn) -> str:
    secret = current_app.config["SECRET_KEY"].encode()
    return hmac.new(secret, signed_in.bound_to, hashlib.sha256).hexdigest()


def _viewer_for(account: Account, means: str) -> Viewer:
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
    return Viewer(account.name, is_administrator, scope, means)


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
    message = gettext("Fill in user name and password.")
    if form.validate():
        message = sign_in(form.username.data, form.password.data) or ""
        if not message:
            return redirect(target, 303)
    return render_template("login.html", form=form, next=target, message=message), 401


@bp.post("/logout")
def logout() -> Any:
    """End the session, also where its cookie was copied to; 303 to the sign-in page.

    Whom a proxy signs in is told to sign out there: 200.
    """
    signed_in = _from_session()
    if signed_in:
        record(signed_in.account.name, FORM, SIGNED_OUT, session["id"])
    session.clear()
    if named := find_by_header():
        return render_template("account/signed_out.html", name=named.account.name)
    return redirect(url_for("signin.login"), 303)


def local_path(target: str) -> str | None:
    """`target` if it is a path on this server, else None: no open redirect.

    Browsers read a backslash as a slash and drop control characters.
    """
    is_local = target.startswith("/") and not target.startswith("//")
    return target if is_local and "\\" not in target and target.isprintable() else None
