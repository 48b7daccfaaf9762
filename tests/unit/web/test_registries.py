"""The page of the registries: what the last check found, for administrators alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from builders import digest
from flask.testing import FlaskClient

from app.store import Stores
from app.store.checks import Check, Difference, Gap

NOON = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
SignIn = Callable[[str], FlaskClient]


def note(stores: Stores) -> None:
    rows = [
        Difference(repository="team/app", tag="v1", kind="moved", recorded=digest("a"), found="b"),
        Difference(repository="team/secret", tag="", kind="unknown", message="<forbidden>"),
    ]
    stores.checks.set_differences("default", rows)
    stores.checks.put(
        Check(
            registry="default",
            started_at=NOON,
            finished_at=NOON,
            tags=1234,
            differences={"moved": 1, "unknown": 1},
            repaired=1,
        )
    )
    for hours, why in ((1, "node:5000 was started anew"), (-1, "no server listened")):
        ended = NOON + timedelta(hours=hours)
        gap = Gap(registry="default", began=ended - timedelta(minutes=3), ended=ended, why=why)
        stores.checks.add_gap(gap)


def test_an_administrator_sees_what_the_last_check_found(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    admin = sign_in("admin")
    before = admin.get("/registries/").text
    assert "it is not compared" in before
    assert "it points elsewhere" not in before, "there is no difference to explain"
    note(mock_stores)

    page = admin.get("/registries/").text

    for text in ("1,234", "1 moved, 1 unknown; 1 repaired", "team/app:v1", "team/secret"):
        assert text in page
    assert "it points elsewhere" in page
    assert "&lt;forbidden&gt;" in page
    first, second = page.index("was started anew"), page.index("no server listened")
    assert ">no<" in page[first:second]
    assert ">yes<" in page[second:]


def test_others_see_nothing_of_it(
    sign_in: SignIn, mock_stores: Stores, client: FlaskClient
) -> None:
    note(mock_stores)

    answer = sign_in("alice").get("/registries/")

    assert answer.status_code == 403
    assert "team/secret" not in answer.text
    assert client.get("/registries/").status_code in (302, 401, 403)
    assert "/registries/" not in sign_in("alice").get("/search/").text
    assert 'href="/registries/"' in sign_in("admin").get("/search/").text
