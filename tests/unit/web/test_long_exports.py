"""What an export shows when what its account may see changes before its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from builders import wire_event
from flask.testing import FlaskClient

from app.errors import NotAuthenticated
from app.store import Stores

SignIn = Callable[[str], FlaskClient]

PATHS = [
    "/api/v1/records?format=ndjson",
    "/api/v1/tags?format=ndjson",
    "/api/v1/repositories?format=ndjson",
    "/analysis/user/login/?format=ndjson",
]


@pytest.fixture(autouse=True)
def recorded(store: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of each list, each on a page of its own."""
    monkeypatch.setattr("app.web.lists.EXPORT_PAGE_SIZE", 1)
    store(*(wire_event("push", f"team/app{n}", tag="v1", at=n) for n in range(3)))


def start(client: FlaskClient, path: str) -> Iterator[bytes]:
    """The rows still to come of an export, of which the first is there."""
    rows = iter(client.get(path).response)
    assert b"team/app" in next(rows)
    return rows


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("name", "left"), [("alice", 0), ("admin", 2)])
def test_the_rest_of_an_export_goes_by_the_acl_as_it_is_then(
    mock_stores: Stores, sign_in: SignIn, path: str, name: str, left: int
) -> None:
    rows = start(sign_in(name), path)

    mock_stores.accounts.remove_acl_entry(10)

    assert len(list(rows)) == left


@pytest.mark.parametrize("path", PATHS)
def test_an_export_breaks_off_when_its_account_is_gone(
    mock_stores: Stores, sign_in: SignIn, path: str
) -> None:
    rows = start(sign_in("alice"), path)

    mock_stores.accounts.remove("alice")

    with pytest.raises(NotAuthenticated):
        list(rows)


@pytest.mark.parametrize("path", PATHS)
def test_who_may_see_nothing_gets_an_empty_export(sign_in: SignIn, path: str) -> None:
    assert sign_in("mallory").get(path).data == b""
