"""The form of the summaries: rows, sums, and the keys of days and hours."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from app.rules.sizes import add_sizes
from app.rules.usage import TOPS, Row, Span, Sums
from app.store.paging import Document
from app.store.usage.counting import Place


class _Line(msgspec.Struct, array_like=True):
    """What a Row has after day, registry and repository."""

    tag: str | None
    digest: str | None
    action: str
    actor: str
    client: str
    address: str
    number: int
    last: datetime
    bytes: int
    is_supplement: bool = False  # days whose events are removed may be without it


# Lists within a document are bytes: the database need not know what is in them.
_LINES = msgspec.msgpack.Decoder(list[_Line])

MAX_ROWS = 5_000  # of one document: below 16 MB whatever the names
FORM = 4  # of the summaries; days that were summarised in another one are made anew
EVERYTHING = "everything"


def day_of(key: str) -> date:
    """The day of the key of a day or an hour."""
    return date.fromisoformat(key[:10])


def after(day: date) -> str:
    """What comes after the keys of a day and its hours."""
    return f"{day}U"


def of_supplements(of: str) -> str:
    """The name of the sums of supplements beside the sums `of` all else."""
    return f"supplements of {of}"


def sums_of(namespace: str, row: Row) -> list[str]:
    """The sums that a row is in."""
    names = [
        EVERYTHING,
        f"{EVERYTHING} client {row.client}",
        f"{EVERYTHING} account {row.actor}",
        f"namespace {namespace}",
    ]
    return [of_supplements(of) for of in names] if row.is_supplement else names


def row_documents(
    span: Span, run: str, rows: Mapping[Place, Mapping[Any, Row]], heard: Container[Place]
) -> Iterator[Document]:
    """The documents of a time's rows; where something was `heard` there is one in any case."""
    for place, found in sorted(rows.items()):
        registry, namespace, repository = place
        listed = [list(row[3:]) for row in found.values()]
        for start in range(0, max(1, len(listed)), MAX_ROWS):
            yield {
                "_id": f"{span.key} {registry} {repository} {start} {run}",
                "day": span.key,
                "run": run,
                "registry": registry,
                "namespace": namespace,
                "repository": repository,
                "heard": place in heard,
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
    for line in _LINES.decode(document["rows"]):
        yield Row(*head, *msgspec.structs.astuple(line))


def add_document(sums: Sums, document: Document, tops: Sequence[str]) -> None:
    """Add one of sum_documents; of its lists only `tops`."""
    if "counts" in document:
        sums.count(day_of(document["day"]), document["counts"])
        sums.bytes_pushed = add_sizes((sums.bytes_pushed, document["bytes"]))
    for name in tops:
        head = (document["registry"],) if TOPS[name].with_registry else ()
        lines = msgspec.msgpack.decode(document[name]) if name in document else ()
        for *key, pulls, pushes in lines:
            sums.add_top(name, (*head, *key), pulls, pushes)
