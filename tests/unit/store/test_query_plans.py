"""What is read of explain's answers, as mongod writes them."""

from __future__ import annotations

from typing import Any

import pytest

from app.store.query_plans import QueryPlan, read_plan

IXSCAN = {
    "stage": "IXSCAN",
    "keyPattern": {"repository": 1, "position": 1},
    "indexName": "repository_1_position_1",
    "isMultiKey": False,
    "direction": "backward",
    "indexBounds": {"repository": ['["team/app", "team/app"]'], "position": ['["b", "a"]']},
}
FETCH = {"stage": "FETCH", "filter": {"kind": {"$eq": "image"}}, "inputStage": IXSCAN}
COLLSCAN = {"stage": "COLLSCAN", "filter": {"host": {"$eq": "x"}}, "direction": "forward"}
SORT = {
    "stage": "SORT",
    "sortPattern": {"position": -1},
    "memLimit": 104857600,
    "type": "simple",
    "inputStage": COLLSCAN,
}
SORT_MERGE = {
    "stage": "LIMIT",
    "inputStage": {
        "stage": "FETCH",
        "inputStage": {
            "stage": "SORT_MERGE",
            "sortPattern": {"position": -1},
            "inputStages": [IXSCAN, {**IXSCAN, "indexName": "namespace_1_position_1"}],
        },
    },
}


def planner(plan: Any) -> dict[str, Any]:
    return {
        "namespace": "registry.events",
        "indexFilterSet": False,
        "parsedQuery": {},
        "winningPlan": plan,
        "rejectedPlans": [SORT],  # considered, and not taken
    }


def stats(returned: int, keys: int, documents: int, ms: int = 3) -> dict[str, Any]:
    return {
        "executionSuccess": True,
        "nReturned": returned,
        "executionTimeMillis": ms,
        "totalKeysExamined": keys,
        "totalDocsExamined": documents,
        "executionStages": {"stage": "SORT", "nReturned": returned, "works": 5},
    }


def answer(plan: Any, *numbers: int) -> dict[str, Any]:
    told = {"queryPlanner": planner(plan), "serverInfo": {"host": "a"}, "ok": 1.0}
    return {**told, "executionStats": stats(*numbers)} if numbers else told


def test_an_index_and_the_documents_that_it_names() -> None:
    plan = read_plan(answer(FETCH, 12, 15, 14, 7))

    assert plan == QueryPlan(
        is_told=True, indexes=("repository_1_position_1",), read=15, returned=12, ms=7
    )


def test_a_whole_collection_that_is_sorted_in_memory() -> None:
    plan = read_plan(answer(SORT, 2, 0, 900))

    assert (plan.is_whole, plan.is_sorted, plan.indexes) == (True, True, ())
    assert (plan.read, plan.returned) == (900, 2)


def test_indexes_that_are_joined_in_order_are_no_sort() -> None:
    plan = read_plan(answer(SORT_MERGE, 2, 4, 2))

    assert not plan.is_sorted
    assert plan.indexes == ("repository_1_position_1", "namespace_1_position_1")


@pytest.mark.parametrize(
    ("stage", "index"),
    [
        ({"stage": "IDHACK"}, "_id"),
        ({"stage": "EXPRESS_IXSCAN", "keyPattern": "{ _id: 1 }", "indexName": "_id_"}, "_id_"),
        ({"stage": "COUNT", "inputStage": {"stage": "COUNT_SCAN", "indexName": "at_1"}}, "at_1"),
        ({"stage": "OR", "inputStages": [IXSCAN, IXSCAN]}, "repository_1_position_1"),
    ],
)
def test_the_short_ways_to_an_index(stage: dict[str, Any], index: str) -> None:
    assert read_plan(answer(stage)).indexes == (index,)


def test_the_slot_based_engine_has_its_plan_one_deeper() -> None:
    plan = {
        "queryPlan": {"stage": "GROUP", "planNodeId": 3, "inputStage": FETCH},
        "slotBasedPlan": {"slots": "$$RESULT=s1", "stages": "[3] sort [s1] [asc] ..."},
    }

    found = read_plan({"explainVersion": "2", **answer(plan, 1, 8, 8)})

    assert (found.indexes, found.is_sorted) == (("repository_1_position_1",), False)


def test_the_cursor_of_an_aggregation_is_counted_once() -> None:
    cursor = answer(FETCH, 20, 20, 20)
    group = {"$group": {"_id": "$kind", "n": {"$sum": {"$const": 1}}}, "nReturned": 3}

    # Some repeat what the cursor did beside the stages.
    found = read_plan({**cursor, "stages": [{"$cursor": cursor, "nReturned": 20}, group]})

    assert (found.read, found.returned, found.is_sorted) == (20, 20, False)


