"""The form of the summaries: rows, sums, and the keys of days and hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from app.rules.usage import TOPS, Row, Span, Sums
from app.store.paging import Document

# Lists within a document are bytes: the database need not know what is in them.
_ROWS: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
    list[tuple[str | None, str | None, str, str, str, str, int, datetime, int]]
)

MAX_ROWS = 5_000  # of one document: below 16 MB whatever the names
FORM = 3  # of the summaries; days that were summarised in another one are made anew
EVERYTHING = "everything"


def day_of(key: str) -> date:
    """The day of the key of a day or an hour."""
    return date.fromisoformat(key[:10])


def after(day: date) -> str:
    """What comes after the keys of a day and its hours."""
    return f"{day}U"


def sums_of(namespace: str, row: Row) -> tuple[str, ...]:
    """The sums that a row is in."""
    return (
        EVERYTHING,
        f"{EVERYTHING} client {row.client}",
        f"{EVERYTHING} account {row.actor}",
        f"namespace {namespace}",
    )


def row_documents(
    span: Span, run: str, rows: Mapping[tuple[str, str, str], Mapping[Any, Row]]
) -> Iterator[Document]:
    """The documents of a time's rows, which come by registry, namespace and repository."""
    for (registry, namespace, repository), found in sorted(rows.items()):
        listed = [list(row[3:]) for row in found.values()]
        for start in range(0, len(listed), MAX_ROWS):
            yield {
                "_id": f"{span.key} {registry} {repository} {start} {run}",
                "day": span.key,
                "run": run,
                "registry": registry,
                "namespace": namespace,
                "repository": repository,
                "digests": sorted({row[1] for row in listed[start : start + MAX_ROWS] if row[1]}),
                "rows": msgspec.msgpack.encode(listed[start : start + MAX_ROWS]),
            }


def sum_documents(span: Span, run: str, sums: Mapping[tuple[str, str], Sums]) -> Iterator[Document]:
    """The documents of a time's sums, which come by registry and by what sums_of names."""
    for (registry, of), found in sorted(sums.items()):
        lines = [
            # The registry is in the document.
            (name, [*(key[1:] if TOPS[name].with_registry else key), *numbers])
            for name, top in found.tops.items()
            for key, numbers in top.items()
        ]
        for start in range(0, max(1, len(lines)), MAX_ROWS):
            document: Document = {
                "_id": f"{span.key} {registry} {run} {start} {of}",
                "day": span.key,
                "run": run,
                "of": of,
                "registry": registry,
            }
            if start == 0:
                document["counts"] = found.counts
                document["hours"] = [[number, found.hours[number]] for number in found.hours]
                document["bytes"] = found.bytes_pushed
            chunk = lines[start : start + MAX_ROWS]
            for name in TOPS:
                found_here = [line for kind, line in chunk if kind == name]
                if found_here:
                    document[name] = msgspec.msgpack.encode(found_here)
            yield document


def rows_of(document: Document) -> Iterator[Row]:
    """The rows of one of row_documents."""
    day = day_of(document["day"])
    head = (day, document["registry"], document["repository"])
    for row in _ROWS.decode(document["rows"]):
        yield Row(*head, *row)


def add_document(sums: Sums, document: Document, tops: Sequence[str]) -> None:
    """Add one of sum_documents; of its lists only `tops`."""
    if "counts" in document:
        sums.count(day_of(document["day"]), document["counts"])
        sums.bytes_pushed += document["bytes"]
    for name in tops:
        head = (document["registry"],) if TOPS[name].with_registry else ()
        lines = msgspec.msgpack.decode(document[name]) if name in document else ()
        for *key, pulls, pushes in lines:
            sums.add_top(name, (*head, *key), pulls, pushes)
