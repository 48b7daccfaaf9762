"""What is asked of the catalogue, as queries on indexed fields."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import msgspec

from app.store.paging import all_of
from app.store.scope import Scope

Kind = Literal["repository", "tag"]


class CatalogueQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the repository and tag lists; None, and "" of a text, leave a filter out.

    `q` and `tag_pattern` are patterns: `^begin`, a glob with `*` or `?`, else a substring.
    For tags, `q` may be `repository:tag` with a pattern on both sides.
    """

    q: str | None = None
    registry: str | None = None
    repository: str | None = None
    tag: str | None = None
    tag_pattern: str | None = None
    digest: str | None = None  # tags only: a digest or the beginning of one
    namespace: str | None = None  # "" is that of names without a slash
    since: datetime | None = None  # tags only: first pushed at or after, and before `until`
    until: datetime | None = None
    sort: Literal["name", "pushed"] = "name"
    deleted: bool = False  # also what was deleted


def queries_of(kind: Kind, query: CatalogueQuery, scope: Scope) -> list[dict[str, Any]]:
    """Disjoint queries for the rows of one kind that `query` selects within the scope."""
    wanted: dict[str, Any] = {}
    if query.registry:
        wanted["registry"] = query.registry
    if query.namespace is not None:
        wanted["namespace"] = query.namespace
    if query.since or query.until:
        bounds = {"$gte": query.since, "$lt": query.until}
        wanted["first_pushed_at"] = {key: value for key, value in bounds.items() if value}
    if not query.deleted:
        wanted["deleted"] = False
    patterns: list[dict[str, Any]] = []
    name, _, tag = (query.q or "").partition(":") if kind == "tag" else (query.q or "", "", "")
    for field, pattern in (("repository", name), ("tag", tag), ("tag", query.tag_pattern)):
        if pattern:
            patterns.append(_matches(field, pattern))
    if query.tag:
        patterns.append({"tag": query.tag})
    if query.digest:
        patterns.append({"digest": _begins_with(query.digest)})
    return [all_of(part, wanted, *patterns) for part in scope.within(query.repository or None)]


def _matches(field: str, pattern: str) -> dict[str, Any]:
    """`^begin`, a glob with `*` or `?` (both cross `/`), or a substring. Names are lower case."""
    text = pattern.lower() if field == "repository" else pattern
    if text.startswith("^"):
        return {field: _begins_with(text[1:])}
    if "*" in text or "?" in text:
        return {field: {"$regex": glob_expression(text)}}
    return {field: {"$regex": re.escape(text)}}


def glob_expression(text: str) -> str:
    """A glob as a regular expression that takes linear time for each star.

    What stands between two stars is taken where it comes first (an atomic group), never again
    elsewhere: another place leaves less for the rest.
    """
    first, *rest = (re.escape(part).replace(r"\?", ".") for part in text.split("*"))
    if not rest:
        return f"^{first}$"
    between = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return f"^{first}{between}.*{rest[-1]}$"


def _begins_with(text: str) -> dict[str, str]:
    return {"$gte": text, "$lt": f"{text}\U0010ffff"}
