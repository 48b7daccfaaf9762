"""Where a sharded cluster would send each command that the store sends.

Listens to all of them. The table of docs/scaling.md says which queries go to the shard that has the
answer, and which to all; what asks more, or is not in it, is a finding. WRITE_ROUTES=1 adds it
to the table instead. A write of one document has to name its shard key.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pymongo import monitoring

from app.store.explaining import find_method, leading_matches
from app.store.sharding import SHARD_KEYS

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
HEAD = "| Collection | Query | Goes to |\n| --- | --- | --- |\n"
ONE, ALL, EITHER = "targeted", "broadcast", "either, by its filter"

Query = Mapping[str, Any]
Asked = tuple[str, str]  # collection, method


class Command(NamedTuple):
    """What is asked of a collection: by which filter, and whether it writes one document."""

    query: Query
    is_single: bool = False


class Routes(monitoring.CommandListener):
    """What was sent since the last `take_findings`."""

    def __init__(self) -> None:
        self._is_writing = "WRITE_ROUTES" in os.environ
        self._meant = read_table(PAGE.read_text("utf-8"))
        self._seen: defaultdict[Asked, set[str]] = defaultdict(set)
        self._findings: list[str] = []

    def take_findings(self) -> list[str]:
        """What is not as it is meant to be."""
        found, self._findings = self._findings, []
        return found

    def end(self) -> None:
        """Add what was seen to the page, if that is wanted."""
        if self._is_writing:
            page = PAGE.read_text("utf-8")
            for asked, goes in read_table(page).items():
                self._seen[asked] |= {ONE, ALL} if goes == EITHER else {goes}
            PAGE.write_text(write_table(page, self._seen), "utf-8")

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Look at one command."""
        if event.database_name in ("admin", "config"):
            return
        commands = list(read_command(event.command_name, event.command))
        method = find_method() if commands else None
        if method is None:
            return
        collection = str(event.command[event.command_name])
        if collection not in SHARD_KEYS:
            return
        for command in commands:
            self._look(collection, method, command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing to see."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing to see."""

    def _look(self, collection: str, method: str, command: Command) -> None:
        key = SHARD_KEYS[collection]
        if command.is_single:
            if not all(is_equal(command.query.get(field)) for field in key):
                text = f"{method} writes one of {collection} without {list(key)}"
                self._findings.append(f"{text}: {command.query}")
            return
        goes = ONE if is_targeted(collection, command.query) else ALL
        self._seen[collection, method].add(goes)
        meant = self._meant.get((collection, method))
        if (meant is None or (meant, goes) == (ONE, ALL)) and not self._is_writing:
            text = f"{method} of {collection} is {goes}; docs/scaling.md: {meant}"
            self._findings.append(f"{text}: {command.query}")


def read_command(name: str, command: Query) -> Iterator[Command]:
    """What a command asks for; nothing where it is not about documents."""
    if name == "insert":
        yield from (Command(document, True) for document in command["documents"])
    elif name == "update":
        yield from (Command(flat(one["q"]), not one.get("multi")) for one in command["updates"])
    elif name == "delete":
        yield from (Command(flat(one["q"]), one["limit"] == 1) for one in command["deletes"])
    elif name == "findAndModify":
        yield Command(flat(command["query"]), True)
    elif name == "find":
        yield Command(flat(command.get("filter", {})))
    elif name in ("count", "distinct"):
        yield Command(flat(command.get("query", {})))
    elif name == "aggregate":
        yield Command(flat({"$and": leading_matches(command["pipeline"])}))


def flat(query: Query) -> dict[str, Any]:
    """A filter without $and."""
    found: dict[str, Any] = {}
    for field, value in query.items():
        for part in value if field == "$and" else [{field: value}]:
            found |= flat(part) if field == "$and" else part
    return found


def is_equal(value: Any) -> bool:
    """Whether a condition names one value."""
    is_operator = isinstance(value, Mapping) and any(name.startswith("$") for name in value)
    return value is not None and not is_operator and not isinstance(value, re.Pattern)


def is_targeted(collection: str, query: Query) -> bool:
    """Whether mongos knows which shards may have an answer.

    It does by the first field of the key: given one value, several, or, by range, both bounds.
    """
    field, order = next(iter(SHARD_KEYS[collection].items()))
    value = query.get(field)
    if is_equal(value) or (isinstance(value, Mapping) and "$in" in value):
        return True
    return order == 1 and isinstance(value, Mapping) and value.keys() >= {"$gte", "$lt"}


def read_table(page: str) -> dict[Asked, str]:
    """The queries of the table, and where they go."""
    rows = page.partition(HEAD)[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
    return {(collection, method): goes for collection, method, goes in cells}


def write_table(page: str, seen: Mapping[Asked, set[str]]) -> str:
    """The page with a table of what was seen."""
    before, head, rest = page.partition(HEAD)
    assert head
    rows = [
        f"| `{collection}` | `{method}` | {goes.pop() if len(goes) == 1 else EITHER} |"
        for (collection, method), goes in sorted((asked, set(goes)) for asked, goes in seen.items())
    ]
    after = rest.partition("\n\n")
    return f"{before}{head}" + "\n".join(rows) + "".join(after[1:])
