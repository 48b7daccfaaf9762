"""Catalogue and registry side by side: what checks found, and when events may have been lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import msgspec
from pymongo.database import Database

from app.store.errors import translate_errors
from app.store.paging import Document

DifferenceKind = Literal["unheard", "moved", "gone", "unknown"]
DIFFERENCE_KINDS: tuple[DifferenceKind, ...] = get_args(DifferenceKind)

KEPT = timedelta(days=90)  # gaps, and nodes that are not heard any more
NOTED_EVERY = timedelta(minutes=1)  # between two notes of when a node was heard
MAX_INSTANCES = 20  # of a node that are remembered
MAX_DIFFERENCES = 10_000  # that are kept of one check


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A tag of which catalogue and registry do not say the same.

    `unheard`: the registry has it, and no event told of it; `moved`: it points elsewhere there;
    `gone`: it is on record only; `unknown`: the registry does not tell. Without a tag an `unknown`
    one stands for its repository.
    """

    repository: str
    tag: str
    kind: DifferenceKind
    recorded: str = ""  # digest in the catalogue
    found: str = ""  # digest at the registry
    message: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The last comparison of one registry with the catalogue; `finished_at` is None until its end.

    `differences` are numbers by kind. `message` says what stopped it, or why it repaired less than
    it found. `refusals`: how many in a row ended because the registry refused the password.
    """

    registry: str
    started_at: datetime
    finished_at: datetime | None = None
    repositories: int = 0
    tags: int = 0
    differences: dict[str, int] = {}
    repaired: int = 0
    message: str = ""
    refusals: int = 0


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A time of which events may be missing: from the last that came before to the next one."""

    registry: str
    began: datetime
    ended: datetime
    why: str


@translate_errors
class CheckStore:
    """Collections `catalogue_checks`, `catalogue_differences`, `heard_nodes` and `event_gaps`."""

    def __init__(self, database: Database[Document]) -> None:
        self._checks = database["catalogue_checks"]
        self._differences = database["catalogue_differences"]
        self._nodes = database["heard_nodes"]
        self._gaps = database["event_gaps"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        for collection, field in ((self._nodes, "last_at"), (self._gaps, "ended")):
            collection.create_index(field, expireAfterSeconds=int(KEPT.total_seconds()))

    def get(self, registry: str) -> Check | None:
        """The last check of a registry, None if there was none."""
        document = self._checks.find_one({"_id": registry})
        found: Check | None = _struct(Check, document) if document else None
        return found

    def put(self, check: Check) -> None:
        """Note how far a check is, or how it ended."""
        fields = msgspec.structs.asdict(check)
        self._checks.update_one({"_id": check.registry}, {"$set": fields}, upsert=True)

    def set_differences(self, registry: str, rows: Sequence[Difference]) -> None:
        """Replace what the last check of a registry found; the first ten thousand are kept."""
        self._differences.delete_many({"registry": registry})
        documents = [
            {"_id": f"{registry} {row.repository}:{row.tag}", "registry": registry}
            | msgspec.structs.asdict(row)
            for row in rows[:MAX_DIFFERENCES]
        ]
        for start in range(0, len(documents), 100):
            self._differences.insert_many(documents[start : start + 100])

    def find_differences(self, registry: str, limit: int) -> list[Difference]:
        """What the last check of a registry found, by repository and tag."""
        rows = self._differences.find({"registry": registry}).sort("_id", 1).limit(limit)
        return [_struct(Difference, row) for row in rows]

    # Gaps

    def note_node(self, registry: str, node: str, instance: str, at: datetime) -> None:
        """Note that a node of a registry, as this process of it, told something that happened `at`.

        A process that is new may have lost what the one before it had not told: that is a gap.
        """
        key = f"{registry} {node}"
        known = self._nodes.find_one({"_id": key})
        if known is None:
            # It may have had another name before, as the pods of a deployment do.
            known = self._find_last_heard(registry) or {"instances": [], "last_at": at}
        is_new = instance not in known["instances"]
        if is_new and known["instances"]:
            why = f"{node or 'the registry'} was started anew"
            gap = Gap(registry=registry, began=known["last_at"], ended=at, why=why)
            if gap.began < gap.ended:
                self.add_gap(gap)
        instances = [*known["instances"], *([instance] if is_new else ())][-MAX_INSTANCES:]
        # Written whole each time: what has not been heard for long may be removed just now.
        fields: Document = {"registry": registry, "node": node, "instances": instances}
        update = {"$set": fields, "$max": {"last_at": at}}
        self._nodes.update_one({"_id": key}, update, upsert=True)

    def _find_last_heard(self, registry: str) -> Document | None:
        rows = list(self._nodes.find({"registry": registry}))
        return max(rows, key=lambda row: row["last_at"], default=None)

    def add_gap(self, gap: Gap) -> None:
        """Note a gap in the place of shorter ones that began with it; idempotent.

        So it is one, however many processes of a server note since when none ran.
        """
        fields = msgspec.structs.asdict(gap)
        key = f"{gap.registry} {gap.ended.isoformat()}"
        self._gaps.update_one({"_id": key}, {"$set": fields}, upsert=True)
        self._gaps.delete_many(fields | {"ended": {"$lt": gap.ended}})

    def find_gaps(self, registry: str, limit: int = 20) -> list[Gap]:
        """The newest gaps of a registry, the newest first."""
        rows = self._gaps.find({"registry": registry}).sort("_id", -1).limit(limit)
        return [_struct(Gap, row) for row in rows]

    def find_open_gaps(self, registry: str, limit: int = 20) -> list[Gap]:
        """Those of them that no complete check of the registry looked behind."""
        check = self.get(registry)
        since = check.started_at if check and check.finished_at else None
        gaps = self.find_gaps(registry, limit)
        return [gap for gap in gaps if since is None or gap.ended >= since]


def _struct(kind: Any, document: Document) -> Any:
    return kind(**{name: document[name] for name in kind.__struct_fields__ if name in document})
