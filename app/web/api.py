"""/api/v1: the queries of the pages as JSON, with the same filters and the same access."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from app.errors import InvalidQuery
from app.web import lists
from app.web.analysis import record_listing
from app.web.forms import RecordFilter, RepositoryFilter, TagFilter
from app.web.runtime import json_response
from app.web.search import repository_listing, tag_listing
from app.web.signin import viewer

bp = Blueprint("api", __name__, url_prefix="/api/v1")

_LISTS: dict[str, tuple[Any, Any]] = {
    "repositories": (RepositoryFilter, repository_listing),
    "tags": (TagFilter, tag_listing),
    "records": (RecordFilter, record_listing),
}
_OF_EVERY_LIST = {"cursor", "limit", "format"}


@bp.get("/<any(repositories, tags, records):name>")
def listing(name: str) -> Response:
    """One page of a list: 200, 400 for a filter that cannot be used, 401."""
    viewer()
    form_class, make_listing = _LISTS[name]
    form = form_class(request.args)
    known = {field.name for field in form} | _OF_EVERY_LIST
    for given in request.args:
        if given not in known:
            raise InvalidQuery(
                f"{given[:40]}: no such filter; known are {', '.join(sorted(known))}"
            )
    form.check()
    found = make_listing(form)
    return lists.export(found) or json_response(lists.api_page(found))


@bp.route("/", defaults={"path": ""})
@bp.route("/<path:path>")
def unknown(path: str) -> Response:
    """404 as JSON."""
    viewer()
    raise NotFound("There is no such resource.")
