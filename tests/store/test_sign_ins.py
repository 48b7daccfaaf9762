"""The audit of sign-ins, and the throttle that counts in it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from app.store import Stores, sign_ins
from app.store.sign_ins import HEADER, REFUSED, SIGNED_IN, SIGNED_OUT, SignIn, now

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ACCOUNT_AND_ADDRESS", 3)
    monkeypatch.setattr(sign_ins, "MAX_OF_ADDRESS", 8)
    monkeypatch.setattr(sign_ins, "MAX_OF_ACCOUNT", 5)


def attempt(
    stores: Stores,
    account: str = "alice",
    address: str = HERE,
    outcome: str = REFUSED,
    at: datetime | None = None,
    session: str | None = None,
    means: str = "form",
) -> None:
    stores.sign_ins.add(SignIn(at or now(), account, address, means, outcome, "curl/8"), session)


def is_throttled(stores: Stores, account: str = "alice", address: str = HERE) -> bool:
    return stores.sign_ins.find_wait(account, address, now()) > timedelta()


def test_an_account_is_throttled_at_an_address_after_some_failures(stores: Stores) -> None:
    for number in range(3):
        assert not is_throttled(stores), number
        attempt(stores)

    assert is_throttled(stores)
    assert not is_throttled(stores, "bob")
    assert not is_throttled(stores, address=THERE)


def test_the_wait_ends_when_the_oldest_failure_that_counts_is_five_minutes_old(
    stores: Stores,
) -> None:
    start = now()
    for seconds in (0, 60, 120):
        attempt(stores, at=start + timedelta(seconds=seconds))

    wait = stores.sign_ins.find_wait("alice", HERE, start + timedelta(seconds=130))

    assert wait == timedelta(seconds=170)
    assert stores.sign_ins.find_wait("alice", HERE, start + timedelta(seconds=301)) == timedelta()


def test_an_address_is_throttled_that_tries_many_accounts(stores: Stores) -> None:
    for number in range(8):
        attempt(stores, f"account-{number}")

    assert is_throttled(stores, "another")
    assert not is_throttled(stores, "another", THERE)


def test_an_account_that_many_addresses_try_is_throttled_where_it_is_not_familiar(
    stores: Stores,
) -> None:
    attempt(stores, address=HERE, outcome=SIGNED_IN)
    for number in range(5):
        attempt(stores, address=f"203.0.113.{number}")

    assert is_throttled(stores, address=THERE)
    assert not is_throttled(stores, address=HERE), "a colleague must not be locked out"


def test_sign_ins_do_not_count_as_failures(stores: Stores) -> None:
    for _ in range(20):
        attempt(stores, outcome=SIGNED_IN)

    assert not is_throttled(stores)


def test_the_addresses_of_one_ipv6_network_are_one(stores: Stores) -> None:
    for number in range(3):
        attempt(stores, address=f"2001:db8::{number}")

    assert is_throttled(stores, address="2001:db8::ffff")
    assert not is_throttled(stores, address="2001:db8:0:1::1")


def test_ipv4_in_ipv6_is_the_same_address(stores: Stores) -> None:
    for _ in range(3):
        attempt(stores, address=f"::ffff:{HERE}")

    assert is_throttled(stores, address=HERE)


def test_a_zone_or_a_port_makes_no_other_address(stores: Stores) -> None:
    for address in ("fe80::1%eth0", "fe80::1%eth1", "[fe80::1]:4711"):
        attempt(stores, address=address)

    assert is_throttled(stores, address="fe80::1")


@pytest.mark.parametrize("name", ["$where", "a.b", "", "\\", "x" * 255, "ünï"])
def test_any_name_can_be_tried(stores: Stores, name: str) -> None:
    attempt(stores, name)

    assert [row.account for row in stores.sign_ins.find_page({}).items] == [name]


def test_a_session_ends_for_every_copy_of_its_cookie(stores: Stores) -> None:
    attempt(stores, outcome=SIGNED_IN, session="one")
    assert not stores.sign_ins.is_ended("one")

    attempt(stores, outcome=SIGNED_OUT, session="one")

    assert stores.sign_ins.is_ended("one")
    assert not stores.sign_ins.is_ended("two")


def test_the_open_sessions_of_an_account_are_found_newest_first(stores: Stores) -> None:
    start = now()
    for number, session in enumerate(("one", "two", "three")):
        at = start - timedelta(hours=10 * (3 - number))
        attempt(stores, outcome=SIGNED_IN, session=session, at=at)
    attempt(stores, outcome=SIGNED_OUT, session="two")
    attempt(stores, "bob", outcome=SIGNED_IN, session="four")
    attempt(stores, outcome=SIGNED_IN, means="basic")
    attempt(stores, outcome=REFUSED)

    found = stores.sign_ins.find_sessions("alice", start - timedelta(hours=29))
    everything = stores.sign_ins.find_sessions("alice", start - timedelta(days=7))

    assert [session.id for session in found] == ["three"]
    assert [session.id for session in everything] == ["three", "one"]
    assert (found[0].address, found[0].user_agent) == (HERE, "curl/8")


def test_many_open_sessions_are_found(stores: Stores) -> None:
    for number in range(130):
        attempt(stores, outcome=SIGNED_IN, session=f"s{number}")
    for number in range(0, 130, 2):
        attempt(stores, outcome=SIGNED_OUT, session=f"s{number}")

    found = stores.sign_ins.find_sessions("alice", now() - timedelta(hours=1))

    assert {session.id for session in found} == {f"s{number}" for number in range(1, 130, 2)}


def test_an_attempt_without_a_name_waits_for_the_failures_of_its_address_alone(
    stores: Stores,
) -> None:
    for number in range(7):
        attempt(stores, "", address=f"203.0.113.{number}", means="token")
    for _ in range(7):
        attempt(stores, "", means="token")

    assert stores.sign_ins.find_wait(None, HERE, now()) == timedelta()
    assert stores.sign_ins.find_wait(None, THERE, now()) == timedelta()
    attempt(stores, "", means="token")
    assert stores.sign_ins.find_wait(None, HERE, now()) > timedelta()
    assert stores.sign_ins.find_wait(None, THERE, now()) == timedelta()


def test_what_a_proxy_says_is_one_row_a_day_whether_it_is_taken_or_not(stores: Stores) -> None:
    for outcome in (SIGNED_IN, REFUSED):
        for _ in range(3):
            attempt(stores, outcome=outcome, means=HEADER)
    attempt(stores, outcome=SIGNED_IN, means="basic")
    attempt(stores, outcome=SIGNED_IN, means="token ci")
    attempt(stores, outcome=SIGNED_IN, means="token other")

    means = [row.means for row in stores.sign_ins.find_page({}).items]

    assert sorted(means) == ["basic", HEADER, HEADER, "token ci", "token other"]


def test_the_audit_is_listed_newest_first_page_by_page(stores: Stores) -> None:
    start = now() - timedelta(hours=1)
    for minute in range(7):
        attempt(stores, f"a{minute}", at=start + timedelta(minutes=minute))

    first = stores.sign_ins.find_page({}, limit=4)
    second = stores.sign_ins.find_page({}, cursor=first.next, limit=4)

    assert [row.account for row in first.items] == ["a6", "a5", "a4", "a3"]
    assert [row.account for row in second.items] == ["a2", "a1", "a0"]
    assert second.next is None
    assert stores.sign_ins.count({}, cap=100).number == 7


def test_the_audit_is_filtered(stores: Stores) -> None:
    attempt(stores, "alice", HERE, REFUSED)
    attempt(stores, "alice", THERE, SIGNED_IN)
    attempt(stores, "bob", THERE, REFUSED)

    found = stores.sign_ins.find_page({"address": THERE, "outcome": REFUSED})

    assert [row.account for row in found.items] == ["bob"]
    assert stores.sign_ins.count({"account": "alice"}, cap=100).number == 2


def test_a_script_that_signs_in_with_every_request_is_one_row_a_day(stores: Stores) -> None:
    today = now()
    for _ in range(5):
        attempt(stores, means="basic", outcome=SIGNED_IN, at=today)
    attempt(stores, means="basic", outcome=SIGNED_IN, at=today, address=THERE)
    attempt(stores, means="basic", outcome=REFUSED, at=today)
    attempt(stores, means="basic", outcome=REFUSED, at=today)

    outcomes = [row.outcome for row in stores.sign_ins.find_page({}).items]

    assert sorted(outcomes) == [REFUSED, REFUSED, SIGNED_IN, SIGNED_IN]
