"""The home page at a glance, for those who may see what happened and those who may not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from builders import NOW, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.rules.events import Rejected
from app.store import Stores
from app.store.checks import Check, Gap
from app.store.wiring import Sender

SignIn = Callable[[str], FlaskClient]


@pytest.fixture(autouse=True)
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now(_zone: Any) -> Any:
            return NOW + timedelta(hours=1)

    monkeypatch.setattr("app.web.overview.datetime", Clock)


@pytest.fixture(autouse=True)
def recorded(app: Flask, store: Callable[..., None]) -> None:
    hour = 3600
    store(
        wire_event("push", tag="v1", at=-4 * 24 * hour, actor="ci-bot"),
        *(wire_event("pull", tag="v1", at=-24 * hour * day) for day in (1, 2, 3)),
        *(wire_event("pull", tag="v1", at=-48 * hour - number * 60) for number in (5, 10)),
        wire_event("pull", tag="v1", at=0, actor="k8s"),
        wire_event("push", "ops/secret", tag="v9", of="other", at=60, actor="eve"),
    )


def card(page: str, name: str) -> str:
    """The text of one card."""
    found = re.search(rf">{name}</div>(.*?)</div></div></div>", page, re.DOTALL)
    assert found
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


def test_today_stands_beside_a_usual_day(sign_in: SignIn) -> None:
    alice, admin = sign_in("alice").get("/search/").text, sign_in("admin").get("/search/").text

    assert card(alice, "Pulls today") == "1 1 on a usual day"
    assert card(alice, "Pushes today") == "0 0 on a usual day"
    assert card(admin, "Pushes today") == "1 0 on a usual day"


def test_a_number_of_today_leads_to_its_records(sign_in: SignIn) -> None:
    client = sign_in("alice")
    home = client.get("/search/").text
    link = re.search(r'Pulls today</div>.*?href="([^"]+)"', home, re.DOTALL)
    assert link

    records = client.get(link[1].replace("&amp;", "&")).text

    assert "k8s" in records
    assert '<span class="text-body-secondary number">1 record</span>' in records


def test_who_may_see_nothing_is_told_nothing(sign_in: SignIn) -> None:
    page = sign_in("mallory").get("/search/").text

    assert "Nothing that you may see." in page
    for word in ("team/app", "ops/secret", "k8s", "today", "Newest event", "Busiest"):
        assert word not in page.replace("team/*", "")


def test_the_newest_event_and_the_busiest_are_of_what_one_may_see(sign_in: SignIn) -> None:
    alice, admin = sign_in("alice").get("/search/").text, sign_in("admin").get("/search/").text

    assert "pull of team/app" in card(alice, "Newest event")
    assert "push of ops/secret" in card(admin, "Newest event")
    assert "ops/secret" not in alice
    busiest = re.search(r'aria-labelledby="busiest">.*?</table>', admin, re.DOTALL)
    assert busiest
    assert busiest[0].index("team/app") < busiest[0].index("ops/secret")


@pytest.fixture
def troubled(mock_stores: Stores) -> None:
    old = NOW - timedelta(days=3)
    mock_stores.wiring.note_refusal("10.9.9.9", "token", "a wrong token", NOW)
    mock_stores.rejected.add(
        [Rejected(id="x", registry="default", received_at=NOW, reason="r", body="{}")]
    )
    mock_stores.checks.add_gap(
        Gap(registry="default", began=old, ended=NOW, why="was started anew")
    )
    mock_stores.checks.put(
        Check(
            registry="default",
            started_at=old,
            finished_at=old,
            differences={"gone": 3, "moved": 2},
            repaired=1,
        )
    )


TROUBLES = [
    "Notifications were refused",
    "1 event was not understood",
    "4 tags differ between default",
    "Events of default may be missing",
]


@pytest.mark.usefixtures("troubled")
def test_an_administrator_sees_what_needs_attention(sign_in: SignIn) -> None:
    page = sign_in("admin").get("/search/").text

    assert "Needs attention" in page
    for trouble in TROUBLES:
        assert trouble in page


@pytest.mark.usefixtures("troubled")
def test_others_are_told_nothing_of_the_server(sign_in: SignIn) -> None:
    for name in ("alice", "mallory"):
        page = sign_in(name).get("/search/").text

        assert "Needs attention" not in page
        assert "Sent something" not in page
        for trouble in TROUBLES:
            assert trouble not in page


def test_where_nothing_is_wrong_nothing_needs_attention(sign_in: SignIn) -> None:
    assert "Needs attention" not in sign_in("admin").get("/search/").text


def test_a_registry_that_went_silent_is_named(
    sign_in: SignIn, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later:
        @staticmethod
        def now(_zone: Any) -> Any:
            return NOW + timedelta(days=2)

    monkeypatch.setattr("app.web.overview.datetime", Later)
    admin = sign_in("admin")
    assert "default sent nothing lately" in admin.get("/search/").text

    mock_stores.wiring.note_sender(
        Sender(registry="default", address="10.0.0.1", at=NOW + timedelta(days=2))
    )

    assert "default sent nothing lately" not in admin.get("/search/").text


def test_a_registry_on_record_that_is_not_in_the_configuration_is_named_so(
    sign_in: SignIn, store: Callable[..., None]
) -> None:
    store(wire_event("push", "old/app", tag="v1", at=120), registry="former")
    page = sign_in("admin").get("/search/").text

    assert "former</" in page
    assert page.count("not in the configuration") == 1
    assert "never sent anything" not in page
    assert "former" not in sign_in("alice").get("/search/").text


def test_who_never_sent_anything_is_told_where_the_records_come_from(
    sign_in: SignIn, app: Flask
) -> None:
    here = app.extensions["rns"]
    registry = msgspec.structs.replace(here.settings.registries[0], name="main")
    settings = msgspec.structs.replace(here.settings, registries=[registry])
    app.extensions["rns"] = msgspec.structs.replace(here, settings=settings)

    page = sign_in("admin").get("/search/").text

    expected = "main never sent anything; what is on record is of default, not in the configuration"
    assert expected in page
