"""Tags that only pulls told of: of each digest under a tag, the first and the last sighting."""

from __future__ import annotations

from collections.abc import Sequence

from app.store.catalogue.history import History
from app.store.known import Known
from app.store.paging import Document

Under = tuple[str, str]  # key of a tag, digest
Span = tuple[str, str]  # positions of the first and the last


class Sightings:
    """Writes sightings into the history; used inside of the CatalogueWriter only."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: Known[Under, Span] = Known()

    def forget(self) -> None:
        """Read anew what another process may have written."""
        self._known.forget()

    def add(self, sightings: Sequence[Document]) -> set[Under]:
        """Keep sightings; returns those of which one of these is the first."""
        told: dict[Under, list[Document]] = {}
        for sighting in sorted(sightings, key=_position):
            told.setdefault((sighting["of"], sighting["digest"]), []).append(sighting)
        spans = self._find_spans(told)
        # The last ones before: where it breaks off then, what was the first is still on record.
        writes: dict[str, list[Document]] = {"last": [], "first": []}
        found: dict[Under, Span] = {}
        for under, some in told.items():
            known = spans.get(under, [])
            points = sorted([*known, *some], key=_position)
            first, last = points[0], points[-1]
            found[under] = first["position"], last["position"]
            kept = {"first": first}
            if last["position"] != first["position"]:
                kept["last"] = last
            stored = {row["_id"]: row["position"] for row in known}
            for end, row in kept.items():
                if stored.get(key := _id(under, end)) != row["position"]:
                    writes[end].append({**row, "_id": key})
        for of_one_end in writes.values():
            self._history.replace(of_one_end)
        for under, span in found.items():
            self._known.put(under, span)
        return {under for under, some in told.items() if found[under][0] == some[0]["position"]}

    def _find_spans(self, told: dict[Under, list[Document]]) -> dict[Under, list[Document]]:
        """What is stored of these: whole documents where the first of them may change."""
        spans: dict[Under, list[Document]] = {}
        unknown: list[Under] = []
        for under, some in told.items():
            known = self._known.get(under)
            if known is None or some[0]["position"] < known[0]:
                unknown.append(under)
                continue
            ends = zip(("first", "last"), known, strict=True)
            spans[under] = [{"_id": _id(under, end), "position": at} for end, at in ends]
        ids = [_id(under, end) for under in unknown for end in ("first", "last")]
        stored = self._history.find_by_id(ids)
        for under in unknown:
            ends_of = (stored.get(_id(under, end)) for end in ("first", "last"))
            spans[under] = [row for row in ends_of if row]
        return spans


def _id(under: Under, end: str) -> str:
    return f"{end} {under[0]} {under[1]}"


def _position(row: Document) -> str:
    return str(row["position"])
