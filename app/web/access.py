"""Access, for administrators: why somebody sees a repository or not, and who signed in."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template, request

from app.analysis.explain import Answer, explain_access, parse_entry
from app.rules.access import by_seq, find_disorder
from app.store.accounts import plain
from app.store.paging import Page
from app.store.sign_ins import SignIn
from app.web import lists
from app.web.forms import AccessFilter, SignInFilter
from app.web.lists import Item, Listing, fields_of
from app.web.preferences import page_size
from app.web.runtime import runtime
from app.web.signin import administrator

bp = Blueprint("access", __name__, url_prefix="/access")


@bp.get("/")
def explainer() -> Any:
    """The ACL, and which entry decides about one account and repository. 403 to others."""
    administrator()
    form = AccessFilter(request.args)
    answer, status = None, 200
    if not form.is_empty:
        if form.validate():
            answer = explanation(form)
        else:
            status = 400
    accounts = runtime().stores.accounts
    documents = accounts.find_acl_documents()
    acl = accounts.parse(documents)
    page = render_template(
        "access/explain.html",
        form=form,
        answer=answer,
        entries=[plain(document) for document in by_seq(documents)],
        acl=acl,
        disorder=find_disorder(acl),
    )
    return page, status


def explanation(form: AccessFilter) -> Answer:
    """The answer to a valid form."""
    entry = parse_entry(form.entry.data) if form.entry.data else None
    return explain_access(
        runtime().stores,
        runtime().settings,
        form.account.data,
        form.repository.data,
        address=form.address.data,
        entry=entry,
    )


@bp.get("/sign-ins")
def sign_ins() -> Any:
    """Who signed in and who failed to, newest first. 403 to others."""
    administrator()
    form = SignInFilter(request.args)
    if not form.validate():
        return render_template("access/sign_ins.html", form=form, page=None), 400
    listing = sign_in_listing(form)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    count = lists.total(listing, page)
    return render_template("access/sign_ins.html", form=form, page=page, count=count)


def sign_in_listing(form: SignInFilter) -> Listing:
    """The sign-ins that a valid form selects; for administrators alone."""
    administrator()
    store, filters = runtime().stores.sign_ins, form.filters()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = store.find_page(filters, cursor=cursor, limit=limit)
        return Page([fields_of(row) for row in page.items], page.next)

    return Listing(
        "sign-ins", SignIn.__struct_fields__, find, lambda cap: store.count(filters, cap=cap)
    )
