"""How pages look to this browser: language, theme, the zone of times, the rows of a list.

Each is a cookie with one of a few words. None says anything of an account, so none needs a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
from flask import Blueprint, redirect, request, url_for
from flask_babel import LazyString
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from app.errors import InvalidQuery
from app.web.signin import local_path

bp = Blueprint("preferences", __name__)

KEPT_S = 365 * 24 * 3600


LANGUAGES = {"en": "English", "zh-Hans": "简体中文"}


class Preference(msgspec.Struct, frozen=True):
    """What can be chosen; `choices` are the labels by value, the first of them the default."""

    label: LazyString
    choices: Mapping[str, LazyString | str]


PREFERENCES = {
    "language": Preference(_("Language"), {"auto": _("Auto"), **LANGUAGES}),
    "theme": Preference(_("Theme"), {"auto": _("Auto"), "light": _("Light"), "dark": _("Dark")}),
    "times": Preference(_("Times"), {"local": _("My zone"), "utc": "UTC"}),
    "rows": Preference(_("Rows"), {"50": "50", "100": "100", "200": "200"}),
}


def preferred(name: str) -> str:
    """What this browser chose, or the default."""
    choices: Sequence[str] = list(PREFERENCES[name].choices)
    given = request.cookies.get(name, "")
    return given if given in choices else choices[0]


def page_size() -> int:
    """The rows of a page of a list."""
    return int(preferred("rows"))


@bp.post("/preferences")
def choose() -> Response:
    """Remember a choice: 303 back to the page it was made on, 400."""
    chosen = {key: request.form[key] for key in PREFERENCES if key in request.form}
    if len(chosen) != 1:
        raise InvalidQuery(f"expected one of {', '.join(PREFERENCES)}")
    ((name, value),) = chosen.items()
    if value not in PREFERENCES[name].choices:
        raise InvalidQuery(f"{name}: expected one of {', '.join(PREFERENCES[name].choices)}")
    response = redirect(_page_before() or url_for("search.home"), 303)
    response.set_cookie(
        name,
        value,
        max_age=KEPT_S,
        path=request.script_root or "/",
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )
    return response


def _page_before() -> str | None:
    """The page of this server that the choice was made on."""
    before = urlsplit(request.referrer or "")
    if before.netloc != request.host:
        return None
    return local_path(before._replace(scheme="", netloc="", fragment="").geturl())
