"""Wrong wirings, each told in a sentence; the Wiring page, its test, rejected events."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from builders import NOW, basic, csrf_token, envelope, wire_event, work_in
from flask import Flask
from flask.testing import FlaskClient

from app.notifications.derivation import Derivation
from app.notifications.wiring import find_wiring
from app.rules.original import Row, parse_record
from app.settings import Access, Registry, Server, Settings
from app.store import Stores
from app.store.wiring import Sender

V1 = "application/vnd.docker.distribution.events.v1+json"
BEARER = {"Authorization": "Bearer registry-token"}
SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]


def notify(client: FlaskClient, path: str = "/events", *events: Any, **kwargs: Any) -> Any:
    kwargs.setdefault("headers", BEARER)
    kwargs.setdefault("content_type", V1)
    return client.open(path, **{"method": "POST", "data": envelope(*events), **kwargs})


# Who is refused


@pytest.mark.parametrize(
    ("path", "changes", "status", "words"),
    [
        ("/notifications", {}, 404, "sends them to /notifications: the url of its endpoint has"),
        ("/", {}, 405, "sends them to /: the url of its endpoint has to end in /events"),
        ("/login", {}, 404, "sends them to /login: the url"),
        ("/api/events", {}, 404, "sends them to /api/events: the url"),
        ("/hook", {"content_type": "application/json"}, 404, "sends them to /hook: the url"),
        ("/events", {"method": "PUT"}, 405, "by PUT: /events takes POST"),
        ("/events", {"headers": {}}, 401, "it sends none: compare registries[].token"),
        ("/events", {"headers": {"Authorization": "Bearer x"}}, 401, "has its token: compare"),
        ("/events", {"headers": {"X-Registry-Id": "x"}}, 401, "has its X-Registry-Id"),
        ("/events", {"data": b"{"}, 400, "what it sends is no envelope: not a notification"),
        ("/events", {"content_type": "text/plain"}, 400, "expected JSON, got text/plain"),
        ("/events", {"data": b" " * 100_001}, 413, "larger than notifications.max_body_bytes"),
    ],
)
def test_a_wrong_wiring_is_told_in_the_log_the_answer_and_on_the_page(
    client: FlaskClient,
    sign_in: SignIn,
    caplog: pytest.LogCaptureFixture,
    path: str,
    changes: dict[str, Any],
    status: int,
    words: str,
) -> None:
    answers = [notify(client, path, **changes) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [status, status]
    assert answers[0].is_json
    assert caplog.text.count("notifications from 127.0.0.1 are refused: ") == 1
    assert words in caplog.text
    assert words in re.sub(r"&#39;", "'", sign_in("admin").get("/wiring/").text)


def test_what_is_no_notification_is_not_taken_for_one(
    client: FlaskClient, mock_stores: Stores
) -> None:
    client.post("/none", data={"a": "b"})
    client.get("/notifications", content_type=V1)
    client.post("/api/v1/none", json={})

    assert mock_stores.wiring.find_refusals() == []


def test_events_with_a_slash_are_taken(client: FlaskClient) -> None:
    assert notify(client, "/events/", wire_event()).status_code == 202


def test_a_refused_one_is_kept_with_its_first_and_last_time_and_one_row(
    mock_stores: Stores,
) -> None:
    store = mock_stores.wiring
    store.note_refusal("10.0.0.1", "token", "wrong", NOW)
    store.note_refusal("10.0.0.1", "token", "still wrong", NOW + timedelta(hours=1))

    [refusal] = store.find_refusals()

    assert (refusal.first_at, refusal.at) == (NOW, NOW + timedelta(hours=1))
    assert refusal.text == "still wrong"


def test_rows_are_bounded_and_the_oldest_go(mock_stores: Stores) -> None:
    for number in range(230):
        mock_stores.wiring.note_refusal(
            f"10.0.0.{number}", "token", "wrong", NOW + timedelta(seconds=number)
        )

    found = mock_stores.wiring.find_refusals()

    assert len(found) == 200
    assert (found[0].address, found[-1].address) == ("10.0.0.229", "10.0.0.30")


def test_however_many_addresses_are_refused_a_process_writes_no_more_than_a_hundred_a_minute(
    app: Flask, mock_stores: Stores
) -> None:
    client = app.test_client()
    for number in range(150):
        notify(client, headers={}, environ_overrides={"REMOTE_ADDR": f"10.0.0.{number}"})

    assert len(mock_stores.wiring.find_refusals()) == 100


# The page


def test_only_administrators_see_how_things_are_wired(sign_in: SignIn) -> None:
    for path in ("/wiring/", "/wiring/test?since=0", "/wiring/rejected"):
        assert sign_in("mallory").get(path).status_code == 403
        assert sign_in("admin").get(path).status_code == 200


def test_the_page_names_configuration_database_version_and_indexes(
    sign_in: SignIn, mock_database: Any
) -> None:
    text = sign_in("admin").get("/wiring/").text

    assert "/config.yml" in text
    assert "registry at mongodb://unused" in text
    count = re.search(r"(\d+) of (\d+)</dd>", text)
    assert count
    assert count[1] == count[2] != "0"

    mock_database["events"].drop_index("digest_1_position_1")

    text = sign_in("admin").get("/wiring/").text
    assert "the index events.digest_1_position_1 is missing" in text


def test_a_well_wired_registry_has_nothing_to_look_at(
    client: FlaskClient, sign_in: SignIn, mock_stores: Stores
) -> None:
    now = datetime.now(UTC)
    notify(client, "/events", wire_event(tag="v1", at=now, children=["layer"]))
    work_in(mock_stores)

    text = sign_in("admin").get("/wiring/").text

    assert "nothing is wrong" in text
    assert "push of <span" in text
    assert "127.0.0.1" in text


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([{"tag": "v1"}], "includereferences: true"),
        ([{"action": "pull", "actor": ""}] * 5, "no event names an account"),
        ([{"children": ["a"], "at": 90}], "its clock is 90 s ahead"),
        ([{"children": ["a"], "at": -500}] * 5, "its events come 500 s late at least"),
    ],
)
def test_what_the_events_show_is_told_in_words(
    store: Store,
    sign_in: SignIn,
    mock_stores: Stores,
    events: list[dict[str, Any]],
    words: str,
) -> None:
    from builders import deliver

    now = datetime.now(UTC)
    for given in events:
        at = now + timedelta(seconds=given.get("at", 0))
        deliver(mock_stores, envelope(wire_event(**{**given, "at": at})), now=now)

    assert words in sign_in("admin").get("/wiring/").text


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"accepted": 2, "ignored": 60}, "60 of its 62 newest events are transfers of blobs"),
        ({"slowest_s": 0.75}, "an answer took 0.8 s"),
    ],
)
def test_what_a_sender_shows_is_told_in_words(
    sign_in: SignIn, mock_stores: Stores, sample: dict[str, Any], words: str
) -> None:
    sender = Sender(registry="default", address="10.0.0.1", at=NOW, **sample)
    mock_stores.wiring.note_sender(sender)

    assert words in sign_in("admin").get("/wiring/").text


def test_a_sender_is_noted_at_once_and_then_what_came_in_ten_seconds_together(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify(client, "/events", wire_event())
    [first] = mock_stores.wiring.find_senders()
    notify(client, "/events", wire_event())
    assert mock_stores.wiring.find_senders() == [first]
    monkeypatch.setattr("app.notifications.watch.SENDER_AGAIN_S", 0.0)
    notify(client, "/events", wire_event(), wire_event())

    [second] = mock_stores.wiring.find_senders()

    assert (first.accepted, second.accepted) == (1, 3)
    assert (first.registry, first.address) == ("default", "127.0.0.1")


def test_a_registry_that_never_sent_and_a_silent_debug_server_are_told(
    make_app: Callable[..., Flask], app: Flask
) -> None:
    registry = Registry(token="t", debug_url="http://127.0.0.1:9")
    client = make_app(registries=[registry]).test_client()

    text = client.get("/wiring/", headers=basic("admin")).text

    assert "nothing came from it within 30 days" in text
    assert "its debug server does not answer: http://127.0.0.1:9" in text


# The test


def since(moment: datetime) -> str:
    return f"/wiring/test?since={int(moment.timestamp() * 1000)}"


def test_the_test_waits_and_looks_again_by_itself(sign_in: SignIn) -> None:
    response = sign_in("admin").get(since(datetime.now(UTC)))

    assert response.headers["Refresh"] == "2"
    assert "Nothing came in" in response.text


def test_the_test_ends_with_hints_when_nothing_comes(sign_in: SignIn) -> None:
    response = sign_in("admin").get(since(datetime.now(UTC) - timedelta(minutes=6)))

    assert "Refresh" not in response.headers
    assert "Does it reach this server?" in response.text


def test_the_test_says_what_came_and_nothing_older(
    client: FlaskClient, sign_in: SignIn, mock_stores: Stores
) -> None:
    notify(client, "/events", wire_event(tag="before", at=datetime.now(UTC)))
    work_in(mock_stores)
    began = datetime.now(UTC) + timedelta(milliseconds=1)
    while datetime.now(UTC) < began + timedelta(milliseconds=2):
        pass
    notify(client, "/events", wire_event("pull", tag="v7", at=datetime.now(UTC)))
    work_in(mock_stores)

    response = sign_in("admin").get(since(began))

    assert "Refresh" not in response.headers
    assert "It works:" in response.text
    assert ("v7" in response.text, "before" in response.text) == (True, False)


def test_the_test_says_who_was_refused_and_what_was_not_understood(
    client: FlaskClient, sign_in: SignIn, mock_stores: Stores
) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    notify(client, "/events", headers={})
    notify(client, "/events", {"id": "broken"})
    work_in(mock_stores)

    text = sign_in("admin").get(since(began)).text

    assert "Refused, from 127.0.0.1:" in text
    assert "Not understood:" in text


@pytest.mark.parametrize("given", ["", "x", "9" * 30])
def test_a_test_without_a_beginning_is_refused(sign_in: SignIn, given: str) -> None:
    assert sign_in("admin").get(f"/wiring/test?since={given}").status_code == 400


# Rejected events


@pytest.fixture
def broken(client: FlaskClient, mock_stores: Stores) -> str:
    """The id of an event whose clock was ahead, and that can be taken in by now."""
    event = wire_event(tag="v9", at=datetime.now(UTC) - timedelta(minutes=1))
    body = msgspec.json.encode(event).decode()
    mock_stores.rejected._collection.insert_one(
        {"_id": "a1", "registry": "default", "reason": "clock", "body": body, "received_at": NOW}
    )
    mock_stores.rejected._collection.insert_one(
        {"_id": "b2", "registry": "default", "reason": "odd", "body": "{}", "received_at": NOW}
    )
    return "a1"


def act(client: FlaskClient, action: str, **fields: str) -> str:
    token = csrf_token(client.get("/wiring/rejected").text)
    path = f"/wiring/rejected/{action}"
    response = client.post(path, data={"csrf_token": token, **fields}, follow_redirects=True)
    assert response.status_code == 200
    return str(response.text)


def test_a_rejected_event_that_is_understood_now_is_taken_in(
    sign_in: SignIn, mock_stores: Stores, broken: str
) -> None:
    text = act(sign_in("admin"), "retry", id=broken)

    work_in(mock_stores)
    assert "Took in 1 again." in text
    assert [event.tag for event in mock_stores.events.iterate()] == ["v9"]
    assert [event.id for event in mock_stores.rejected.find_all()] == ["b2"]


def test_one_that_is_not_understood_stays_and_the_reason_is_told(
    sign_in: SignIn, mock_stores: Stores, broken: str
) -> None:
    text = act(sign_in("admin"), "retry")

    assert "Took in 1 again; 1 are still not understood: " in text
    assert [event.id for event in mock_stores.rejected.find_all()] == ["b2"]


def test_rejected_events_are_dropped_one_or_all(
    sign_in: SignIn, mock_stores: Stores, broken: str
) -> None:
    admin = sign_in("admin")

    assert "Dropped 1." in act(admin, "drop", id="b2")
    assert [event.id for event in mock_stores.rejected.find_all()] == [broken]
    assert "Dropped 1." in act(admin, "drop")
    assert mock_stores.rejected.count() == 0


def test_the_api_lists_retries_and_drops_for_administrators_alone(
    client: FlaskClient, mock_stores: Stores, broken: str
) -> None:
    path = "/api/v1/rejected-events"
    post = lambda action, name, body: client.post(  # noqa: E731
        f"{path}/{action}", json=body, headers=basic(name)
    )

    assert client.get(path, headers=basic("alice")).status_code == 403
    assert post("drop", "alice", {}).status_code == 403
    items = client.get(path, headers=basic("admin")).json["items"]
    assert {item["id"] for item in items} == {"a1", "b2"}
    assert post("drop", "admin", {"id": "none"}).status_code == 404
    assert post("drop", "admin", {"ids": "b2"}).status_code == 400
    assert mock_stores.rejected.count() == 2
    assert post("drop", "admin", {"id": "b2"}).json == {"message": "Dropped 1."}
    assert post("retry", "admin", {}).json == {"message": "Took in 1 again."}
    assert mock_stores.rejected.count() == 0


def test_rejected_events_are_paged_the_newest_first(mock_stores: Stores) -> None:
    for number in range(5):
        mock_stores.rejected._collection.insert_one(
            {
                "_id": f"id{number}",
                "registry": "default",
                "reason": "odd",
                "body": "{}",
                "received_at": NOW + timedelta(seconds=number // 2),
            }
        )
    pages, cursor = [], None
    while True:
        page = mock_stores.rejected.find_page(cursor=cursor, limit=2)
        pages.append([event.id for event in page.items])
        cursor = page.next
        if cursor is None:
            break

    assert pages == [["id4", "id3"], ["id2", "id1"], ["id0"]]


# Empty pages

EMPTY = ["/search/", "/search/user/login/", "/search/user/repo/login/", "/analysis/user/login/"]


@pytest.mark.parametrize("path", [*EMPTY, "/analysis/", "/analysis/unused"])
def test_an_empty_page_says_which_of_the_cases_it_is(
    client: FlaskClient, sign_in: SignIn, mock_stores: Stores, path: str
) -> None:
    admin, mallory = sign_in("admin"), sign_in("mallory")
    shown: list[tuple[str, ...]] = []

    def look() -> None:
        texts = (admin.get(path).text, mallory.get(path).text)
        cases = [re.search(r"<p class=.mb-1.><strong>(.*?)</strong>", text) for text in texts]
        shown.append(tuple(case[1] if case else "" for case in cases))

    look()
    notify(client, "/events", headers={})
    look()
    notify(client, "/events", {"id": "broken"})
    look()
    work_in(mock_stores)
    look()

    assert shown == [
        ("Nothing ever arrived.", "Nothing ever arrived."),
        ("Something came, and was refused.", "Nothing ever arrived."),
        ("Something came, and is being worked in.", "Nothing that you may see."),
        ("What came was not understood.", "Nothing that you may see."),
    ]


# Below a path


def test_below_a_base_path_every_link_has_it(make_app: Callable[..., Flask], app: Flask) -> None:
    client = make_app(server=Server(base_path="/rns")).test_client()

    for path in ("/search/", "/rns/search/"):
        response = client.get(path)
        assert response.headers["Location"] == "/rns/login?next=/rns/search/"
    text = client.get("/login").text
    assert 'href="/rns/static/' in text
    assert re.findall(r'(?:href|src|action)="/(?!rns/)', text) == []
    assert notify(client, "/rns/events", wire_event()).status_code == 202
    assert notify(client, "/events", wire_event()).status_code == 202


def test_signing_in_below_a_path_keeps_the_cookie_to_it(
    make_app: Callable[..., Flask], app: Flask
) -> None:
    client = make_app(server=Server(base_path="/rns")).test_client()
    token = csrf_token(client.get("/rns/login").text)
    form = {"username": "admin", "password": "secret-admin", "csrf_token": token}

    response = client.post("/rns/login", data=form)

    assert response.headers["Location"] == "/rns/search/"
    assert "Path=/rns" in response.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("proxies", "header", "prefix"),
    [
        (1, "/rns", "/rns"),
        (1, "/a/b/", "/a/b"),
        (1, "/evil, /rns", "/rns"),
        (2, "/rns, /inner", "/rns"),
        (1, "//evil.example", ""),
        (1, "https://evil.example", ""),
        (1, "/a b", ""),
        (0, "/rns", ""),
    ],
)
def test_the_prefix_of_a_trusted_proxy_is_taken_if_it_is_a_path(
    make_app: Callable[..., Flask], app: Flask, proxies: int, header: str, prefix: str
) -> None:
    server, access = Server(trusted_proxies=proxies), Access()
    client = make_app(server=server, access=access).test_client()

    response = client.get("/search/", headers={"X-Forwarded-Prefix": header})

    assert response.headers["Location"].startswith(f"{prefix}/login?next={prefix}/search/")


def test_what_a_stranger_sends_reaches_no_terminal_as_it_is(
    client: FlaskClient, mock_stores: Stores
) -> None:
    notify(client, "/%1b[2J%0a%07x")

    [refusal] = mock_stores.wiring.find_refusals()
    assert refusal.text.isprintable()


def test_what_was_taken_over_from_the_original_is_no_sign_of_a_wiring(
    mock_stores: Stores, settings: Settings
) -> None:
    now = datetime.now(UTC)
    fields = {"repo": "team/app:v1", "action": "push", "timestamp": now - timedelta(days=2)}
    taken = [parse_record(Row(str(n), None, fields), "default", now) for n in range(9)]
    Derivation(mock_stores).work_in(taken)

    [registry] = find_wiring(mock_stores, settings, now).registries

    assert registry.last is None
    assert registry.problems == ["nothing came from it within 30 days"]
