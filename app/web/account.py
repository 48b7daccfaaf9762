"""The account page: API tokens, sessions, password. And everybody's tokens, for administrators."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask_babel import gettext, ngettext
from werkzeug.wrappers import Response

from app.errors import InvalidQuery, NotAuthorized
from app.store.sign_ins import FORM, HEADER, NEW_PASSWORD, NEW_TOKEN, REVOKED, SIGNED_OUT, now
from app.web import lists
from app.web.credentials import record
from app.web.forms import PasswordForm, TokenFilter, TokenForm
from app.web.preferences import page_size
from app.web.runtime import runtime
from app.web.signin import (
    administrator,
    renew_session,
    session_lifetime,
    sign_in,
    viewer,
)
from app.web.texts import told

bp = Blueprint("account", __name__)


@bp.get("/account")
def home() -> Any:
    """What belongs to the account that asks: 200, 302 to sign in, 401."""
    return _page()


def _page(**changes: Any) -> str:
    owner, stores = viewer(), runtime().stores
    context: dict[str, Any] = {
        "owner": owner,
        "place": "header" if owner.means == HEADER else stores.accounts.place,
        "header": runtime().settings.access.sign_in_header,
        "tokens": stores.tokens.find_all(owner.name),
        "sessions": stores.sign_ins.find_sessions(owner.name, now() - session_lifetime()),
        "this_session": session.get("id") if owner.means == FORM else None,
        "token_form": TokenForm(formdata=None),
        "password_form": PasswordForm(formdata=None),
        "now": now(),
    }
    return render_template("account/home.html", **context | changes)


@bp.post("/account/tokens")
def make_token() -> Any:
    """Make a token: 200 the page, which shows it once, 400 the form again."""
    owner, form = viewer(), TokenForm()
    if not form.validate():
        return _page(token_form=form), 400
    try:
        token = runtime().stores.tokens.add(
            owner.name, form.name.data, timedelta(days=form.days.data), now()
        )
    except InvalidQuery as error:
        form.name.errors = [told(str(error).removeprefix("name: "))]
        return _page(token_form=form), 400
    record(owner.name, f"token {form.name.data}", NEW_TOKEN)
    # Not by way of a redirect: between the two it would have to be kept somewhere.
    return _page(new_token=token, new_name=form.name.data)


@bp.post("/account/tokens/revoke")
def revoke_token() -> Response:
    """Revoke a token of one's own: 303 back."""
    owner, name = viewer(), request.form.get("name", "")
    if runtime().stores.tokens.remove(owner.name, name):
        record(owner.name, f"token {name}", REVOKED)
        flash(gettext("Revoked the token %(name)s.", name=name), "success")
    return _back()


@bp.post("/account/sessions/end")
def end_sessions() -> Response:
    """End one session of one's own, or all but this one: 303 back."""
    owner = viewer()
    number = _end_sessions(owner.name, request.form.get("id"))
    text = ngettext(
        "Ended %(number)s session.", "Ended %(number)s sessions.", number, number=number
    )
    flash(text, "success")
    return _back()


def _end_sessions(account: str, only: str | None = None) -> int:
    """End the sessions of an account, or one of them, this one never; returns how many."""
    sign_ins = runtime().stores.sign_ins
    found = [
        row
        for row in sign_ins.find_sessions(account, now() - session_lifetime())
        if row.id != session.get("id") and only in (None, row.id)
    ]
    for row in found:
        record(account, FORM, SIGNED_OUT, row.id)
    return len(found)


@bp.post("/account/password")
def change_password() -> Any:
    """Change the password of an account in our collection: 303 back, 400 the form, 429."""
    owner, form, accounts = viewer(), PasswordForm(), runtime().stores.accounts
    if accounts.place != "collection" or owner.means == HEADER:
        raise NotAuthorized("The password of this account is not kept here.")
    if not form.validate():
        return _page(password_form=form), 400
    if sign_in(owner.name, form.present.data):
        form.present.errors = [gettext("is wrong")]
        return _page(password_form=form), 400
    accounts.set_password(owner.name, form.new.data)
    renew_session()
    number = _end_sessions(owner.name)
    record(owner.name, FORM, NEW_PASSWORD)
    text = ngettext(
        "Changed the password, and ended %(number)s other session.",
        "Changed the password, and ended %(number)s other sessions.",
        number,
        number=number,
    )
    flash(text, "success")
    return _back()


def _back() -> Response:
    return redirect(url_for("account.home"), 303)


@bp.get("/access/tokens")
def tokens() -> Any:
    """Everybody's tokens. 403 to others."""
    administrator()
    form = TokenFilter(request.args)
    if not form.validate():
        return render_template("access/tokens.html", form=form, page=None), 400
    page = runtime().stores.tokens.find_page(
        form.account.data or "", cursor=lists.cursor(), limit=page_size()
    )
    return render_template("access/tokens.html", form=form, page=page, now=now())


@bp.post("/access/tokens/revoke")
def revoke_any_token() -> Response:
    """Revoke a token of anybody: 303 back. 403 to others."""
    who = administrator().name
    account, name = request.form.get("account", ""), request.form.get("name", "")
    if runtime().stores.tokens.remove(account, name):
        record(who, f"token {name} of {account}", REVOKED)
        text = gettext("Revoked the token %(name)s of %(account)s.", name=name, account=account)
        flash(text, "success")
    return redirect(url_for("account.tokens"), 303)
