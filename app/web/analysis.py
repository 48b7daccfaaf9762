"""Analysis: figures over time, and who pushed and pulled what, when, from where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from flask import Blueprint, flash, redirect, render_template, request
from flask_babel import gettext
from werkzeug.datastructures import MultiDict

from app.analysis.recall import Consumer, Recall, recall_digest, recall_tag
from app.analysis.unused import Report, UnusedTag, find_unused
from app.errors import NotFound
from app.rules.events import Event
from app.store.catalogue import CatalogueQuery
from app.store.paging import Page
from app.store.usage import Newest, Proof
from app.web import lists
from app.web.commands import delete_commands
from app.web.dashboard import find_chart, find_week
from app.web.figures import find_figures, linker_before, new_tags_url, records_linker
from app.web.forms import (
    DashboardFilter,
    RecallFilter,
    RecordFilter,
    StorageFilter,
    UnusedFilter,
)
from app.web.forms.fields import DIGEST_START, whole_digest
from app.web.lists import Item, Listing, fields_of
from app.web.preferences import page_size
from app.web.runtime import runtime
from app.web.search import complete_digest, entry_page, results
from app.web.signin import viewer
from app.web.storage import find_held, held_chart, storage_listing, tags_link

bp = Blueprint("analysis", __name__, url_prefix="/analysis")

INTERNAL = ("references",)
MIN_BARE_DIGEST = 12  # hexadecimal digits that are no repository: what docker shows
CURVE = (3, 7, 14, 30, 60, 90, 180, 365)  # days


@bp.get("/")
def home() -> Any:
    """The dashboard."""
    viewer()
    form = DashboardFilter(request.args)
    today = runtime().stores.days.calendar.day_of(datetime.now(UTC))
    months = form.months(today)
    if not form.validate():
        return render_template("analysis/home.html", form=form, months=months, figures=None), 400
    figures = find_figures(form)
    return render_template(
        "analysis/home.html",
        form=form,
        months=months,
        figures=figures,
        chart=find_chart(form, figures),
        week=find_week(form, figures),
        today=today,
        kept_since=runtime().stores.days.find_kept_since(),
        period_start=runtime().stores.days.calendar.start_of(figures.first),
        link=records_linker(form.record_filters(), figures.first, figures.last),
        link_before=linker_before(form, figures),
        new_tags_url=new_tags_url(form, figures),
        has_events=any(figures.totals.values()) or _sees_anything(),
    )


def _sees_anything() -> bool:
    """Whether there is any repository, deleted or not, that the account may see."""
    every = CatalogueQuery(deleted=True)
    found = runtime().stores.catalogue.count("repository", every, viewer().scope, cap=1)
    return found.number > 0


@bp.get("/unused")
def unused() -> Any:
    """Tags that nobody used, with proof and the commands that delete them; changes nothing."""
    viewer()
    form = UnusedFilter(request.args)
    if not form.validate():
        return render_template("analysis/unused.html", form=form, page=None), 400
    report = find_report(form, () if lists.asks_for_file() else CURVE)
    fewer = _days_known(report, form.query().days)
    is_first_look = form.is_empty and not lists.asks_for_file()
    if is_first_look and fewer and not report.judged and not report.missing:
        asked = form.query().days
        text = gettext(
            "Judged by the whole days of use that are known so far: %(fewer)s, not %(asked)s.",
            fewer=fewer,
            asked=asked,
        )
        flash(text)
        return redirect(lists.url_with(days=str(fewer)))
    listing = unused_listing(form, report)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    return render_template(
        "analysis/unused.html",
        form=form,
        report=report,
        fewer_days=fewer,
        page=page,
        count=lists.total(listing, page),
        time_zone=runtime().settings.analysis.time_zone,
        commands=delete_commands(page.items),
        has_events=bool(page.items) or _sees_anything(),
    )


def _days_known(report: Report, asked: int) -> int:
    """For how many days tags can be judged now, of a registry that is too new for those asked."""
    calendar = runtime().stores.days.calendar
    today = calendar.day_of(datetime.now(UTC))
    first_days = (calendar.day_of(when) - timedelta(asked) for when in report.too_new.values())
    return max([0, *((today - day).days for day in first_days)])


def find_report(form: UnusedFilter, curve: Sequence[int] = ()) -> Report:
    """The unused tags that a valid form selects; `curve` see find_unused."""
    return find_unused(runtime().stores, viewer().scope, form.query(), datetime.now(UTC), curve)


# Of each: when, by whom, with what.
_PROOFS = {"used": "use", "pulled": "pull", "checked": "check"}
PROOFS = tuple(f"last_{name}_{what}" for name in _PROOFS for what in ("at", "by", "client"))


def unused_listing(form: UnusedFilter, report: Report | None = None) -> Listing:
    """The unused tags, each with the last use, pull and check of its tag or digest on record.

    Pulls and checks are those of any client: such that do not count too.
    """
    tags, query = (report or find_report(form)).tags, form.query()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        rows, more = lists.slice_of(tags, _tag_key, cursor, limit)
        names = {row.repository for row in rows}
        usage, now = runtime().stores.usage, datetime.now(UTC)
        newest = usage.find_newest(names, viewer().scope, now, query.is_use)
        return Page([_unused_item(row, newest) for row in rows], more)

    columns = (*UnusedTag.__struct_fields__, *PROOFS)
    return Listing("unused", columns, find, lambda cap: lists.count_of(tags, cap))


def _tag_key(row: UnusedTag) -> str:
    return f"{row.repository} {row.tag} {row.registry}"


def _unused_item(row: UnusedTag, newest: Mapping[tuple[str, str, str], Newest]) -> Item:
    keys = ((row.registry, row.repository, name) for name in (row.tag, row.digest))
    found = [newest[key] for key in keys if key in newest]
    item = fields_of(row)
    for name, field in _PROOFS.items():
        proofs: list[Proof] = [proof for one in found if (proof := getattr(one, field))]
        last = max(proofs, key=lambda proof: proof.last, default=None)
        item[f"last_{name}_at"] = last.last if last else None
        item[f"last_{name}_by"] = last.actor if last else None
        item[f"last_{name}_client"] = last.client if last else None
    return item


@bp.get("/storage")
def storage() -> Any:
    """What the tags of each namespace hold, and what of it came lately."""
    viewer()
    form = StorageFilter(request.args)
    if not form.validate():
        return render_template("analysis/storage.html", form=form, page=None), 400
    found = find_held(form)
    listing = storage_listing(form, found)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    return render_template(
        "analysis/storage.html",
        form=form,
        found=found,
        chart=held_chart(found),
        link=partial(tags_link, repository=form.repository.data or None),
        period_start=runtime().stores.days.calendar.start_of(found.first),
        page=page,
        count=lists.total(listing, page),
        time_zone=runtime().settings.analysis.time_zone,
    )


@bp.get("/recall")
def recall() -> Any:
    """Who pulled a digest, or what a tag pointed to for a time."""
    viewer()
    if image := request.args.get("image", "").strip():
        return redirect(lists.url_with(image=None, cursor=None, **_named_image(image)))
    form = RecallFilter(request.args)
    if form.is_empty and not request.args.get("format"):
        return render_template("analysis/recall.html", form=RecallFilter(MultiDict()), page=None)
    if not form.validate():
        return render_template("analysis/recall.html", form=form, page=None), 400
    found = find_recall(form)
    listing = recall_listing(form, found)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    return render_template(
        "analysis/recall.html",
        form=form,
        found=found,
        page=page,
        count=lists.total(listing, page),
        start=min((row.first for row in found.consumers), default=None),
        now=datetime.now(UTC),
    )


def _named_image(text: str) -> dict[str, Any]:
    """The filters that `repository:tag`, `repository@digest` or a digest or its beginning mean."""
    name, _, digest = text.rpartition("@")
    known = whole_digest(digest)
    if name or (DIGEST_START.fullmatch(digest) and len(digest) >= MIN_BARE_DIGEST):
        return {"digest": complete_digest(known), "repository": None, "tag": None}
    repository, _, tag = text.rpartition(":")
    return {"digest": None, "repository": repository or text, "tag": tag if repository else None}


def find_recall(form: RecallFilter) -> Recall:
    """What a valid form asks for."""
    stores, scope = runtime().stores, viewer().scope
    if form.digest.data:
        return recall_digest(stores, scope, form.digest.data, form.registry.data or None)
    registry = form.registry.data or runtime().settings.registries[0].name
    return recall_tag(
        stores,
        scope,
        registry,
        form.repository.data,
        form.tag.data,
        form.since.data,
        form.until.data,
    )


def recall_listing(form: RecallFilter, found: Recall | None = None) -> Listing:
    """Who has it, newest first."""
    rows = (found or find_recall(form)).consumers

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page, more = lists.slice_of(rows, _consumer_key, cursor, limit, newest_first=True)
        return Page([fields_of(row) for row in page], more)

    return Listing(
        "recall", Consumer.__struct_fields__, find, lambda cap: lists.count_of(rows, cap)
    )


def _consumer_key(row: Consumer) -> str:
    who = "\n".join((row.actor, row.address, row.client, row.repository, row.registry))
    return f"{row.last.isoformat()} {who}"


@bp.get("/user/")
def records_form() -> Any:
    """The way to the records: the list, or who has to sign in first."""
    return entry_page("analysis/records.html", RecordFilter(MultiDict()))


@bp.route("/user/login/", methods=["GET", "POST"])
def records() -> Any:
    """The records found, newest first."""
    return results("analysis/records.html", RecordFilter, record_listing)


def get_event(event_id: str) -> Event:
    """One event as the viewer may see it.

    Raises:
        NotFound: no such record, or none that may be seen.
    """
    found = runtime().stores.events.find(event_id, viewer().scope)
    if found is None:
        raise NotFound("There is no such record.")
    return found


def get_record(event_id: str) -> Item:
    """One record as the list has it; as get_event."""
    return fields_of(get_event(event_id), INTERNAL)


def record_listing(form: RecordFilter) -> Listing:
    """The records that a valid form selects."""
    events, scope, query = runtime().stores.events, viewer().scope, form.query()
    if query.digest:
        query = msgspec.structs.replace(query, digest=complete_digest(query.digest))

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = events.find_page(query, viewer().scope, cursor=cursor, limit=limit)
        return Page([fields_of(event, INTERNAL) for event in page.items], page.next)

    columns = [name for name in Event.__struct_fields__ if name not in INTERNAL]
    return Listing("records", columns, find, lambda cap: events.count(query, scope, cap=cap))
