"""Search: repositories, tags, one repository, one tag, one digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

import msgspec
from flask import Blueprint, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.datastructures import MultiDict

from app.errors import InvalidQuery, NotAuthenticated, NotFound
from app.migration.filters import newest_first
from app.rules.events import Event
from app.store.catalogue import CatalogueQuery, Move, Repository, Tag
from app.store.events import LastPull, RecordQuery
from app.store.paging import Page
from app.store.scope import Scope
from app.web import lists
from app.web.commands import find_places, host_of, pull_command
from app.web.contents import Supplement, find_supplements, tag_items
from app.web.figures import DailyPulls, find_daily_pulls, find_recent
from app.web.forms import FilterForm, HistoryFilter, RepositoryFilter, SignInForm, TagFilter
from app.web.forms.fields import DIGEST_START, whole_digest
from app.web.lists import Item, Listing, fields_of
from app.web.overview import find_overview
from app.web.preferences import page_size
from app.web.runtime import runtime
from app.web.signin import SIGN_IN, Viewer, is_signed_in, sign_in, viewer, visitor

bp = Blueprint("search", __name__, url_prefix="/search")

RECENT = 10
MIN_WHOLE_DIGEST = 64  # hexadecimal digits of sha256, the shortest that registries use
MAX_CANDIDATES = 20  # digests that begin alike
MAX_BY_VERSION = 200  # tags of a repository: more are listed by name, page by page


@bp.get("/")
def home() -> Any:
    """What happened, what needs attention, and the latest pushes."""
    stores, scope = runtime().stores, visitor().scope
    newest = CatalogueQuery(sort="pushed")
    found = tag_items(stores.catalogue.find_tags(newest, scope, limit=RECENT))
    tags = [tag for tag in found.items if tag["pushed_at"]]
    repositories = stores.catalogue.count(
        "repository", CatalogueQuery(), scope, cap=lists.PAGE_COUNT_CAP
    )
    overview = find_overview() if is_signed_in() else None
    return render_template(
        "search/home.html", tags=tags, repositories=repositories, overview=overview
    )


@bp.get("/user/")
def repositories_form() -> Any:
    """The way to the repositories: the list, or who has to sign in first."""
    return entry_page("search/repositories.html", RepositoryFilter(MultiDict()), visitor)


@bp.route("/user/login/", methods=["GET", "POST"])
def repositories() -> Any:
    """The repositories found."""
    return results(
        "search/repositories.html",
        RepositoryFilter,
        repository_listing,
        visitor,
        beside=_pulls_beside,
    )


def _pulls_beside(form: RepositoryFilter, page: Page[Item]) -> dict[str, Any]:
    """The daily pulls that the page shows; the anonymous account sees none."""
    if not is_signed_in():
        return {}
    keys = [(row["registry"], row["repository"]) for row in page.items]
    return {"pulls": find_daily_pulls(keys, only_closed=not form.pulls.data)}


@bp.get("/user/repo/")
def tags_form() -> Any:
    """The way to the tags: the list, or who has to sign in first."""
    return entry_page("search/tags.html", TagFilter(MultiDict()), visitor)


@bp.route("/user/repo/login/", methods=["GET", "POST"])
def tags() -> Any:
    """The tags found."""
    return results("search/tags.html", TagFilter, tag_listing, visitor)


def entry_page(template: str, form: FilterForm, who: Callable[[], Viewer] = viewer) -> Any:
    """A filter form that signs in on the way; `who` may look already goes to the whole list."""
    assert request.endpoint
    if is_signed_in(who):
        return redirect(url_for(request.endpoint.removesuffix("_form")))
    return render_template(template, form=form, page=None, sign_in_form=SignInForm())


def results(
    template: str,
    form_class: Any,
    make_listing: Any,
    who: Callable[[], Viewer] = viewer,
    beside: Callable[[Any, Page[Item]], dict[str, Any]] = lambda form, page: {},
) -> Any:
    """The result path of a form, for `who` may look: an account, or any visitor.

    `beside` finds what the page shows beside its rows.

    POST signs in and redirects (303) to GET with the filters in the query string, so that a result
    can be linked, paged, reloaded and exported. GET without a session goes to the form, an export
    is 401.
    """
    if request.method == "POST":
        return _sign_in_and_redirect(template, form_class(request.form), who)
    assert request.endpoint
    if not is_signed_in(who):
        if lists.asks_for_file():
            raise NotAuthenticated(SIGN_IN)
        return redirect(url_for(f"{request.endpoint}_form"))
    form = form_class(request.args)
    if not form.validate():
        return render_template(template, form=form, page=None, sign_in_form=None), 400
    listing: Listing = make_listing(form)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    count = lists.total(listing, page)
    more = beside(form, page)
    return render_template(template, form=form, page=page, count=count, sign_in_form=None, **more)


def _sign_in_and_redirect(template: str, form: FilterForm, who: Callable[[], Viewer]) -> Any:
    sign_in_form = SignInForm()
    if not is_signed_in(who) or sign_in_form.username.data:
        message: str | None = gettext("Fill in user name and password.")
        if sign_in_form.validate():
            message = sign_in(sign_in_form.username.data, sign_in_form.password.data)
        if message:
            page = render_template(
                template, form=form, page=None, sign_in_form=sign_in_form, message=message
            )
            return page, 401
    given = ((field, request.form.get(field.name)) for field in form)
    filters: dict[str, Any] = {
        field.name: value for field, value in given if value and value != field.default
    }
    assert request.endpoint
    return redirect(url_for(request.endpoint, **filters), 303)


def repository_listing(form: RepositoryFilter) -> Listing:
    """The repositories that a valid form selects."""
    catalogue, scope, query = runtime().stores.catalogue, visitor().scope, form.query()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = catalogue.find_repositories(query, visitor().scope, cursor=cursor, limit=limit)
        tags = catalogue.count_tags(page.items)
        pulls = None
        if form.pulls.data and is_signed_in():
            pulls = find_daily_pulls((row.registry, row.repository) for row in page.items)
        return Page([repository_item(row, tags, pulls) for row in page.items], page.next)

    columns = (*Repository.__struct_fields__, "tags", "pulls")
    return Listing(
        "repositories",
        columns,
        find,
        lambda cap: catalogue.count("repository", query, scope, cap=cap),
    )


def repository_item(
    row: Repository,
    tags: Mapping[tuple[str, str], int],
    pulls: DailyPulls | None = None,
) -> Item:
    """A repository with its number of tags, and of pulls in 30 days if they were asked for."""
    key = row.registry, row.repository
    pulled = None if pulls is None else sum(pulls.days[key])
    return {**fields_of(row), "tags": tags.get(key, 0), "pulls": pulled}


def tag_listing(form: TagFilter) -> Listing:
    """The tags that a valid form selects."""
    catalogue, scope, query = runtime().stores.catalogue, visitor().scope, form.query()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        return tag_items(catalogue.find_tags(query, visitor().scope, cursor=cursor, limit=limit))

    columns = (*Tag.__struct_fields__, "size", "platforms", "signed")
    return Listing("tags", columns, find, lambda cap: catalogue.count("tag", query, scope, cap=cap))


def history_listing(form: HistoryFilter) -> Listing:
    """What a tag pointed to, newest first; `digest` null from when it was gone.

    Raises:
        NotFound: no such tag, or none that may be seen.
    """
    registry = form.registry.data or runtime().settings.registries[0].name
    catalogue, scope = runtime().stores.catalogue, viewer().scope
    found = catalogue.get_tag(registry, form.repository.data, form.tag.data, scope)
    if found is None:
        raise NotFound("There is no such tag.")
    moves = catalogue.find_history(found, scope)
    rows = [(f"{number:09}", move) for number, move in enumerate(reversed(moves))]

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page, more = lists.slice_of(rows, itemgetter(0), cursor, limit, newest_first=True)
        return Page([fields_of(move) for _, move in page], more)

    columns = Move.__struct_fields__
    return Listing("history", columns, find, lambda cap: lists.count_of(rows, cap))


@bp.get("/repository")
def repository() -> Any:
    """One repository: its tags and latest records. 404 also when it may not be seen."""
    name, registry = _named_repository()
    found = get_repository(name, registry)
    stores, scope = runtime().stores, visitor().scope
    query = CatalogueQuery(repository=name, registry=registry)
    count = stores.catalogue.count("tag", query, scope, cap=lists.PAGE_COUNT_CAP)
    is_small = count.number <= MAX_BY_VERSION
    sort = request.args.get("sort")
    if sort == "pushed" or not is_small:
        query = msgspec.structs.replace(query, sort="pushed" if sort == "pushed" else "name")
        page = stores.catalogue.find_tags(query, scope, cursor=lists.cursor(), limit=page_size())
    else:
        page = _find_by_version(query, scope)
    return render_template(
        "search/repository.html",
        repository=found,
        page=tag_items(page),
        count=count,
        sort="pushed" if sort == "pushed" else "name",
        is_by_version=is_small,
        **_activity(
            RecordQuery(repository=name, registry=registry),
            supplements=request.args.get("supplements") == "1",
        ),
    )


def _find_by_version(query: CatalogueQuery, scope: Scope) -> Page[Tag]:
    """The tags of one small repository, the highest version first, then all that is none."""
    found = runtime().stores.catalogue.find_tags(query, scope, limit=MAX_BY_VERSION).items
    place = {tag: number for number, tag in enumerate(newest_first(row.tag for row in found))}
    rows, more = lists.slice_of(
        found, lambda row: f"{place[row.tag]:03}", lists.cursor(), page_size()
    )
    return Page(rows, more)


@bp.get("/tag")
def tag() -> Any:
    """One tag: what it points to, its history, its latest records. 404 also when not visible."""
    name, registry = _named_repository()
    found = get_tag(name, request.args.get("tag", ""), registry)
    stores, scope = runtime().stores, visitor().scope
    whole = stores.manifests.find_whole(registry, {found.digest or ""}).get(found.digest or "")
    query = RecordQuery(repository=name, registry=registry, tag=found.tag)
    activity = _activity(query)
    history = stores.catalogue.find_history(found, scope)
    shared = CatalogueQuery(repository=name, registry=registry, digest=found.digest)
    same = stores.catalogue.find_tags(shared, scope) if found.digest else Page[Tag]([])
    start = request.args.get("history", 0, type=int)
    start = start if 0 < start < len(history) else 0
    return render_template(
        "search/tag.html",
        tag=found,
        whole=whole,
        supplements=_supplements_of([found]),
        pull_command=pull_command(
            found.kind, f"{host_of(registry, activity.get('records', ()))}/{name}", found.tag
        ),
        history=history[start : start + page_size()],
        newer=history[start - 1] if start else None,
        older=start + page_size() if len(history) > start + page_size() else None,
        **activity,
        same=[row for row in same.items if row.digest == found.digest and row.tag != found.tag],
        has_more_names=same.next is not None,
    )


@bp.get("/digest")
def digest() -> Any:
    """One digest: its tags, what it consists of, its records. 404 also when not visible."""
    given = whole_digest(request.args.get("digest", ""))
    wanted = complete_digest(given) if DIGEST_START.fullmatch(given) else given
    page, registry = _find_digest(wanted)
    tags = [row for row in tag_items(page).items if row["digest"] == wanted]
    stores = runtime().stores
    activity = _activity(RecordQuery(digest=wanted, parts=True))
    whole = stores.manifests.find_whole(registry, {wanted}).get(wanted)
    places = find_places(tags, activity.get("records", ()))
    return render_template(
        "search/digest.html",
        digest=wanted,
        whole=whole,
        supplements=_supplements_of(row for row in page.items if row.digest == wanted),
        tags=tags,
        has_more_tags=page.next is not None,
        pull_commands=[
            pull_command(whole.manifest.kind if whole else "image", place, digest=wanted)
            for place in places
        ],
        **activity,
    )


def _find_digest(wanted: str) -> tuple[Page[Tag], str]:
    """Tags that point to a digest or did, and a registry that told of it where it may be seen.

    What is told of a manifest is what that registry told.

    Raises:
        NotFound: no such digest, or none that may be seen.
    """
    stores, scope = runtime().stores, visitor().scope
    query = CatalogueQuery(digest=wanted, deleted=True)
    page = stores.catalogue.find_tags(query, scope) if wanted else Page[Tag]([])
    registry = next((row.registry for row in page.items if row.digest == wanted), None)
    if wanted and not registry:
        registry = stores.events.find_registry(wanted, scope)
    if not registry:
        raise NotFound("There is no such digest.")
    return page, registry


def complete_digest(given: str) -> str:
    """The one digest that begins so and may be seen; `given` itself where there is none.

    Raises:
        InvalidQuery: there are several.
    """
    if len(given.partition(":")[2]) >= MIN_WHOLE_DIGEST:
        return given
    found = find_digests(given)
    if len(found) > 1:
        raise InvalidQuery(f"digest: several begin so: {', '.join(sorted(found)[:5])}")
    return next(iter(found), given)


def find_digests(start: str) -> set[str]:
    """Digests that begin so and may be seen, some of them where there are many."""
    stores, scope = runtime().stores, visitor().scope
    registries = [registry.name for registry in runtime().settings.registries]
    known = stores.manifests.find_digests(registries, start, MAX_CANDIDATES)
    # What nobody knows takes as long as what this account may not see.
    found = {one for one in known or [start] if stores.events.find_registry(one, scope)}
    query = CatalogueQuery(digest=start, deleted=True)
    return found | {
        row.digest for row in stores.catalogue.find_tags(query, scope).items if row.digest
    }


def get_repository(name: str, registry: str) -> Repository:
    """One repository, deleted or not.

    Raises:
        NotFound: no such repository, or none that may be seen.
    """
    scope = visitor().scope
    query = CatalogueQuery(repository=name, registry=registry, deleted=True)
    if not scope.may_see(name):
        raise NotFound("There is no such repository.")
    found = runtime().stores.catalogue.find_repositories(query, scope, limit=1)
    if not found.items:
        raise NotFound("There is no such repository.")
    return found.items[0]


def get_tag(repository: str, tag: str, registry: str) -> Tag:
    """One tag, deleted or not.

    Raises:
        NotFound: no such tag, or none that may be seen.
    """
    found = runtime().stores.catalogue.get_tag(registry, repository, tag, visitor().scope)
    if found is None:
        raise NotFound("There is no such tag.")
    return found


def get_manifest(digest: str) -> Item:
    """What is known of a manifest, with the size of all its content.

    Raises:
        NotFound: no such manifest, or none that may be seen.
    """
    _, registry = _find_digest(digest)
    whole = runtime().stores.manifests.find_whole(registry, {digest}).get(digest)
    if whole is None:
        raise NotFound("There is no such digest.")
    return {**fields_of(whole.manifest), "registry": registry, "total_size": whole.size}


def _supplements_of(tags: Iterable[Tag]) -> list[Supplement]:
    """What there is about what these tags point to."""
    subjects = {(tag.registry, tag.repository, tag.digest) for tag in tags if tag.digest}
    return [one for found in find_supplements(subjects).values() for one in found]


def _activity(query: RecordQuery, *, supplements: bool = True) -> dict[str, Any]:
    """What a page shows of the pulls and pushes of what `query` names.

    Nothing to the anonymous account.
    """
    if not is_signed_in():
        return {"recent": None}
    records = runtime().stores.events.find_page(query, viewer().scope, limit=RECENT)
    fields = ("registry", "repository", "tag", "digest")
    named: dict[str, str] = {name: value for name in fields if (value := getattr(query, name))}
    return {
        "records": records.items,
        "last_pull": _last_pull(records, query),
        "recent": find_recent(supplements=supplements, **named),
    }


def _last_pull(newest: Page[Event], query: RecordQuery) -> LastPull | None:
    """The newest pull that `query` selects, often among the `newest` records."""
    scope = viewer().scope
    if scope.names_others:  # the records are everybody's
        for event in newest.items:
            if event.action == "pull" and (query.parts or not event.parent):
                return LastPull(event.timestamp, event.actor, event.parent)
        if newest.next is None:
            return None
    return runtime().stores.events.find_last_pull(query, scope)


def _named_repository() -> tuple[str, str]:
    """Repository and registry of the query string."""
    visitor()
    name = request.args.get("repository", "")
    registry = request.args.get("registry", "") or runtime().settings.registries[0].name
    if not name:
        raise InvalidQuery("repository: is missing")
    return name, registry
