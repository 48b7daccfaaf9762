"""Answers of `explain` as one verdict.

As mongod writes them, 4.4 to 8: the classic engine and the slot-based one, a whole query or the
`$cursor` of an aggregation, of one server or by shard. Others answer alike or tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

Node = Mapping[str, Any]

WHOLE = ("COLLSCAN",)
SORTING = ("SORT",)  # not SORT_MERGE, which joins what indexes give in order
BY_ID = ("IDHACK", "CLUSTERED_IXSCAN", "EXPRESS_CLUSTERED_IXSCAN")  # without the index's name
CHILD = ("inputStage", "outerStage", "innerStage", "thenStage", "elseStage", "winningPlan")
CHILDREN = ("inputStages", "shards")
TOO_SLOW = 50  # MaxTimeMSExpired


class QueryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the database did to answer. `read` are documents or keys, whichever is more.

    None where it does not tell. Of shards the sum, and the slowest one's time. With a `refusal`
    and what `is_too_slow`, the numbers are those until it was broken off.
    """

    is_told: bool = False
    indexes: tuple[str, ...] = ()
    is_whole: bool = False  # every document of the collection was looked at
    is_sorted: bool = False  # in memory
    read: int | None = None
    returned: int | None = None
    ms: int | None = None
    is_too_slow: bool = False
    refusal: str = ""


def read_plan(answer: Node) -> QueryPlan:
    """The verdict of one answer."""
    parts = list(_parts(answer))
    stages = [stage for part in parts for stage in _stages(part["queryPlanner"])]
    names = {str(stage["stage"]) for stage in stages}
    failures = {code for part in parts for code in _failures(part.get("executionStats"))}
    stats = [part["executionStats"] for part in parts if part.get("executionStats")]
    indexes = [
        str(stage.get("indexName", "_id" if stage["stage"] in BY_ID else "")) for stage in stages
    ]
    return QueryPlan(
        is_told=bool(names),
        indexes=tuple(dict.fromkeys(filter(None, indexes))),
        is_whole=bool(names & set(WHOLE)),
        is_sorted=bool(names & set(SORTING)) or _has_sort(answer),
        read=_add(
            max(_number(one.get("totalKeysExamined", 0)), _number(one["totalDocsExamined"]))
            for one in stats
            if "totalDocsExamined" in one
        ),
        returned=_add(one["nReturned"] for one in stats if "nReturned" in one),
        ms=max(
            (_number(one["executionTimeMillis"]) for one in stats if "executionTimeMillis" in one),
            default=None,
        ),
        is_too_slow=TOO_SLOW in failures,
        refusal=next((f"failed with code {code}" for code in failures - {TOO_SLOW}), ""),
    )


def _parts(answer: Node) -> Iterator[Node]:
    """What has a plan of its own: the answer, the cursor of an aggregation, that of each shard."""
    cursors = [stage["$cursor"] for stage in answer.get("stages", ()) if "$cursor" in stage]
    shards = answer.get("shards")
    if cursors:
        yield from (cursor for cursor in cursors if "queryPlanner" in cursor)
    elif isinstance(shards, Mapping):
        for shard in shards.values():
            yield from _parts(shard)
    elif "queryPlanner" in answer:
        yield answer


def _failures(stats: Any) -> Iterator[Any]:
    """The codes of what broke off: mongod answers that with a plan, and says so beside it only.

    mongos does among its stages, by shard.
    """
    if not isinstance(stats, Mapping):
        return
    if stats.get("executionSuccess") is False:
        yield stats.get("errorCode")
    for shard in (stats.get("executionStages") or {}).get("shards") or ():
        yield from _failures(shard)


def _has_sort(answer: Node) -> bool:
    """Whether an aggregation sorts what its cursor gives."""
    if any("$sort" in stage for stage in answer.get("stages", ())):
        return True
    shards = answer.get("shards")
    return isinstance(shards, Mapping) and any(map(_has_sort, shards.values()))


def _stages(node: Node) -> Iterator[Node]:
    """Every stage of the plan that was taken."""
    if isinstance(node.get("stage"), str):
        yield node
    below: list[Any] = [node.get(key) for key in (*CHILD, "queryPlan")]
    for key in CHILDREN:
        below += node.get(key) or ()
    for child in below:
        if isinstance(child, Mapping):
            yield from _stages(child)


def _add(numbers: Iterable[Any]) -> int | None:
    found = [_number(number) for number in numbers]
    return sum(found) if found else None


def _number(told: Any) -> int:
    """Amazon DocumentDB tells its numbers as texts, with decimals."""
    return int(float(told))
