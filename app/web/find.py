"""The search box of the page head: repositories, tags, digests and accounts by one text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict

from app.errors import InvalidQuery
from app.store.catalogue import CatalogueQuery, Repository
from app.store.usage import UsageQuery
from app.web.contents import tag_items
from app.web.figures import RECENT_DAYS
from app.web.forms import TagFilter
from app.web.forms.fields import DIGEST_START, whole_digest
from app.web.lists import Item
from app.web.runtime import runtime
from app.web.search import find_digests
from app.web.signin import is_signed_in, viewer, visitor

bp = Blueprint("find", __name__, url_prefix="/search")

SHOWN = 10  # of each group


class Found(msgspec.Struct, frozen=True):
    """What a text finds, of each the first ten; `more` names the groups that have more."""

    repositories: list[Repository]
    tags: list[Item]
    digests: list[str]
    accounts: list[str]
    more: set[str]

    def only_url(self) -> str | None:
        """The page of what is found, if it is one thing."""
        if len(self.repositories + self.tags + self.digests + self.accounts) != 1:
            return None
        for row in self.repositories:
            return url_for("search.repository", repository=row.repository, registry=row.registry)
        for tag in self.tags:
            names = {name: tag[name] for name in ("repository", "tag", "registry")}
            return url_for("search.tag", **names)
        for digest in self.digests:
            return url_for("search.digest", digest=digest)
        return url_for("details.account", name=self.accounts[0])


@bp.get("/all")
def results() -> Any:
    """Everything that may be seen and has the text in its name: 200, 302 to it if it is one, 400.

    A text with a colon, as `app:1.*`, is one of tags; the beginning of a digest finds it.
    """
    visitor()
    text = request.args.get("q", "").strip()
    form = TagFilter(MultiDict({"q": text}))
    if not form.validate():
        raise InvalidQuery(f"q: {form.q.errors[0]}")
    found = _find(text) if text else None
    target = found.only_url() if found else None
    if target:
        return redirect(target)
    return render_template("search/all.html", text=text, found=found, is_of_tags=":" in text)


def _find(text: str) -> Found:
    catalogue, scope = runtime().stores.catalogue, visitor().scope
    is_digest = DIGEST_START.fullmatch(text.lower())
    is_of_tags = ":" in text
    tags = CatalogueQuery(q=text) if is_of_tags else CatalogueQuery(tag_pattern=text)
    tag_page = catalogue.find_tags(tags, scope, limit=SHOWN)
    repositories: list[Repository] = []
    more = {"tags"} if tag_page.next else set()
    if not is_of_tags:
        page = catalogue.find_repositories(CatalogueQuery(q=text), scope, limit=SHOWN)
        repositories = list(page.items)
        more |= {"repositories"} if page.next else set()
    digests = sorted(find_digests(whole_digest(text.lower()))) if is_digest else []
    accounts = [] if is_of_tags else _find_accounts(text)
    more |= {"digests"} if len(digests) > SHOWN else set()
    more |= {"accounts"} if len(accounts) > SHOWN else set()
    return Found(
        repositories, list(tag_items(tag_page).items), digests[:SHOWN], accounts[:SHOWN], more
    )


def _find_accounts(text: str) -> list[str]:
    """Accounts that pulled or pushed within 30 days, of those that may be named, by name."""
    if not is_signed_in():
        return []
    stores, now = runtime().stores, datetime.now(UTC)
    last = stores.days.calendar.day_of(now)
    query = UsageQuery(first=last - timedelta(days=RECENT_DAYS - 1), last=last, supplements=True)
    found = stores.usage.read_sums(query, viewer().scope, now, tops=("accounts",))
    names = (name for (name,) in found.tops["accounts"])
    return sorted(name for name in names if name and text.lower() in name.lower())
