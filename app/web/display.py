"""How values look on a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import humanize
from flask import Flask, Response
from flask_babel import gettext, ngettext
from markupsafe import Markup, escape

from app.store.events import address_key
from app.store.paging import Count
from app.version import VERSION
from app.web import languages, lists, preferences
from app.web.charts import change
from app.web.choices import choices
from app.web.runtime import find_up_to
from app.web.sentences import _
from app.web.signin import account_name, is_administrator, is_visitor, shown_of_others
from app.web.texts import speech

AHEAD_S = 60  # a registry's clock may be ahead by so much
_DAY_S = 86_400
# The least number from which on each is used: with 2 there is no singular.
_UNITS = (
    (365 * _DAY_S, _("%(number)s years ago"), 2),
    (30 * _DAY_S, _("%(number)s months ago"), 2),
    (_DAY_S, _("%(number)s days ago"), 2),
    (3600, _("%(number)s h ago"), 1),
    (60, _("%(number)s min ago"), 1),
)


def init_app(app: Flask) -> None:
    """Give templates their filters and the names every page needs."""
    app.jinja_env.filters.update(
        moment=moment,
        age=age,
        ago=ago,
        duration=duration,
        size=size,
        short=short_digest,
        bars=bars,
        change=change,
        last_day=last_day,
        shifted=shifted,
        share=share,
        total=total,
    )
    app.jinja_env.tests["ip"] = lambda address: address_key(address) is not None
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.context_processor(_page_names)
    icon = Path(app.static_folder or "", "icon.svg").read_bytes()
    app.add_url_rule("/favicon.ico", "favicon", lambda: Response(icon, mimetype="image/svg+xml"))


def _page_names() -> dict[str, Any]:
    return {
        "account_name": account_name,
        "choices": choices,
        "find_up_to": find_up_to,
        "following_url": lists.following_url,
        "is_administrator": is_administrator,
        "is_visitor": is_visitor,
        "page_url": lists.page_url,
        "shown_of_others": shown_of_others,
        "preferred": preferences.preferred,
        "preferences": preferences.PREFERENCES,
        "previous_url": lists.previous_url,
        "same_query": lists.same_query,
        "url_with": lists.url_with,
        "version": VERSION,
    }


_NO_TIME = Markup('<span class="text-body-secondary">–</span>')


def moment(when: datetime | None) -> Markup:
    """A time to the second with its zone; machine-readable, with the age as a tooltip."""
    if when is None:
        return _NO_TIME
    iso, text = _written(when)
    return _time(iso, escape(ago(when)), text)


def age(when: datetime | None, *, exact: bool = True) -> Markup:
    """How long ago, with the time as a tooltip, and, if `exact`, beside it where there is room."""
    if when is None:
        return _NO_TIME
    iso, text = _written(when)
    beside = f' <span class="exact">{text}</span>' if exact else ""
    return _time(iso, text, f"{escape(ago(when))}{beside}")


def _written(when: datetime) -> tuple[str, str]:
    """A time for programs, and for people."""
    iso = when.astimezone(UTC).isoformat()
    return iso.replace("+00:00", "Z"), f"{iso[:10]} {iso[11:19]} UTC"


def _time(iso: str, title: str, content: str) -> Markup:
    """All of them are escaped: Markup.format would take as long as the rest of a row."""
    return Markup(f'<time datetime="{iso}" title="{title}">{content}</time>')  # noqa: S704


def ago(when: datetime) -> str:
    """How long ago, rounded down, as `3 h ago`."""
    seconds = int((datetime.now(UTC) - when).total_seconds())
    if seconds <= -AHEAD_S:
        return gettext("in the future")
    for unit_s, text, least in _UNITS:
        number = seconds // unit_s
        if number >= least:
            return speech().say(text, number=number)
    return speech().say(_("just now"))


def shifted(when: datetime, seconds: int) -> str:
    """A time so much later, as the address of a page has it."""
    moment = when.astimezone(UTC) + timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


def share(when: datetime, start: datetime, end: datetime) -> float:
    """Where a time lies between two others, in hundredths of the way."""
    return round(100 * (when - start) / max(end - start, timedelta(seconds=1)), 1)


def duration(seconds: float) -> str:
    """A length of time in words, to about one part in ten."""
    minutes = round(seconds / 60)
    if seconds < 10:
        return gettext("%(number)s s", number=languages.number(seconds, "0.0"))
    if seconds < 120:
        return gettext("%(number)s s", number=round(seconds))
    if minutes < 120:
        return gettext("%(number)s min", number=minutes)
    hours = round(seconds / 3600)
    if hours < 72:
        return gettext("%(number)s h", number=hours)
    return gettext("%(number)s days", number=languages.number(round(hours / 24)))


def size(number: int | None) -> str:
    """Bytes in decimal units, as registries show them."""
    if number is None:
        return "–"
    return "1 B" if number == 1 else humanize.naturalsize(number).replace(" Bytes", " B")


def bars(numbers: Sequence[int], height: int = 20) -> str:
    """The path of an SVG with a bar for each number, 3 wide, the highest `height` high."""
    top = max([1, *numbers])
    return " ".join(
        f"M{3 * place + 1} {height}V{height - max(1.5, height * number / top):.1f}"
        for place, number in enumerate(numbers)
        if number
    )


def last_day(numbers: Sequence[int]) -> str:
    """How long ago something happened last, of the numbers of days that end with today."""
    ago = next((place for place, number in enumerate(reversed(numbers)) if number), None)
    words = {None: "–", 0: gettext("today"), 1: gettext("yesterday")}
    return words.get(ago) or gettext("%(number)s days ago", number=ago)


def short_digest(digest: str | None) -> str:
    """The first 12 hexadecimal digits, as docker shows them."""
    return digest.partition(":")[2][:12] if digest else ""


_NUMBERED: dict[str, Callable[[int, str], str]] = {
    "consumers": lambda number, text: ngettext(
        "%(number)s consumer", "%(number)s consumers", number, number=text
    ),
    "differences": lambda number, text: ngettext(
        "%(number)s difference", "%(number)s differences", number, number=text
    ),
    "jobs": lambda number, text: ngettext("%(number)s job", "%(number)s jobs", number, number=text),
    "namespaces": lambda number, text: ngettext(
        "%(number)s namespace", "%(number)s namespaces", number, number=text
    ),
    "records": lambda number, text: ngettext(
        "%(number)s record", "%(number)s records", number, number=text
    ),
    "rejected events": lambda number, text: ngettext(
        "%(number)s rejected event", "%(number)s rejected events", number, number=text
    ),
    "repositories": lambda number, text: ngettext(
        "%(number)s repository", "%(number)s repositories", number, number=text
    ),
    "sign-ins": lambda number, text: ngettext(
        "%(number)s sign-in", "%(number)s sign-ins", number, number=text
    ),
    "tags": lambda number, text: ngettext("%(number)s tag", "%(number)s tags", number, number=text),
}


def total(count: Count, noun: str) -> str:
    """A count and what is counted; `more than` where counting stopped."""
    text = _NUMBERED[noun](count.number, languages.number(count.number))
    return gettext("more than %(what)s", what=text) if count.at_least else text
