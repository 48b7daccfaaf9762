"""/api/v1: the queries of the pages as JSON, with the same filters and the same access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, render_template, request
from flask_babel import force_locale
from werkzeug.exceptions import NotFound

from app.errors import InvalidQuery, UnknownParameter
from app.migration import Plan
from app.store.paging import Page
from app.web import lists
from app.web.access import explanation, sign_in_listing
from app.web.analysis import (
    find_recall,
    find_report,
    get_record,
    recall_listing,
    record_listing,
    unused_listing,
)
from app.web.contents import tag_items
from app.web.credentials import has_authorization
from app.web.figures import find_figures, slot_listing
from app.web.forms import (
    AccessFilter,
    FilterForm,
    RecallFilter,
    RegistryFilter,
    StorageFilter,
    UnusedFilter,
    UsageFilter,
)
from app.web.migration import (
    carry_out,
    checks_of,
    drift_listing,
    job_listing,
    plan_listing,
    plan_named,
    progress_of,
)
from app.web.openapi import LISTS, describe
from app.web.runtime import find_up_to, json_response, runtime
from app.web.search import (
    get_manifest,
    get_repository,
    get_tag,
    history_listing,
    repository_item,
    repository_listing,
    tag_listing,
)
from app.web.signin import administrator, is_signed_in, viewer, visitor
from app.web.storage import find_held, storage_listing
from app.web.wiring import carry_out as carry_out_rejected
from app.web.wiring import rejected_listing

bp = Blueprint("api", __name__, url_prefix="/api/v1")
page_bp = Blueprint("api_page", __name__)

_LISTINGS: dict[str, Callable[[Any], lists.Listing]] = {
    "repositories": repository_listing,
    "tags": tag_listing,
    "history": history_listing,
    "records": record_listing,
    "sign-ins": sign_in_listing,
    "rejected-events": rejected_listing,
}
_OF_ANYBODY = {"repositories", "tags"}  # the anonymous account sees these
_OF_EVERY_LIST = {"cursor", "limit", "total", "format"}

_PARTS: dict[str, Callable[[Plan, Any], lists.Listing]] = {
    "jobs": job_listing,
    "drift": drift_listing,
}
_Given = dict[str, str | int]
_TEXTS = ("id", "class")


@bp.before_request
def refuse_forgery() -> None:
    """Refuse a change that a foreign page may have had an administrator's browser send.

    A browser adds the session cookie to what a foreign page sends, and a password of HTTP Basic
    that was typed into it once. It does not add our token, nor let a form send JSON.
    """
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    if request.authorization is None:
        current_app.extensions["csrf"].protect()
    elif request.mimetype != "application/json":
        raise InvalidQuery("Content-Type: expected application/json")


@bp.get("/<any(repositories, tags, history, records, 'sign-ins', 'rejected-events'):name>")
def listing(name: str) -> Response:
    """One page of a list: 200, 400 for a filter that cannot be used, 401, 403."""
    (visitor if name in _OF_ANYBODY else viewer)()
    form = LISTS[f"/{name}"].form(request.args)
    _check(form, _OF_EVERY_LIST)
    return _answer(_LISTINGS[name](form))


@bp.get("/repositories/<path:repository>")
def repository(repository: str) -> Response:
    """One repository: 200, 400, 401, 404."""
    visitor()
    found = get_repository(repository, _registry())
    counted = runtime().stores.catalogue.count_tags([found])
    return json_response(repository_item(found, counted))


@bp.get("/tags/<path:repository>:<tag>")
def tag(repository: str, tag: str) -> Response:
    """One tag: 200, 400, 401, 404."""
    visitor()
    [found] = tag_items(Page([get_tag(repository, tag, _registry())])).items
    return json_response(found)


@bp.get("/manifests/<digest>")
def manifest(digest: str) -> Response:
    """What is known of a manifest: 200, 400, 401, 404."""
    visitor()
    _check(FilterForm(request.args), set())
    return json_response(get_manifest(digest))


@bp.get("/records/<path:id>")
def record(id: str) -> Response:
    """One record: 200, 400, 401, 404."""
    viewer()
    _check(FilterForm(request.args), set())
    return json_response(get_record(id))


def _registry() -> str:
    form = RegistryFilter(request.args)
    _check(form, set())
    return form.registry.data or runtime().settings.registries[0].name


@bp.get("/openapi.json")
def openapi() -> Response:
    """The API itself, as OpenAPI 3.1, for everybody: it is the same at every server."""
    return json_response(describe(request.script_root))


@page_bp.get("/api/")
def page() -> str:
    """The API for people, made of its description; for everybody, as that is."""
    if not has_authorization():
        is_signed_in(visitor)  # for the head of the page
    with force_locale("en"):  # what it describes is
        described = describe(request.script_root)
    return render_template("api.html", api=described)


@bp.get("/unused")
def unused() -> Response:
    """Unused tags, and why some could not be judged: 200, 400, 401."""
    viewer()
    form = UnusedFilter(request.args)
    _check(form, _OF_EVERY_LIST)
    report = find_report(form)
    return _answer(unused_listing(form, report), _beside("/unused", report))


@bp.get("/storage")
def storage() -> Response:
    """What tags hold by namespace, and all together: 200, 400, 401."""
    viewer()
    form = StorageFilter(request.args)
    _check(form, _OF_EVERY_LIST)
    found = find_held(form)
    return _answer(storage_listing(form, found), _beside("/storage", found))


@bp.get("/recall")
def recall() -> Response:
    """Who pulled an image, and what was looked for: 200, 400, 401, 404."""
    viewer()
    form = RecallFilter(request.args)
    _check(form, _OF_EVERY_LIST)
    recalled = find_recall(form)
    return _answer(recall_listing(form, recalled), _beside("/recall", recalled))


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


@bp.get("/migrations")
def migrations() -> Response:
    """Every plan and how far it is: 200, 400, 401, 403."""
    found = plan_listing()
    _check(FilterForm(request.args), _OF_EVERY_LIST)
    return _answer(found)


@bp.get("/migrations/<name>")
def migration(name: str) -> Response:
    """One plan and how far it is: 200, 401, 403, 404."""
    plan = plan_named(name)
    _check(FilterForm(request.args), set())
    return json_response(progress_of(plan))


@bp.get("/migrations/<name>/<any(jobs, drift):part>")
def migration_part(name: str, part: str) -> Response:
    """Jobs of a plan, or its drift: 200, 400, 401, 403, 404."""
    plan = plan_named(name)
    form = LISTS[f"/migrations/{{name}}/{part}"].form(request.args)
    _check(form, _OF_EVERY_LIST)
    return _answer(_PARTS[part](plan, form))


@bp.get("/migrations/<name>/ready")
def migration_ready(name: str) -> Response:
    """The conditions of a cut-over: 200, 401, 403, 404."""
    plan = plan_named(name)
    _check(FilterForm(request.args), set())
    checks = checks_of(plan)
    ready = all(check.is_met for check in checks)
    return json_response({"ready": ready, "items": checks, "next": None, "total": len(checks)})


@bp.post("/migrations/<name>/<any(start, pause, resume, 'lift-brake', verify, retry, skip):action>")
def migration_action(name: str, action: str) -> Response:
    """Change a plan or its jobs: 200 with a sentence that says what was done, 400, 401, 403, 404.

    The body is a JSON object, or empty; see refuse_forgery.
    """
    plan = plan_named(name)
    return json_response({"message": carry_out(plan, action, _read_body())})


@bp.post("/rejected-events/<any(retry, drop):action>")
def rejected_action(action: str) -> Response:
    """Retry or drop rejected events: 200 with a sentence, 400, 401, 403, 404.

    The body is a JSON object with the `id` of one, or empty: all of them.
    """
    administrator()
    given = _read_body()
    if wrong := given.keys() - {"id"}:
        raise InvalidQuery(f"{min(wrong)[:40]}: no such field; known is id")
    return json_response({"message": carry_out_rejected(action, str(given.get("id", "")))})


def _read_body() -> _Given:
    try:
        given = msgspec.json.decode(request.get_data() or b"{}", type=_Given)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidQuery(f"body: expected a JSON object of texts and numbers: {error}") from None
    for name in _TEXTS:
        if not isinstance(given.get(name, ""), str):
            raise InvalidQuery(f"{name}: expected a text")
    return given


def _answer(found: lists.Listing, beside: Mapping[str, Any] = {}) -> Response:
    lists.check_page()
    up_to = find_up_to()
    behind = {"up_to": up_to} if up_to else {}
    return lists.export(found) or json_response({**lists.api_page(found), **beside, **behind})


def _beside(path: str, found: Any) -> dict[str, Any]:
    """What an answer has besides its page."""
    return {name: getattr(found, name) for name in LISTS[path].beside}


def _check(form: FilterForm, others: set[str]) -> None:
    """Refuse parameters that do not exist, then values that cannot be used."""
    known = {field.name for field in form} | others
    for given in request.args:
        if given not in known:
            raise UnknownParameter(
                f"{given[:40]}: no such filter; known are {', '.join(sorted(known))}"
            )
    form.check()


@bp.route("/", defaults={"path": ""})
@bp.route("/<path:path>")
def unknown(path: str) -> Response:
    """404 as JSON."""
    viewer()
    raise NotFound("There is no such resource.")
