"""/api/v1: the queries of the pages as JSON, with the same filters and the same access."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from app.errors import InvalidQuery
from app.web import lists
from app.web.access import explanation, sign_in_listing
from app.web.analysis import recall_listing, record_listing, unused_listing
from app.web.figures import find_figures, slot_listing
from app.web.forms import (
    AccessFilter,
    FilterForm,
    RecallFilter,
    RecordFilter,
    RepositoryFilter,
    SignInFilter,
    TagFilter,
    UnusedFilter,
    UsageFilter,
)
from app.web.runtime import json_response
from app.web.search import repository_listing, tag_listing
from app.web.signin import administrator, viewer

bp = Blueprint("api", __name__, url_prefix="/api/v1")

_LISTS: dict[str, tuple[Any, Any]] = {
    "repositories": (RepositoryFilter, repository_listing),
    "tags": (TagFilter, tag_listing),
    "records": (RecordFilter, record_listing),
    "unused": (UnusedFilter, unused_listing),
    "recall": (RecallFilter, recall_listing),
    "sign-ins": (SignInFilter, sign_in_listing),
}
_OF_EVERY_LIST = {"cursor", "limit", "format"}


@bp.get("/<any(repositories, tags, records, unused, recall, 'sign-ins'):name>")
def listing(name: str) -> Response:
    """One page of a list: 200, 400 for a filter that cannot be used, 401, 403."""
    viewer()
    form_class, make_listing = _LISTS[name]
    form = form_class(request.args)
    _check(form, _OF_EVERY_LIST)
    found = make_listing(form)
    return lists.export(found) or json_response(lists.api_page(found))


@bp.get("/usage")
def usage() -> Response:
    """The dashboard's figures; as CSV or NDJSON its days: 200, 400, 401."""
    viewer()
    form = UsageFilter(request.args)
    _check(form, {"format"})
    figures = find_figures(form)
    return lists.export(slot_listing(figures)) or json_response(figures)


@bp.get("/access")
def access() -> Response:
    """Why an account may or may not see a repository: 200, 400, 401, 403."""
    administrator()
    form = AccessFilter(request.args)
    _check(form, set())
    return json_response(explanation(form))


def _check(form: FilterForm, others: set[str]) -> None:
    """Refuse parameters that do not exist, then values that cannot be used."""
    known = {field.name for field in form} | others
    for given in request.args:
        if given not in known:
            raise InvalidQuery(
                f"{given[:40]}: no such filter; known are {', '.join(sorted(known))}"
            )
    form.check()


@bp.route("/", defaults={"path": ""})
@bp.route("/<path:path>")
def unknown(path: str) -> Response:
    """404 as JSON."""
    viewer()
    raise NotFound("There is no such resource.")
