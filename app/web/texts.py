"""Texts that are not the pages' own: words for values, and what the rooms below say.

Those rooms speak English, to programs too. What they say is translated where a page shows it. The
catalogue has it from the lists in `app.web.sentences`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flask import g
from flask_babel import LazyString, get_locale, get_translations, gettext, lazy_gettext
from markupsafe import Markup

from app.web.sentences import SENTENCES

MAX_WORDS = 1000
_HOLE = re.compile(r"%\((\w+)\)s")
_AND_MORE = re.compile(r"(?P<names>.+) and (?P<number>\d+) more", re.DOTALL)


class Speech:
    """The texts of a template in one language; a page asks some hundred times."""

    def __init__(self, translations: Any) -> None:
        self._translations = translations
        self._plain: dict[str, Markup] = {}
        self._words: dict[str, str] = {}

    def gettext(self, text: str, /, **values: Any) -> Markup:
        """A text of the catalogue; what is put into it is escaped."""
        if values:
            return _markup(self._translations.ugettext(text)) % values
        if text not in self._plain:
            self._plain[text] = _markup(self._translations.ugettext(text) % ())
        return self._plain[text]

    def say(self, text: str, **values: Any) -> str:
        """As `gettext`, as plain text."""
        return str(self._translations.ugettext(text) % values)

    def show(self, value: str) -> str:
        """A value; there are few, and what is remembered is bounded by `MAX_WORDS`."""
        if value not in self._words:
            if len(self._words) >= MAX_WORDS:
                self._words.clear()
            self._words[value] = self._translations.ugettext(value)
        return self._words[value]

    def ngettext(self, one: str, many: str, count: int, /, **values: Any) -> Markup:
        """The form for a number, which is in it as what is given as one."""
        return _markup(self._translations.ungettext(one, many, count)) % values

    def pgettext(self, context: str, text: str, /, **values: Any) -> Markup:
        """A text that means something else elsewhere."""
        return _markup(self._translations.upgettext(context, text)) % values


def _markup(text: str) -> Markup:
    """A text of a catalogue, or of a template: nobody else's."""
    return Markup(text)  # noqa: S704


def speech() -> Speech:
    """That of the page; Flask-Babel's own takes as long for the texts as all else of a list."""
    try:
        found: Speech = g.speech
    except AttributeError:
        found = g.speech = _speech_of(str(get_locale()))
    except RuntimeError:  # outside of a request
        found = _speech_of("")
    return found


@lru_cache(maxsize=8)
def _speech_of(locale: str) -> Speech:
    """`locale` is that of the request."""
    return Speech(get_translations())


def word(value: str) -> LazyString:
    """A value of the API as a page names it."""
    return lazy_gettext(value)


def show(value: str) -> str:
    """A value of the API as a page shows it; text, which may be anything."""
    return speech().show(value) if value else ""


def told(text: object) -> str:
    """What a room below says, in the language of the page; as it is where no list has it."""
    locale = get_locale()
    if not text or locale is None or locale.language == "en":
        return str(text or "")
    return _translate(str(locale), str(text))


@lru_cache(maxsize=2000)
def _translate(locale: str, text: str) -> str:
    """`locale` is that of the request: what is remembered is told apart by it."""
    found = gettext(text)
    if found != text:
        return found
    for sentence, pattern in _patterns():
        if match := pattern.fullmatch(text):
            parts = {
                name: _PARTS[name](locale, part) if name in _PARTS else part
                for name, part in match.groupdict().items()
            }
            return gettext(sentence, **parts)
    return text


def _translate_state(locale: str, text: str) -> str:
    return _translate(locale, text.replace("_", " "))


def _translate_found(locale: str, text: str) -> str:
    """What a verification found: `2 broken blob, 1 missing: team/app:v1 and 2 more`."""
    numbers, colon, names = text.partition(": ")
    counted = [part.partition(" ") for part in numbers.split(", ")]
    kinds = ", ".join(
        gettext("%(number)s %(what)s", number=number, what=_translate(locale, kind))
        for number, _, kind in counted
    )
    if not colon:
        return kinds
    return gettext("%(name)s: %(text)s", name=kinds, text=_translate_names(locale, names))


def _translate_names(locale: str, text: str) -> str:
    """Names, the first few of many: `team/app, team/web and 2 more`."""
    match = _AND_MORE.fullmatch(text)
    return gettext("%(names)s and %(number)s more", **match.groupdict()) if match else text


# By the name of a hole: what stands there is put into the other language, too.
_PARTS: dict[str, Callable[[str, str], str]] = {
    "text": _translate,
    "what": _translate_state,
    "found": _translate_found,
    "names": _translate_names,
}


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """The sentences with holes, those with the most words first: they say the most."""
    with_holes = [text for text in SENTENCES if _HOLE.search(text)]
    with_holes.sort(key=lambda text: -len(_HOLE.sub("", text)))
    return [(text, re.compile(_pattern(text), re.DOTALL)) for text in with_holes]


def _pattern(sentence: str) -> str:
    pieces = _HOLE.split(sentence)
    return "".join(
        f"(?P<{piece}>.+?)" if place % 2 else re.escape(piece.replace("%%", "%"))
        for place, piece in enumerate(pieces)
    )
