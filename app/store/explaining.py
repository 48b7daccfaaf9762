"""What the store sends, listened to, and asked once more as `explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from traceback import walk_stack
from typing import Any

import msgspec
from pymongo import monitoring
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, OperationFailure

from app.store.paging import Document, Query
from app.store.query_plans import QueryPlan, read_plan

MAX_TIME_MS = 10_000  # of one explain, which carries the query out
READING = ("find", "aggregate", "count", "distinct")
# Of one command and one connection, or not known to explain.
NOT_EXPLAINED = {"lsid", "txnNumber", "readConcern", "maxTimeMS", "apiVersion"}
WRITING_STAGES = ("$out", "$merge")
COUNTING_STAGES = ("$group", "$count")

STORE = str(Path(__file__).parent)
# What is not ours, or asks for whole collections, and helpers: who called them asks.
NOT_OURS = {"accounts.py", "auth_config.py", "original.py"}
HELPERS = {"errors.py", "paging.py", "known.py", "documents.py", "explaining.py"}


class SentQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a method of the store asks of a collection: by which fields, in which order.

    `command` has the values of one time, the one that took longest; they are for nobody's eyes.
    """

    collection: str
    method: str
    fields: tuple[str, ...]
    sort: tuple[str, ...]
    is_counted: bool  # the documents are added up: few results tell nothing
    command: Document


class QueryListener(monitoring.CommandListener):
    """Remembers each kind of query once; for one client."""

    def __init__(self) -> None:
        self._open: dict[int, SentQuery] = {}
        self._found: dict[tuple[Any, ...], tuple[int, SentQuery]] = {}

    @property
    def queries(self) -> list[SentQuery]:
        """What was sent until now."""
        return [query for _, query in self._found.values()]

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Look at one command."""
        if event.command_name in READING and (method := find_method()):
            self._open[event.request_id] = _sent(event.command_name, event.command, method)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Remember it, or that it was slower than the one before."""
        self._end(event.request_id, event.duration_micros)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """As `succeeded`: it may have taken too long."""
        self._end(event.request_id, event.duration_micros)

    def _end(self, request: int, duration: int) -> None:
        query = self._open.pop(request, None)
        if query is None:
            return
        kind = (query.collection, query.method, query.fields, query.sort, query.is_counted)
        if kind not in self._found or self._found[kind][0] < duration:
            self._found[kind] = duration, query


def find_method() -> str | None:
    """The innermost public method of the store that is at work, but for NOT_OURS."""
    for frame, _ in walk_stack(sys._getframe(1)):
        code = frame.f_code
        file = Path(code.co_filename)
        if not code.co_filename.startswith(STORE) or file.name in HELPERS:
            continue
        if file.name in NOT_OURS:
            return None
        if not code.co_name.startswith(("_", "<")):
            return code.co_qualname.partition(".<locals>")[0]
    return None


def explain(database: Database[Document], query: SentQuery) -> QueryPlan:
    """How the database carries a query out; it is read once more for it, and nothing written."""
    if any(stage.keys() & WRITING_STAGES for stage in query.command.get("pipeline", ())):
        return QueryPlan()
    try:
        answer = database.command(
            "explain", query.command, verbosity="executionStats", maxTimeMS=MAX_TIME_MS
        )
    except ExecutionTimeout:
        return QueryPlan(is_too_slow=True)
    except OperationFailure as error:
        return QueryPlan(refusal=f"refused with code {error.code}")
    return read_plan(answer)


def _sent(name: str, command: Mapping[str, Any], method: str) -> SentQuery:
    kept = {
        key: value
        for key, value in command.items()
        if key not in NOT_EXPLAINED and not key.startswith("$")
    }
    pipeline = list(command.get("pipeline", ()))
    query = command.get("filter" if name == "find" else "query", {})
    conditions = leading_matches(pipeline) if name == "aggregate" else [query]
    sort = next((stage["$sort"] for stage in pipeline if "$sort" in stage), command.get("sort", {}))
    return SentQuery(
        collection=str(command[name]),
        method=method,
        fields=tuple(dict.fromkeys(_fields(conditions))),
        sort=tuple(sort),
        is_counted=name in ("count", "distinct")
        or any(stage.keys() & COUNTING_STAGES for stage in pipeline),
        command=kept,
    )


def leading_matches(pipeline: Iterable[Query]) -> list[Query]:
    """The conditions at the head of an aggregation, which mongod joins."""
    found = []
    for stage in pipeline:
        if "$match" not in stage:
            break
        found.append(stage["$match"])
    return found


def _fields(conditions: Iterable[Query]) -> Iterator[str]:
    """The names of the fields that conditions are about, never a value."""
    for condition in conditions:
        for field, value in condition.items():
            if field in ("$and", "$or", "$nor"):
                yield from _fields(value)
            elif not field.startswith("$"):
                yield field
