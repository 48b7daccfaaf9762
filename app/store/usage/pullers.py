"""What happened to one repository, tag or digest, and who pulled it."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple

from app.rules.usage import CHECK, PULL, PULL_PART, Row, Sums
from app.store.scope import Scope

Who = tuple[str, str, str]  # account, client class, address; "" of the latter where not shown


class Proof(NamedTuple):
    """When something was pulled or checked, by whom, with what; None where that is not shown."""

    last: datetime
    actor: str | None
    client: str | None


class Puller(NamedTuple):
    """How often one client pulled and checked something, and when last."""

    pulls: int
    checks: int
    last: datetime


class Use:
    """Rows added up as one viewer may see them.

    `pullers` are who pulled or checked, without those whom the viewer may not know; the others
    are one for each account where it is not shown from where and with what. `last_pulls` has the
    newest pull of each tag, `tag_days` the pulls of each by day. With `parts` a platform that was
    pulled with its index was pulled.
    """

    def __init__(self, scope: Scope, *, parts: bool) -> None:
        self.sums = Sums()
        self.pullers: dict[Who, Puller] = {}
        self.last_pulls: dict[str, Proof] = {}
        self.tag_days: dict[str, dict[date, int]] = {}
        self._scope = scope
        self._pulls = {PULL, PULL_PART} if parts else {PULL}

    def add(self, row: Row) -> None:
        """Add one row."""
        self.sums.add(row)
        is_pull = row.action in self._pulls
        if is_pull and row.tag:
            self._note_pull(row.tag, row)
        if (is_pull or row.action == CHECK) and self._scope.may_name(row.actor):
            is_located = self._scope.may_locate(row.actor)
            who = (row.actor, *((row.client, row.address) if is_located else ("", "")))
            before = self.pullers.get(who, Puller(0, 0, row.last))
            self.pullers[who] = Puller(
                before.pulls + (row.number if is_pull else 0),
                before.checks + (0 if is_pull else row.number),
                max(before.last, row.last),
            )

    def _note_pull(self, tag: str, row: Row) -> None:
        days = self.tag_days.setdefault(tag, {})
        days[row.day] = days.get(row.day, 0) + row.number
        before = self.last_pulls.get(tag)
        if before is None or row.last > before.last:
            self.last_pulls[tag] = proof_of(row, self._scope)


def proof_of(row: Row, scope: Scope) -> Proof:
    """The newest of what a row tells, as the viewer may see it."""
    return Proof(
        row.last,
        row.actor if scope.may_name(row.actor) else None,
        row.client if scope.may_locate(row.actor) else None,
    )
