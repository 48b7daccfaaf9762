"""What the home page tells at a glance, each part of what the viewer may see.

All of it is read by a few bounded queries: see docs/pages.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from statistics import median

import msgspec
from flask import url_for
from flask_babel import gettext, ngettext
from flask_babel import lazy_gettext as _

from app.rules.events import Event
from app.rules.usage import DELETE, PULL, PUSH, Sums
from app.store.events import CONTENT, RecordQuery
from app.store.migrations import WORKED, PlanStatus
from app.store.usage import UsageQuery
from app.web import languages
from app.web.figures import Top, records_linker, top_repositories
from app.web.runtime import runtime
from app.web.signin import is_administrator, viewer
from app.web.texts import word

DAYS = 7  # before today: what is usual is their median
BUSIEST = 5
SILENT = timedelta(days=1)
WORDS = {PULL: _("Pulls today"), PUSH: _("Pushes today"), DELETE: _("Deletes today")}


class Today(msgspec.Struct, frozen=True):
    """How often something happened today so far, and on a usual day; None where none is known."""

    action: str
    name: str
    number: int
    usual: int | None
    url: str


class Heard(msgspec.Struct, frozen=True):
    """When something of a registry happened last; None if it never did."""

    registry: str
    at: datetime | None
    is_configured: bool = True


class Notice(msgspec.Struct, frozen=True):
    """Something that an administrator should look at, and the page that says more."""

    text: str
    url: str
    at: datetime | None = None


class Overview(msgspec.Struct, frozen=True):
    """What an account sees; `registries` and `notices` are empty but for administrators."""

    newest: Event | None
    today: Sequence[Today]
    busiest: Sequence[Top]
    busiest_link: Callable[..., str]
    registries: Sequence[Heard]
    notices: Sequence[Notice]


def find_overview() -> Overview:
    """What the account that asks may know."""
    stores, scope, now = runtime().stores, viewer().scope, datetime.now(UTC)
    today = stores.days.calendar.day_of(now)
    first = today - timedelta(days=DAYS)
    query = UsageQuery(first=first, last=today)
    sums = stores.usage.read_sums(query, scope, now, tops=("repositories",))
    newest = next(iter(stores.events.find_page(RecordQuery(), scope, limit=1).items), None)
    registries = _find_heard(newest, sums) if is_administrator() else []
    return Overview(
        newest=newest,
        today=_today(sums, today),
        busiest=top_repositories(sums)[:BUSIEST],
        busiest_link=records_linker({"kind": CONTENT}, first, today),
        registries=registries,
        notices=list(_find_notices(registries, now)) if is_administrator() else [],
    )


def _today(sums: Sums, today: date) -> list[Today]:
    """Days before the first event, and those that are being prepared, are not usual days."""
    first_known = runtime().stores.days.find_first_day() or today
    before = [today - timedelta(days=number) for number in range(1, DAYS + 1)]
    usual_days = [day for day in before if day >= first_known and day not in sums.missing]
    link = records_linker({"kind": CONTENT}, today, today)
    return [
        Today(
            action=action,
            name=str(name),
            number=sums.days.get(today, {}).get(action, 0),
            usual=round(median(sums.days.get(day, {}).get(action, 0) for day in usual_days))
            if usual_days
            else None,
            url=link(action),
        )
        for action, name in WORDS.items()
    ]


def _find_heard(newest: Event | None, sums: Sums) -> list[Heard]:
    """Every registry of the configuration, and others of which something happened lately.

    Events that a command stored have no sender.
    """
    stores = runtime().stores
    last = {newest.registry: newest.timestamp} if newest else {}
    for sender in stores.wiring.find_senders():
        last[sender.registry] = max(sender.at, last.get(sender.registry, sender.at))
    for name in {registry for registry, __ in sums.tops["repositories"]} - last.keys():
        if event := stores.events.find_newest_of(name):
            last[name] = event.timestamp
    configured = [row.name for row in runtime().settings.registries]
    others = sorted(last.keys() - set(configured))
    return [Heard(name, last.get(name)) for name in configured] + [
        Heard(name, last[name], is_configured=False) for name in others
    ]


def _find_notices(registries: Sequence[Heard], now: datetime) -> Iterator[Notice]:
    stores = runtime().stores
    wiring = url_for("wiring.home")
    others = ", ".join(heard.registry for heard in registries if not heard.is_configured)
    for heard in registries:
        if heard.at is None:
            yield Notice(_say_never(heard.registry, others), wiring)
        elif heard.is_configured and now - heard.at > SILENT:
            text = gettext("%(registry)s sent nothing lately, last", registry=heard.registry)
            yield Notice(text, wiring, heard.at)
    if refusals := stores.wiring.find_refusals():
        yield Notice(gettext("Notifications were refused, last"), wiring, refusals[0].at)
    if rejected := stores.rejected.count():
        text = ngettext(
            "%(number)s event was not understood",
            "%(number)s events were not understood",
            rejected,
            number=languages.number(rejected),
        )
        yield Notice(text, url_for("wiring.rejected"))
    yield from _find_differences()
    for plan in runtime().plans:
        status = stores.migrations.plans.get(plan.name)
        url = url_for("migration.plan", name=plan.name)
        if status.state in WORKED:
            yield Notice(_say_state(plan.name, status), url)
        if status.deletes_braked:
            text = gettext("Migration %(plan)s: deletes wait for a person", plan=plan.name)
            yield Notice(text, url)


def _say_never(registry: str, others: str) -> str:
    if not others:
        return gettext("%(registry)s never sent anything", registry=registry)
    return gettext(
        "%(registry)s never sent anything; what is on record is of %(others)s, not in the "
        "configuration",
        registry=registry,
        others=others,
    )


def _say_state(plan: str, status: PlanStatus) -> str:
    values = {"plan": plan, "state": word(status.state)}
    if status.is_worked_on:
        return gettext("Migration %(plan)s: %(state)s", **values)
    return gettext("Migration %(plan)s: %(state)s, stands still", **values)


def _find_differences() -> Iterator[Notice]:
    checks, url = runtime().stores.checks, url_for("registries.home")
    for registry in runtime().settings.registries:
        check = checks.get(registry.name)
        left = sum(check.differences.values()) - check.repaired if check else 0
        if left > 0:
            text = ngettext(
                "%(number)s tag differs between %(registry)s and what is on record",
                "%(number)s tags differ between %(registry)s and what is on record",
                left,
                number=languages.number(left),
                registry=registry.name,
            )
            yield Notice(text, url)
        if gaps := checks.find_open_gaps(registry.name):
            text = gettext(
                "Events of %(registry)s may be missing, of a time that ended",
                registry=registry.name,
            )
            yield Notice(text, url, gaps[0].ended)
