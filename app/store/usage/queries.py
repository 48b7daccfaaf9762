"""What is asked of the figures, as queries of events, rows and sums."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec

from app.rules.usage import Row
from app.store.paging import all_of
from app.store.scope import Scope
from app.store.usage.documents import EVERYTHING, of_supplements

Image = tuple[str, str, str | None, str | None]  # registry, repository, tag, digest


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the figures; None leaves one out. `first` and `last` are days, both included.

    `client` may be several classes. `actor` "" is requests without account. What only supplements
    an image (app.rules.kinds) is left out but for `supplements`.
    """

    first: date
    last: date
    registry: str | None = None
    namespace: str | None = None
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    actor: str | None = None
    clients: frozenset[str] | None = None
    supplements: bool = False


# The top lists that name people, or from where and with what they came.
NAMES = ("accounts",)
PLACES = ("clients", "addresses")


class Usage(msgspec.Struct, frozen=True):
    """Rows of a period; `missing` are days that are not in them, as they are being prepared.

    Not for a person: rows name people whatever the scope.
    """

    rows: list[Row]
    missing: Sequence[date]


def asked(query: UsageQuery, scope: Scope) -> tuple[UsageQuery, Scope]:
    """What may be asked: of the account itself, where an answer would tell of other people.

    Figures of everybody together tell of nobody; those of one account tell what it does, those of
    a client class with what others pull.
    """
    is_about_places = query.clients is not None and not scope.locates_others
    is_about_names = query.actor is not None and not scope.may_name(query.actor)
    if not is_about_places and not is_about_names:
        return query, scope
    if scope.account and query.actor in (None, scope.account):
        return msgspec.structs.replace(query, actor=scope.account), scope
    return query, scope.nothing()


def hidden_lists(query: UsageQuery, scope: Scope) -> tuple[str, ...]:
    """The top lists that would tell of other people; `query` is one of `asked`."""
    if scope.account and query.actor == scope.account:
        return ()
    names = () if scope.names_others else NAMES
    return names if scope.locates_others else names + PLACES


def parts_of(query: UsageQuery, scope: Scope, digest: str = "digest") -> list[dict[str, Any]]:
    """Queries of events; of documents of rows, which have several digests, with `digest` so."""
    head = {digest: query.digest} if query.digest and not query.repository else {}
    parts = scope.within(query.repository or None)
    return [all_of(head, part, _wanted(query)) for part in parts]


def _wanted(query: UsageQuery) -> dict[str, Any]:
    wanted = {"registry": query.registry, "namespace": query.namespace}
    return {name: value for name, value in wanted.items() if value is not None}


def matches(row: Row, query: UsageQuery) -> bool:
    """Whether a row is wanted by what parts_of leaves open."""
    return (
        (query.tag is None or row.tag == query.tag)
        and (query.digest is None or row.digest == query.digest)
        and (query.actor is None or row.actor == query.actor)
        and (query.clients is None or row.client in query.clients)
        and (query.supplements or not row.is_supplement)
    )


def split(query: UsageQuery, scope: Scope) -> tuple[list[str], list[dict[str, Any]]]:
    """The sums that hold what `query` selects, and queries for the rows of what is in none."""
    if any((query.repository, query.tag, query.digest)):
        return [], parts_of(query, scope, "digests")
    cuts = [f" client {client}" for client in query.clients or ()]
    cuts += [] if query.actor is None else [f" account {query.actor}"]
    named: list[str] = []
    rest: list[dict[str, Any]] = []
    for part in scope.queries:
        if not part and query.namespace is None and len(cuts) < 2:
            named.append(EVERYTHING + "".join(cuts))
        elif not part and not cuts:
            named.append(f"namespace {query.namespace}")
        elif part.keys() == {"namespace"} and not cuts:
            of = part["namespace"]
            allowed = [of] if isinstance(of, str) else of["$in"]
            wanted = (name for name in allowed if query.namespace in (None, name))
            named += (f"namespace {name}" for name in wanted)
        else:
            rest.append(all_of(part, _wanted(query)))
    if query.supplements:
        named += [of_supplements(of) for of in named]
    return named, rest
