"""The schema of a database: its number, and the steps from each to the next.

A step is added to STEPS where what is stored takes another form that this program would not read
as it was meant. Events are only taken into the inbox meanwhile. A step must be harmless to repeat
from any place that it told: whoever carries it out may be killed at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from pymongo.database import Database

from app.errors import StartupError
from app.store.errors import translate_errors
from app.store.paging import Document
from app.store.version_0_1 import Bulk, Place, bring_forward_0_1, count_0_1
from app.version import VERSION

KEY = {"_id": "schema"}


class Step(NamedTuple):
    """What brings a database to schema `number`, from the one before.

    `run` begins behind the place that it is given and tells of each bulk. Where a step `derives`,
    everything that follows from events is then derived anew. `count` says about how many documents
    all that is.
    """

    number: int
    what: str
    run: Callable[[Database[Document], Place | None], Iterator[Bulk]]
    count: Callable[[Database[Document]], int]
    derives: bool


class Progress(NamedTuple):
    """How many of about how many documents of a step are done, and what goes on where.

    `place` is where the step goes on; once `derived_until` is set, from there on all is derived.
    """

    done: int = 0
    total: int = 0
    place: Place | None = None
    derived_until: datetime | None = None

    def __str__(self) -> str:
        return f"{self.done:,} of about {self.total:,} documents are done"


# 1 is what version 0.1 left: it kept no number.
STEPS = (
    Step(
        2,
        "the catalogue, manifests and events of version 0.1 take their present form",
        bring_forward_0_1,
        count_0_1,
        derives=True,
    ),
)
NEWEST = STEPS[-1].number


@translate_errors
class SchemaStore:
    """Collection `schema`: the number, the step that was begun, and how far that is.

    And how many projectors there are.
    """

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._collection = database["schema"]
        self._is_reached = False

    def find(self) -> int:
        """The schema of this database."""
        return self._number_of(self._row())

    def _row(self) -> Document:
        return self._collection.find_one(KEY) or {}

    def _number_of(self, row: Document) -> int:
        return int(row["number"]) if row else self._find_unnumbered()

    def _find_unnumbered(self) -> int:
        """Whatever else happened in 0.1, it made a row of the catalogue."""
        return 1 if self._database["catalogue"].find_one({}, {"_id": 1}) else NEWEST

    def check(self) -> int:
        """The schema of this database, which this program may write to.

        Raises:
            StartupError: it is newer, or a newer program has begun to make it so.
        """
        return self._checked(self._row())

    def _checked(self, row: Document) -> int:
        number = self._number_of(row)
        coming = max(number, row.get("coming", 0))
        if coming > NEWEST:
            raise StartupError(
                f"the database has schema {coming}, and this program (version {VERSION}) knows "
                f"none after {NEWEST}: run the version that wrote it, or a newer one; "
                "docs/upgrade.md says how to go back"
            )
        return number

    def note(self) -> int:
        """As `check`; puts the number on record where there was none: a new database is newest."""
        number = self.check()
        self._collection.update_one(KEY, {"$setOnInsert": {"number": number}}, upsert=True)
        return number

    # How many projectors divide the repositories among them stands beside the schema: who takes
    # the right to derive reads both at once.

    def check_projectors(self) -> int:
        """As `check`; returns how many projectors there are."""
        row = self._row()
        self._checked(row)
        return int(row.get("projectors", 1))

    def find_wanted_projectors(self) -> int:
        """How many projectors there are to be: what the server that started last asked for."""
        return int(self._row().get("wanted_projectors", 1))

    def want_projectors(self, number: int) -> None:
        """Ask for so many projectors."""
        if number != self.find_wanted_projectors():
            self._collection.update_one(KEY, {"$set": {"wanted_projectors": number}})

    def set_projectors(self, number: int) -> None:
        """Note that there are so many projectors from now on."""
        self._collection.update_one(KEY, {"$set": {"projectors": number}})

    def find_wait(self) -> str | None:
        """How far a step is that this program has to wait for, in words; None where there is none.

        Once there is none it does not ask again.
        """
        if self._is_reached:
            return None
        row = self._row()
        self._is_reached = (number := self._number_of(row)) >= NEWEST
        if self._is_reached:
            return None
        told = f"the database is brought from schema {number} to {NEWEST}"
        return f"{told}: {_progress_of(row)}" if "total" in row else told

    def begin(self, step: Step) -> Progress:
        """Note that a step is under way; from then on `check` of an older program refuses.

        Returns how far it is already.
        """
        row = self._row()
        if row.get("coming") != step.number:
            row = {"coming": step.number, "done": 0, "total": step.count(self._database)}
            self._collection.update_one(KEY, {"$set": row})
        return _progress_of(row)

    def note_progress(self, progress: Progress) -> None:
        """Note how far a step is."""
        self._collection.update_one(KEY, {"$set": progress._asdict()})

    def advance(self, number: int) -> None:
        """Note that a step is carried out as a whole."""
        gone = dict.fromkeys((*Progress._fields, "coming"), "")
        self._collection.update_one(KEY, {"$set": {"number": number}, "$unset": gone})

    def carry_out(self, step: Step, place: Place | None) -> Iterator[Bulk]:
        """Take a step behind a place; tells of each bulk."""
        yield from step.run(self._database, place)


def _progress_of(row: Document) -> Progress:
    progress = Progress(**{name: row[name] for name in Progress._fields if name in row})
    return progress._replace(place=Place(*progress.place) if progress.place else None)
