"""The account page: tokens, sessions, password; and everybody's tokens, for administrators."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import bcrypt
import mongomock
import pytest
from builders import PASSWORDS, basic, csrf_token
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.rules.tokens import is_token
from app.settings import DockerAuth, Settings
from app.store import Stores, sign_ins
from app.store.sign_ins import now
from app.store.tokens import MAX_OF_ACCOUNT

SignIn = Callable[[str], FlaskClient]
API = "/api/v1/repositories"
NEW = "a-new-secret"


def post(client: FlaskClient, path: str, **fields: str) -> Any:
    token = csrf_token(client.get("/account").text)
    return client.post(path, data={"csrf_token": token, **fields})


def is_signed_in(client: FlaskClient) -> bool:
    return client.get("/search/").status_code == 200


def change(client: FlaskClient, present: str = PASSWORDS["alice"], new: str = NEW) -> Any:
    fields = {"present": present, "new": new, "again": new}
    return post(client, "/account/password", **fields)


def test_nobody_has_no_account_page(client: FlaskClient) -> None:
    answer = client.get("/account")

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/login?next=/account")


def test_the_page_is_linked_under_the_name(sign_in: SignIn) -> None:
    page = sign_in("alice").get("/search/").text

    assert re.search(r'href="/account"[^>]*>alice</a>', page)


# Tokens


def test_a_token_is_made_and_shown_once(sign_in: SignIn, app: Flask) -> None:
    alice = sign_in("alice")

    made = post(alice, "/account/tokens", name="ci", days="30")

    found = re.search(r">(rns_[^<]*)</code>", made.text)
    assert made.status_code == 200
    assert made.headers["Cache-Control"] == "no-store"
    assert found
    assert is_token(found[1])
    again = alice.get("/account").text
    assert found[1] not in again
    assert "Revoke the token ci" in again
    headers = {"Authorization": f"Bearer {found[1]}"}
    assert app.test_client().get(API, headers=headers).status_code == 200


def test_a_token_lasts_as_long_as_was_asked_for_and_ninety_days_if_not(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    alice = sign_in("alice")

    assert 'value="90"' in alice.get("/account").text
    post(alice, "/account/tokens", name="ci", days="365")

    [token] = mock_stores.tokens.find_all("alice")
    assert token.expires_at - token.created_at == timedelta(days=365)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "", "days": "30"}, "required"),
        ({"name": "a:b", "days": "30"}, "without a colon"),
        ({"name": "x" * 101, "days": "30"}, "longer than 100"),
        ({"name": "ci", "days": "0"}, "expected 1 to 365"),
        ({"name": "ci", "days": "366"}, "expected 1 to 365"),
        ({"name": "ci", "days": "-1"}, "expected 1 to 365"),
        ({"name": "ci", "days": "x"}, "integer"),
        ({"name": "ci"}, "required"),
        ({"name": "taken", "days": "30"}, "has a token taken"),
    ],
)
def test_what_is_wrong_with_a_new_token_is_said_and_none_is_made(
    sign_in: SignIn, mock_stores: Stores, fields: dict[str, str], message: str
) -> None:
    alice = sign_in("alice")
    mock_stores.tokens.add("alice", "taken", timedelta(days=1), now())

    refused = post(alice, "/account/tokens", **fields)

    assert refused.status_code == 400
    assert message in refused.text
    assert "rns_" not in refused.text.partition("<main")[2]
    assert [token.name for token in mock_stores.tokens.find_all("alice")] == ["taken"]


def test_an_account_has_only_so_many_tokens(sign_in: SignIn, mock_stores: Stores) -> None:
    alice = sign_in("alice")
    for number in range(MAX_OF_ACCOUNT):
        mock_stores.tokens.add("alice", f"t{number}", timedelta(days=1), now())

    refused = post(alice, "/account/tokens", name="more", days="1")

    assert refused.status_code == 400
    assert "revoke one first" in refused.text


def test_a_token_is_revoked_by_its_owner_and_by_nobody_else(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    mock_stores.tokens.add("alice", "of-alice", timedelta(days=1), now())
    mallory, alice = sign_in("mallory"), sign_in("alice")
    fields = {"name": "of-alice", "account": "alice"}

    assert "of-alice" not in mallory.get("/account").text
    assert post(mallory, "/account/tokens/revoke", **fields).status_code == 303
    assert len(mock_stores.tokens.find_all("alice")) == 1
    answer = post(alice, "/account/tokens/revoke", name="of-alice")

    assert answer.headers["Location"] == "/account"
    assert "Revoked the token of-alice" in alice.get("/account").text
    assert mock_stores.tokens.find_all("alice") == []


def test_administrators_are_told_that_nobody_has_a_token(sign_in: SignIn) -> None:
    assert "There are no tokens." in sign_in("admin").get("/access/tokens").text


def test_administrators_see_and_revoke_the_tokens_of_everybody(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    for account in ("alice", "mallory"):
        mock_stores.tokens.add(account, f"of-{account}", timedelta(days=1), now())
    admin, mallory = sign_in("admin"), sign_in("mallory")

    page = admin.get("/access/tokens").text
    other = admin.get("/access/tokens?account=nobody").text
    narrowed = admin.get("/access/tokens?account=alice").text
    gone = {"account": "alice", "name": "of-alice"}

    assert "of-alice" in page
    assert "of-mallory" in page
    assert "of-mallory" not in narrowed
    assert "No token matches." in other
    assert mallory.get("/access/tokens").status_code == 403
    assert post(mallory, "/access/tokens/revoke", **gone).status_code == 403
    assert len(mock_stores.tokens.find_all("alice")) == 1
    assert post(admin, "/access/tokens/revoke", **gone).status_code == 303
    assert mock_stores.tokens.find_all("alice") == []
    assert len(mock_stores.tokens.find_all("mallory")) == 1


def test_the_audit_says_who_made_and_revoked_a_token(sign_in: SignIn, mock_stores: Stores) -> None:
    alice, admin = sign_in("alice"), sign_in("admin")

    post(alice, "/account/tokens", name="ci", days="1")
    post(admin, "/access/tokens/revoke", account="alice", name="ci")

    rows = [(r.account, r.means, r.outcome) for r in mock_stores.sign_ins.find_page({}).items]
    assert ("alice", "token ci", "made token") in rows
    assert ("admin", "token ci of alice", "revoked token") in rows


# Sessions


def test_all_sessions_are_listed_and_others_can_be_ended(sign_in: SignIn) -> None:
    here, there, stranger = sign_in("alice"), sign_in("alice"), sign_in("mallory")

    assert here.get("/account").text.count(">Werkzeug/") == 2
    assert stranger.get("/account").text.count(">Werkzeug/") == 1
    answer = post(here, "/account/sessions/end")

    assert answer.status_code == 303
    page = here.get("/account").text
    assert "Ended 1 session." in page
    assert page.count(">Werkzeug/") == 1
    assert not is_signed_in(there)
    assert is_signed_in(stranger)


def test_one_session_is_ended_and_the_others_go_on(sign_in: SignIn, mock_stores: Stores) -> None:
    here, there, third = sign_in("alice"), sign_in("alice"), sign_in("alice")
    with there.session_transaction() as session:
        session_id = session["id"]

    post(here, "/account/sessions/end", id=session_id)

    assert [is_signed_in(client) for client in (here, there, third)] == [True, False, True]


def test_nobody_ends_the_session_of_somebody_else(sign_in: SignIn) -> None:
    alice, mallory = sign_in("alice"), sign_in("mallory")
    with alice.session_transaction() as session:
        session_id = session["id"]

    post(mallory, "/account/sessions/end", id=session_id)

    assert is_signed_in(alice)


# Password


def test_a_new_password_ends_all_other_sessions_and_the_old_password(
    sign_in: SignIn, app: Flask, mock_stores: Stores
) -> None:
    here, there = sign_in("alice"), sign_in("alice")
    with here.session_transaction() as session:
        copied = dict(session)

    answer = change(here)

    assert answer.status_code == 303
    page = here.get("/account").text
    assert "Changed the password" in page
    assert page.count(">Werkzeug/") == 1
    assert not is_signed_in(there)
    thief = app.test_client()
    with thief.session_transaction() as session:
        session.update(copied)
    assert not is_signed_in(thief), "a copy of the cookie from before"
    assert client_status(app, PASSWORDS["alice"]) == 401
    assert client_status(app, NEW) == 200
    outcomes = [row.outcome for row in mock_stores.sign_ins.find_page({"account": "alice"}).items]
    assert "changed password" in outcomes


def client_status(app: Flask, password: str) -> int:
    return app.test_client().get(API, headers=basic("alice", password)).status_code


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"present": "wrong"}, "is wrong"),
        ({"present": ""}, "required"),
        ({"new": "short", "again": "short"}, "at least 8"),
        ({"new": "é" * 37, "again": "é" * 37}, "72 bytes"),
        ({"new": "null-\0-byte", "again": "null-\0-byte"}, "bcrypt does not take"),
        ({"again": "something else"}, "not the same"),
        ({"new": "", "again": ""}, "required"),
    ],
)
def test_what_is_wrong_with_a_new_password_is_said_and_nothing_changes(
    sign_in: SignIn, app: Flask, fields: dict[str, str], message: str
) -> None:
    here, there = sign_in("alice"), sign_in("alice")
    right = {"present": PASSWORDS["alice"], "new": NEW, "again": NEW}

    refused = post(here, "/account/password", **right | fields)

    assert refused.status_code == 400
    assert message in refused.text
    assert PASSWORDS["alice"] not in refused.text
    assert client_status(app, PASSWORDS["alice"]) == 200
    assert is_signed_in(here)
    assert is_signed_in(there)


def test_a_password_of_72_bytes_is_taken(sign_in: SignIn, app: Flask) -> None:
    assert change(sign_in("alice"), new="é" * 36).status_code == 303
    assert client_status(app, "é" * 36) == 200


def test_guessing_the_present_password_is_throttled(
    sign_in: SignIn, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ACCOUNT_AND_ADDRESS", 3)
    alice = sign_in("alice")
    for _ in range(3):
        assert change(alice, "wrong").status_code == 400

    assert change(alice).status_code == 429


def test_a_change_needs_the_token_against_forgery(sign_in: SignIn, app: Flask) -> None:
    fields = {"present": PASSWORDS["alice"], "new": NEW, "again": NEW}

    assert sign_in("alice").post("/account/password", data=fields).status_code == 400
    assert client_status(app, PASSWORDS["alice"]) == 200


def test_where_an_htpasswd_file_has_the_accounts_the_page_says_who_changes_passwords(
    settings: Settings, tmp_path: Any
) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(f"robot:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    there = DockerAuth(htpasswd=str(file))
    stores = Stores(mongomock.MongoClient(tz_aware=True)["small"], docker_auth=there)
    stores.ensure_indexes()
    client = create_app(settings, stores).test_client()
    form = {"username": "robot", "password": "secret"}
    form["csrf_token"] = csrf_token(client.get("/login").text)
    assert client.post("/login", data=form).status_code == 303

    page = client.get("/account").text

    assert "htpasswd -B" in page
    assert 'name="present"' not in page
    assert change(client, "secret").status_code == 403
