"""What an account may see, as queries: every query for a person takes a Scope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pymongo.collection import Collection

from app.rules.access import Rule
from app.rules.references import namespace_of
from app.store.paging import Document, all_of, chunks

FEW = 10  # values for which more queries cost less than one

# What is shown of other people: everything; all but from where and with what; only how often.
Records = Literal["all", "without_addresses", "own"]


class Scope:
    """The repositories that one request may see, and what of other people.

    `queries` are disjoint conditions on `namespace` or `repository`: none at all means nothing is
    visible, `{}` that everything is. `may_see` answers for one name without asking the database.
    `account` is who asks; "" does not own any record.
    """

    def __init__(
        self,
        rule: Rule,
        queries: list[dict[str, Any]],
        account: str = "",
        records: Records = "all",
    ) -> None:
        self._rule = rule
        self.queries = queries
        self.account = account
        self.records = records

    @property
    def names_others(self) -> bool:
        """Whether it is told which other account did something."""
        return self.records != "own"

    @property
    def locates_others(self) -> bool:
        """Whether it is told from which address, and with which client, others did something."""
        return self.records == "all"

    def may_name(self, actor: str) -> bool:
        """Whether it is told that this actor did something."""
        return self.names_others or self._is_own(actor)

    def may_locate(self, actor: str) -> bool:
        """Whether it is told from where, and with what, this actor did something."""
        return self.locates_others or self._is_own(actor)

    def _is_own(self, actor: str) -> bool:
        return bool(self.account) and actor == self.account

    def may_see(self, repository: str) -> bool:
        """Whether the account may see (docker_auth: pull) this repository."""
        return self._rule.may_pull(repository)

    def within(self, repository: str | None) -> list[dict[str, Any]]:
        """`queries`, narrowed to one repository when one is given."""
        if repository is None:
            return self.queries
        return [{"repository": repository}] if self.may_see(repository) else []

    def near(self, repositories: Iterable[str]) -> Scope:
        """What it has of the namespaces of some repositories, or of these; for their figures."""
        names = set(repositories)
        namespaces = {namespace_of(name) for name in names}
        queries: list[dict[str, Any]] = []
        for part in self.queries:
            if not part:
                few = len(namespaces) <= FEW
                queries += _any_of("namespace", namespaces) if few else [{}]
                continue
            [(field, value)] = part.items()
            allowed = {value} if isinstance(value, str) else set(value["$in"])
            queries += _any_of(field, allowed & (namespaces if field == "namespace" else names))
        return Scope(self._rule, queries, self.account, self.records)

    def records_within(
        self, repository: str | None, *, by_client: bool = False
    ) -> list[dict[str, Any]]:
        """`within` for the records themselves; `by_client`: address or client select among them.

        The account's own where those of others are not shown, or would be found by what is hidden.
        """
        parts = self.within(repository)
        if self.locates_others or (self.names_others and not by_client):
            return parts
        return [all_of({"actor": self.account}, part) for part in parts] if self.account else []

    def nothing(self) -> Scope:
        """A scope that shows nothing."""
        return Scope(Rule([]), [])


def find_scope(
    repositories: Collection[Document], rule: Rule, account: str = "", records: Records = "all"
) -> Scope:
    """Turn a rule into queries, exactly; `records` is what `account` sees of other people.

    The usual rules (everything, `team/*`, own namespace, single names) become conditions on
    indexed fields; any other is answered name by name over the known repositories.
    """
    shape = rule.shape
    if shape is None:
        names = {name for prefix in rule.prefixes for name in _find_names(repositories, prefix)}
        allowed = {name for name in names if rule.may_pull(name)}
        return Scope(rule, _any_of("repository", allowed), account, records)
    if shape.everything:
        return Scope(rule, [{}], account, records)
    namespaces = set(shape.namespaces)
    for parent in shape.parents:
        namespaces |= set(_find_namespaces(repositories, parent))
    single = {name for name in shape.repositories if namespace_of(name) not in namespaces}
    queries = _any_of("namespace", namespaces) + _any_of("repository", single)
    return Scope(rule, queries, account, records)


def _find_namespaces(repositories: Collection[Document], parent: str) -> Iterable[str]:
    """Those of `parent` and the namespaces below it that are known."""
    query = {"namespace": {"$gte": parent, "$lt": f"{parent}0"}}
    for row in repositories.find(query, {"namespace": 1, "_id": 0}):
        if row["namespace"] == parent or row["namespace"].startswith(f"{parent}/"):
            yield row["namespace"]


def _find_names(repositories: Collection[Document], prefix: str) -> Iterable[str]:
    """The known repositories that begin with `prefix`."""
    query = {"repository": _begins_with(prefix)} if prefix else {}
    return (row["repository"] for row in repositories.find(query, {"repository": 1, "_id": 0}))


def _begins_with(prefix: str) -> dict[str, str]:
    return {"$gte": prefix, "$lt": f"{prefix[:-1]}{chr(ord(prefix[-1]) + 1)}"}


def _any_of(field: str, values: set[str]) -> list[dict[str, Any]]:
    """Queries for any of the values: one for each of a few, as the embedded database reads all that
    an `$in` names, whatever else is asked for.
    """
    if len(values) <= FEW:
        return [{field: value} for value in sorted(values)]
    return [{field: {"$in": chunk}} for chunk in chunks(sorted(values))]