def test_an_aggregation_that_sorts_after_its_cursor_sorts_in_memory() -> None:
    sort = {"$sort": {"sortKey": {"n": -1}}, "usedDisk": False}

    assert read_plan({"stages": [{"$cursor": answer(FETCH, 9, 9, 9)}, sort]}).is_sorted


def test_a_query_of_all_shards_names_the_worst_of_them() -> None:
    shards = [
        {"shardName": "a", "connectionString": "a/h:1", "serverInfo": {}, "winningPlan": FETCH},
        {"shardName": "b", "connectionString": "b/h:1", "serverInfo": {}, "winningPlan": SORT},
    ]
    merged = {"stage": "SHARD_MERGE_SORT", "shards": shards}

    found = read_plan(answer(merged, 5, 10, 300))

    assert (found.is_whole, found.is_sorted) == (True, True)
    assert found.indexes == ("repository_1_position_1",)
    assert found.read == 300


def test_an_aggregation_on_shards_is_added_up() -> None:
    cursors = [answer(FETCH, 5, 7, 7, 2), answer(FETCH, 6, 8, 8, 9)]
    shards = {
        "a": {"host": "h:1", "stages": [{"$cursor": cursors[0]}]},
        "b": {"host": "h:2", **cursors[1]},
    }

    found = read_plan(
        {"mergeType": "mongos", "splitPipeline": {"mergerPart": []}, "shards": shards}
    )

    assert (found.read, found.returned, found.ms) == (15, 11, 9)
    assert found.is_told


def test_a_query_that_was_broken_off_is_told_though_the_explain_succeeds() -> None:
    broken_off = answer(FETCH, 0, 9_000_000, 9_000_000, 10_001)
    broken_off["executionStats"] |= {
        "executionSuccess": False,
        "errorMessage": "operation exceeded time limit",
        "errorCode": 50,
    }

    found = read_plan(broken_off)

    assert (found.is_told, found.is_too_slow, found.refusal) == (True, True, "")
    assert (found.read, found.ms) == (9_000_000, 10_001)


def test_what_one_shard_breaks_off_is_broken_off() -> None:
    shards = [
        {"shardName": "a", "executionSuccess": True, "executionStages": {"stage": "FETCH"}},
        {
            "shardName": "b",
            "executionSuccess": False,
            "errorMessage": "Sort exceeded memory limit of 104857600 bytes",
            "errorCode": 292,
            "executionStages": {"stage": "SORT", "inputStage": {"stage": "COLLSCAN"}},
        },
    ]
    plan = {"stage": "SHARD_MERGE_SORT", "shards": [{"shardName": "b", "winningPlan": SORT}]}
    merged = answer(plan, 0, 0, 800_000)
    del merged["executionStats"]["executionSuccess"]  # mongos says it of each shard only
    merged["executionStats"]["executionStages"] = {"stage": "SHARD_MERGE_SORT", "shards": shards}

    found = read_plan(merged)

    assert (found.is_too_slow, found.refusal) == (False, "failed with code 292")
    assert found.is_sorted


def test_a_collection_that_is_not_there_has_nothing_to_read() -> None:
    found = read_plan(answer({"stage": "EOF"}, 0, 0, 0))

    assert (found.is_told, found.is_whole, found.read) == (True, False, 0)


def test_numbers_that_are_told_as_texts_are_read() -> None:
    """As Amazon DocumentDB tells them, which does not tell how much was read."""
    told = {
        "queryPlanner": {
            "plannerVersion": 2,
            "winningPlan": {"stage": "LIMIT_SKIP", "inputStage": {**SORT, "inputStage": IXSCAN}},
        },
        "executionStats": {
            "executionSuccess": True,
            "executionTimeMillis": "4.186",
            "planningTimeMillis": "3.909",
            "executionStages": {"stage": "LIMIT_SKIP", "nReturned": "2"},
        },
    }

    found = read_plan(told)

    assert (found.is_sorted, found.indexes) == (True, ("repository_1_position_1",))
    assert (found.read, found.returned, found.ms) == (None, None, 4)


def test_a_database_that_tells_nothing_is_not_told() -> None:
    ferret = {
        "queryPlanner": {"Plan": ["id=2 parent=0 notused=0 detail=SCAN events_f10c"]},
        "ok": 1,
    }

    assert read_plan(ferret) == QueryPlan()
    assert read_plan({"ok": 1.0}) == QueryPlan()
