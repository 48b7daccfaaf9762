"""How a plan moves on: what may be done in which state, and what is on record of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from app.errors import IllegalState
from app.migration import Plan, states
from app.settings import Migration
from app.store import Stores
from app.store.migrations import WORKED, MigrationStore, PlanState, Wish, present

STATES: tuple[PlanState, ...] = get_args(PlanState)


def make_plan(name: str = "dc2", counterpart: str = "", **more: Any) -> Plan:
    sides = {"source": {"url": "https://old"}, "target": {"url": "https://new"}}
    return Plan(msgspec.convert({"name": name, **sides, **more}, Migration), "x", counterpart)


@pytest.fixture
def queue(mock_stores: Stores) -> MigrationStore:
    return mock_stores.migrations


def put(queue: MigrationStore, state: PlanState, name: str = "dc2") -> None:
    queue.plans.set_state(name, state, "test", present())


Move = Callable[[MigrationStore, Plan, str, Any], None]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("move", "after", "refusal"),
    [
        (
            states.start,
            {
                "draft": "backfill",
                "backfill": "backfill",
                "live": "live",
                "frozen": "backfill",
                "cut_over": "cut_over",
                "rolled_back": "backfill",
            },
            "dc2 is closed; give the migration another name",
        ),
        (
            states.crawl,
            {"draft": "backfill", **{state: state for state in WORKED}},
            "rolled_back; rns migrate start begins it anew|closed; give the migration another name",
        ),
        (states.verify, {"live": "live", "frozen": "frozen"}, "only a plan that is live or frozen"),
        (states.freeze, {"live": "frozen"}, "only a live plan can be frozen"),
        (states.roll_back, dict.fromkeys(WORKED, "rolled_back"), "nothing is to be rolled back"),
        (
            states.close,
            {state: "closed" for state in STATES if state != "closed"},
            "there is nothing to close",
        ),
    ],
)
def test_a_move_is_made_from_the_states_that_allow_it_and_refused_from_others(
    queue: MigrationStore, state: PlanState, move: Move, after: dict[str, str], refusal: str
) -> None:
    put(queue, state)

    if state in after:
        move(queue, make_plan(), "alice", present())
    else:
        with pytest.raises(IllegalState, match=refusal):
            move(queue, make_plan(), "alice", present())

    status = queue.plans.get("dc2")
    assert status.state == after.get(state, state)
    crawls = move in (states.start, states.crawl, states.freeze) and state in after
    assert status.recrawl is crawls
    assert status.verify_wanted is (move is states.verify and state in after)
    told = {row.who for row in queue.plans.find_audit("dc2")}
    assert ("alice" in told) is (state in after)


def test_a_frozen_plan_is_crawled_for_the_last_time(queue: MigrationStore) -> None:
    put(queue, "live")

    states.freeze(queue, make_plan(), "alice", present())

    assert queue.plans.get("dc2").recrawl_why == "final, as the source is frozen"


@pytest.mark.parametrize("state", STATES)
def test_only_a_plan_that_is_live_or_frozen_is_cut_over(
    mock_stores: Stores, state: PlanState
) -> None:
    put(mock_stores.migrations, state)

    could = state in ("live", "frozen")
    refusal = "not ready: worker" if could else f"dc2 is {state}: only a plan that is live"
    with pytest.raises(IllegalState, match=refusal):
        states.cut_over(mock_stores, make_plan(), "alice", present(), force=True)

    assert mock_stores.migrations.plans.get("dc2").state == state


def test_what_somebody_moved_meanwhile_is_not_cut_over(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = mock_stores.migrations
    put(queue, "live")

    def find_checks(*_: Any) -> list[Any]:
        put(queue, "frozen")
        return []

    monkeypatch.setattr(states, "find_checks", find_checks)

    with pytest.raises(IllegalState, match="dc2 is frozen: somebody moved it just now"):
        states.cut_over(mock_stores, make_plan(), "alice", present())


@pytest.mark.parametrize("state", STATES)
def test_a_way_back_waits_until_the_way_there_is_over_and_the_other_way_round(
    queue: MigrationStore, state: PlanState
) -> None:
    there, back = make_plan("there", "back"), make_plan("back", "there", reverse_of="there")

    def start(plan: Plan) -> str:
        try:
            states.start(queue, plan, "alice", present())
        except IllegalState as error:
            return str(error)
        return ""

    put(queue, state, "there")
    said = start(back)
    if state in WORKED:
        assert said.endswith("first rns migrate rollback --plan there")
    elif state == "draft":
        assert said.endswith("there is draft; first rns migrate start --plan there")
    else:
        assert said == ""

    put(queue, "rolled_back", "there")
    put(queue, state, "back")
    said = start(there)
    assert said.endswith("first rns migrate rollback --plan back") is (state in WORKED)
    assert (said == "") is (state not in WORKED)


def test_a_plan_that_is_closed_leaves_out_what_waits(queue: MigrationStore) -> None:
    queue.jobs.wish([Wish("dc2", "team/app", "v1")], present())

    states.close(queue, make_plan(), "alice", present())

    assert queue.jobs.count_by_state("dc2") == {"skipped": 1}
