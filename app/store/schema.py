"""The schema of a database: its number, and the steps from each to the next.

A step is added to STEPS where what is stored takes another form that this program would not read
as it was meant. No other server works meanwhile. A step must be harmless to repeat: whoever
carries it out may be killed at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from pymongo.database import Database

from app.errors import StartupError
from app.store.errors import translate_errors
from app.store.paging import Document
from app.store.version_0_1 import bring_forward_0_1
from app.version import VERSION

KEY = {"_id": "schema"}


class Step(NamedTuple):
    """What brings a database to schema `number`, from the one before.

    `run` says after each bulk how many documents that were. Where a step `derives`, everything that
    follows from events is then derived anew.
    """

    number: int
    what: str
    run: Callable[[Database[Document]], Iterator[int]]
    derives: bool


# 1 is what version 0.1 left: it kept no number.
STEPS = (
    Step(
        2,
        "the catalogue, manifests and events of version 0.1 take their present form",
        bring_forward_0_1,
        derives=True,
    ),
)
NEWEST = STEPS[-1].number


@translate_errors
class SchemaStore:
    """Collection `schema`: the number, and how far a step has derived everything anew."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._collection = database["schema"]

    def find(self) -> int:
        """The schema of this database."""
        row = self._collection.find_one(KEY)
        return int(row["number"]) if row else self._find_unnumbered()

    def _find_unnumbered(self) -> int:
        """Whatever else happened in 0.1, it made a row of the catalogue."""
        return 1 if self._database["catalogue"].find_one({}, {"_id": 1}) else NEWEST

    def check(self) -> int:
        """The schema of this database, which this program may write to.

        Raises:
            StartupError: it is newer.
        """
        number = self.find()
        if number > NEWEST:
            raise StartupError(
                f"the database has schema {number}, and this program (version {VERSION}) knows "
                f"none after {NEWEST}: run the version that wrote it, or a newer one; "
                "docs/upgrade.md says how to go back"
            )
        return number

    def note(self) -> int:
        """As `check`; puts the number on record where there was none: a new database is newest."""
        number = self.check()
        self._collection.update_one(KEY, {"$setOnInsert": {"number": number}}, upsert=True)
        return number

    def advance(self, number: int) -> None:
        """Note that a step is carried out as a whole."""
        self._collection.update_one(KEY, {"$set": {"number": number, "derived_until": None}})

    def carry_out(self, step: Step) -> Iterator[int]:
        """Take a step; says after each bulk how many documents that were."""
        yield from step.run(self._database)

    def find_derived_until(self) -> datetime | None:
        """From which time on events are still to be derived anew; None: all."""
        row = self._collection.find_one(KEY) or {}
        return row.get("derived_until")

    def note_derived_until(self, moment: datetime) -> None:
        """Note that events before that time are derived anew."""
        self._collection.update_one(KEY, {"$set": {"derived_until": moment}})
