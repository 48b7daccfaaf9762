"""`rns check --explain`: what the database makes of each of our queries.

It is advice: the values that were asked for are not shown, only fields.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
from tqdm import tqdm

from app.cli.readings import read_all, take_sample
from app.cli.shared import open_stores, print_rows
from app.settings import Settings
from app.store.explaining import MAX_TIME_MS, QueryListener, SentQuery
from app.store.query_plans import QueryPlan

FEW = 1000  # documents, of which no plan costs anything
MANY = 10  # times as many read as found: no index is for this query
COLUMNS = ["", "verdict", "ms", "collection", "asked by", "fields"]
EMBEDDED = (
    "the embedded database names no index for many queries that use one, and sorts all it finds:\n"
    "what it says of indexes is no reason to do anything"
)

Level = Literal["look", "not told", "ok"]


class Verdict(NamedTuple):
    """One query and its plan."""

    query: SentQuery
    plan: QueryPlan

    @property
    def level(self) -> Level:
        """Whether somebody should look at it."""
        plan = self.plan
        if plan.is_too_slow:
            return "look"
        if not plan.is_told:
            return "not told"
        if plan.refusal:
            return "look"
        if plan.read is not None and plan.read < FEW:
            return "ok"
        is_searched = plan.is_whole and bool(self.query.fields)
        return "look" if plan.is_sorted or is_searched or self._reads_much else "ok"

    @property
    def _reads_much(self) -> bool:
        read, returned = self.plan.read, self.plan.returned
        if self.query.is_counted or read is None or returned is None:
            return False
        return read > MANY * max(1, returned)

    @property
    def text(self) -> str:
        """The plan in words."""
        plan = self.plan
        words = [f"took longer than {MAX_TIME_MS // 1000} s"] if plan.is_too_slow else []
        words += [plan.refusal] if plan.refusal else []
        if not plan.is_told:
            return ", ".join(words) or "not told"
        words += ["whole collection"] if plan.is_whole else []
        words += [f"index {', '.join(plan.indexes)}"] if plan.indexes else []
        words += ["sorted in memory"] if plan.is_sorted else []
        if plan.read is not None:
            found = (
                "" if self.query.is_counted or plan.returned is None else f" for {plan.returned:,}"
            )
            words.append(f"read {plan.read:,}{found}")
        return ", ".join(words) or "nothing to read"

    def row(self) -> dict[str, Any]:
        """As it is printed, and as data."""
        query, plan = self.query, self.plan
        order = f"; by {', '.join(query.sort)}" if query.sort else ""
        return {
            "": {"look": "LOOK", "not told": "?", "ok": "ok"}[self.level],
            "asked by": query.method,
            "fields": (", ".join(query.fields) or "all") + order,
            "verdict": self.text,
            "collection": query.collection,
            "ms": plan.ms,
        }

    def data(self) -> dict[str, Any]:
        """All that is known, without the values that were asked for."""
        query, plan = self.query, self.plan
        return {
            "level": self.level,
            "collection": query.collection,
            "method": query.method,
            "fields": query.fields,
            "sort": query.sort,
            "counted": query.is_counted,
            "verdict": self.text,
            **msgspec.structs.asdict(plan),
        }


def explain_queries(settings: Settings, *, as_json: bool) -> None:
    """Print what the database makes of every query, the worst first.

    Raises:
        StoreUnavailable: it does not answer.
    """
    listener = QueryListener()
    stores = open_stores(settings, listener, only_looks=True)
    for problem in stores.find_state().index_problems:
        print(problem, file=sys.stderr if as_json else sys.stdout)
    sample = take_sample(stores)
    if sample is None:
        if not as_json:
            print("no events on record, so there is nothing to look at; rns demo makes some")
        return
    read_all(stores, settings, sample, datetime.now(UTC))
    queries = tqdm(listener.queries, unit="query", disable=None)
    verdicts = [Verdict(query, stores.explain(query)) for query in queries]
    verdicts.sort(key=_badness)
    if as_json:
        print_rows([verdict.data() for verdict in verdicts], [], as_json=True)
        return
    print_rows([verdict.row() for verdict in verdicts], COLUMNS, as_json=False)
    print(_summary(verdicts))
    if settings.is_embedded:
        print(EMBEDDED)


def _badness(verdict: Verdict) -> tuple[Any, ...]:
    """The worst first."""
    plan, query = verdict.plan, verdict.query
    surplus = (plan.read or 0) - (plan.returned or 0)
    level = ("look", "not told", "ok").index(verdict.level)
    kinds = (not plan.is_too_slow, not plan.is_sorted, not plan.is_whole)
    return level, *kinds, -surplus, -(plan.ms or 0), query.collection, query.method, query.fields


def _summary(verdicts: Iterable[Verdict]) -> str:
    plans = [verdict.plan for verdict in verdicts]
    told = [plan for plan in plans if plan.is_told]
    look = sum(verdict.level == "look" for verdict in verdicts)
    numbers = {
        "by index alone": sum(bool(p.indexes) and not p.is_whole and not p.is_sorted for p in told),
        "sorted in memory": sum(plan.is_sorted for plan in told),
        "of a whole collection": sum(plan.is_whole for plan in told),
        "too slow": sum(plan.is_too_slow for plan in plans),
        "not told": sum(not plan.is_told and not plan.is_too_slow for plan in plans),
    }
    counted = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return f"{len(plans)} queries: {counted}; {look} to LOOK at, which read {FEW:,} or more for it"
