"""The language of a page, and numbers and days in it.

What programs read is English, and no business of this module: the API, exports, metrics, commands.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache

from babel import Locale, dates, numbers
from flask import Flask, Response, has_request_context, request
from flask_babel import Babel, get_locale

from app.web import lists, texts
from app.web.preferences import LANGUAGES, preferred
from app.web.runtime import wants_json

ENGLISH = Locale("en")


def init_app(app: Flask) -> None:
    """Have pages speak the language of who reads them."""
    Babel(app, locale_selector=choose)
    app.jinja_env.globals.update(
        _=lambda text, /, **values: texts.speech().gettext(text, **values),
        gettext=lambda text, /, **values: texts.speech().gettext(text, **values),
        ngettext=lambda *forms, **values: texts.speech().ngettext(*forms, **values),
        pgettext=lambda *forms, **values: texts.speech().pgettext(*forms, **values),
    )
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    app.jinja_env.filters.update(number=number, day=day, word=texts.show, told=texts.told)
    app.jinja_env.globals.update(language=tag, weekdays=weekdays)


def choose() -> str:
    """The reader's choice, else the first language of the browser that there is, else English."""
    if not has_request_context() or wants_json() or lists.asks_for_file():
        return "en"
    chosen = preferred("language")
    return (chosen if chosen in LANGUAGES else _accepted()).replace("-", "_")


def _accepted() -> str:
    known = {name.partition("-")[0]: name for name in LANGUAGES}
    for name, quality in request.accept_languages:
        language = known.get(name.lower().replace("_", "-").partition("-")[0])
        if language and quality:
            return language
    return "en"


def current() -> Locale:
    """The language of this answer."""
    return get_locale() or ENGLISH


def tag() -> str:
    """The language of this answer as HTML names it."""
    return str(current()).replace("_", "-")


def name_language(response: Response) -> None:
    """Tell caches which language a page has, and upon what that depends."""
    if response.mimetype == "text/html":
        response.content_language.add(tag())
        response.vary.update(("Accept-Language", "Cookie"))


def number(value: float, pattern: str | None = None) -> str:
    """A number as the reader writes it; `pattern` of CLDR, as `0.0`."""
    return _number(str(current()), value, pattern)


@lru_cache(maxsize=10_000)
def _number(locale: str, value: float, pattern: str | None) -> str:
    return numbers.format_decimal(value, pattern, locale=locale)


def day(when: date | datetime) -> str:
    """Month and day, as an axis has them."""
    return dates.format_skeleton("MMMd", when, locale=current(), tzinfo=None)


def weekdays() -> list[str]:
    """The short names of the days, from Monday."""
    names = dates.get_day_names("abbreviated", locale=current())
    return [names[place] for place in range(7)]
