"""The API's description: it names what there is, and what there is looks like that."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
from builders import INDEX, NOW, basic, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from app.settings import Migration, Source, Target
from app.store import Stores
from app.store.migrations import Drift, Wish
from app.web.migration import TAKES
from app.web.openapi import LISTS

Store = Callable[..., None]
PREFIX = "/api/v1"
PLAN = Migration(
    name="dc2", source=Source(url="https://old.example"), target=Target(url="https://new.example")
)


@pytest.fixture
def admin(make_app: Callable[..., Flask], app: Flask, store: Store, mock_stores: Stores) -> Any:
    """A client with something on every list."""
    child = digest("child")
    store(
        wire_event("push", tag="v1", at=NOW),
        wire_event("push", tag="multi", of="index", media_type=INDEX, references=[child], at=NOW),
        wire_event("pull", tag="v1", at=NOW),
        wire_event("delete", "team/gone", tag="v1", at=NOW),
        {"id": "broken", "timestamp": NOW.isoformat()},
    )
    mock_stores.migrations.jobs.wish([Wish("dc2", "team/app", "v1")], NOW)
    row = Drift(plan="dc2", repository="team/app", reference="v1", kind="missing", at=NOW)
    mock_stores.migrations.runs.set_drift("dc2", [row])
    client = make_app(migrations=[PLAN]).test_client()
    client.get(f"{PREFIX}/records", headers=basic("admin", "wrong"))
    client.environ_base["HTTP_AUTHORIZATION"] = basic("admin")["Authorization"]
    return client


@pytest.fixture
def description(admin: FlaskClient) -> Any:
    return admin.get(f"{PREFIX}/openapi.json").json


def test_every_path_of_the_api_is_described_and_no_other(
    admin: FlaskClient, description: Any
) -> None:
    described = {
        (method.upper(), path.format(**EXAMPLES))
        for path, methods in description["paths"].items()
        for method in methods
    }

    found = set()
    for rule in admin.application.url_map.iter_rules():
        if rule.endpoint.startswith("api.") and rule.endpoint not in ("api.unknown", "api.openapi"):
            path = rule.rule.removeprefix(PREFIX)
            path = re.sub(r"<(?:path:)?(\w+)>", lambda match: EXAMPLES[match[1]], path)
            start, _, rest = path.partition("<any(")
            choices, _, end = rest.partition("):")
            names = choices.replace("'", "").split(", ") if rest else [""]
            method = "POST" if "POST" in (rule.methods or ()) else "GET"
            found |= {(method, f"{start}{name}{end.partition('>')[2]}") for name in names}
    assert described == found


ENTRY = '{"seq": 15, "match": {"account": "alice"}, "actions": []}'
QUERIES = {
    "/history": {"repository": "team/app", "tag": "v1"},
    "/recall": {"repository": "team/app", "tag": "v1"},
    "/unused": {"days": "1"},
    "/access": {"account": "alice", "repository": "team/app", "entry": ENTRY},
    "/tags": {"deleted": "1"},
}
PATHS = [
    "/repositories",
    "/tags",
    "/records",
    "/history",
    "/unused",
    "/recall",
    "/sign-ins",
    "/usage",
    "/access",
    "/migrations",
    "/migrations/{name}",
    "/migrations/{name}/jobs",
    "/migrations/{name}/drift",
    "/migrations/{name}/ready",
    "/rejected-events",
    "/repositories/{repository}",
    "/tags/{repository}:{tag}",
    "/manifests/{digest}",
    "/records/{id}",
]
EXAMPLES = {
    "name": "dc2",
    "repository": "team/app",
    "tag": "v1",
    "digest": digest("image"),
    "id": "x",
}


def examples(admin: FlaskClient) -> dict[str, str]:
    """What the parameters of a path may be, of what is there."""
    return {**EXAMPLES, "id": admin.get(f"{PREFIX}/records").json["items"][0]["id"]}


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_looks_as_described(admin: FlaskClient, description: Any, path: str) -> None:
    query = QUERIES.get(path, {}) | ({"total": "1"} if path in LISTS else {})
    answer = admin.get(PREFIX + path.format(**examples(admin)), query_string=query)

    assert answer.status_code == 200, answer.text
    schema = described(description, path, "get", "200")
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(answer.json)
    if "items" in answer.json:
        assert answer.json["items"] or path == "/unused"
        fields = named(description, schema["properties"]["items"]["items"])["properties"]
        assert all(item.keys() == fields.keys() for item in answer.json["items"])
        assert answer.json.keys() <= schema["properties"].keys()


@pytest.mark.parametrize("path", PATHS)
def test_the_filters_of_a_path_are_those_described(
    admin: FlaskClient, description: Any, path: str
) -> None:
    answer = admin.get(PREFIX + path.format(**examples(admin)), query_string={"no": "1"})

    refusal = answer.json["detail"]
    known = refusal.partition("known are ")[2].split(", ")
    parameters = description["paths"][path]["get"]["parameters"]
    given = [row["name"] for row in parameters if row["in"] == "query"]
    assert sorted(given) == sorted(filter(None, known))
    Draft202012Validator(described(description, path, "get", "400")).validate(answer.json)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("start", {}),
        ("pause", {}),
        ("resume", {"allow_deletes": 3}),
        ("lift-brake", {}),
        ("retry", {"class": "down"}),
        ("skip", {"id": "dc2 team/app v1"}),
    ],
)
def test_an_action_takes_and_answers_what_is_described(
    admin: FlaskClient, description: Any, action: str, body: dict[str, Any]
) -> None:
    path = f"/migrations/{{name}}/{action}"
    if action == "resume":
        admin.post(f"{PREFIX}/migrations/dc2/pause", json={})

    answer = admin.post(PREFIX + path.format(name="dc2"), json=body)

    assert answer.status_code == 200, answer.text
    taken = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    Draft202012Validator(taken["schema"]).validate(body)
    Draft202012Validator(described(description, path, "post", "200")).validate(answer.json)


# Values as somebody may write them; of free text each may be right or wrong.
TEXTS = st.sampled_from(["team/app", "v1", "alice", "default", "10.0.0.0/8", "^t", "a*", "-", "x"])
ODD = st.sampled_from(["\0", "ü\ud800", "%", "'", "{}", "sha256:", "9" * 30, "1e3", "a" * 300, " "])
ANY = TEXTS | ODD | st.text(max_size=8)


class Value(NamedTuple):
    text: str
    is_right: bool | None  # as declared; None where the declaration does not say


def values(schema: Any) -> st.SearchStrategy[Value]:
    """Right and wrong values of a parameter."""
    if "enum" in schema:
        right = st.sampled_from(schema["enum"])
        wrong = ANY.filter(lambda text: text.strip() and text.strip() not in schema["enum"])
    elif schema["type"] == "integer":
        least, most = schema.get("minimum", 1), schema.get("maximum", 1000)
        right = st.integers(least, most).map(str)
        wrong = st.sampled_from(["x", "1.5", "0x1", "1 2", "{}"])
        if "minimum" in schema:
            wrong |= st.sampled_from([least - 1, most + 1, 10**30]).map(str)
    elif schema.get("format") == "date":
        right = st.dates(date(2020, 1, 1), date(2026, 12, 31)).map(str)
        wrong = st.sampled_from(["x", "2026-13-01", "2026", "20261"])
        return right.map(lambda text: Value(text, None)) | wrong.map(lambda t: Value(t, False))
    else:
        return ANY.map(lambda text: Value(text, None))
    return right.map(lambda text: Value(text, True)) | wrong.map(lambda text: Value(text, False))


def check_answer(description: Any, path: str, method: str, answer: Any) -> None:
    """Raise unless an answer has a declared status, content type and shape."""
    told = description["paths"][path][method]["responses"]
    assert str(answer.status_code) in told, answer.text
    content = told[str(answer.status_code)]["content"]
    assert answer.mimetype in content
    if answer.is_json or answer.mimetype.endswith("+json"):
        schema = {**content[answer.mimetype]["schema"], "components": description["components"]}
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(
            json.loads(answer.text)
        )


@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_asked_the_answer_is_one_of_those_described(
    admin: FlaskClient, description: Any, path: str
) -> None:
    parameters = description["paths"][path]["get"]["parameters"]
    optional = {row["name"]: values(row["schema"]) for row in parameters if row["in"] == "query"}
    in_path = [row["name"] for row in parameters if row["in"] == "path"]
    there, needed = examples(admin), QUERIES.get(path, {})

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.fixed_dictionaries({}, optional=optional),
        st.fixed_dictionaries({}, optional=dict.fromkeys(in_path, ANY)),
        st.booleans(),
    )
    def ask(asked: dict[str, Value], names: dict[str, str], is_whole: bool) -> None:
        query = needed if is_whole else {}
        query = query | {name: value.text for name, value in asked.items()}
        filled = {name: quote(names.get(name) or there[name], errors="replace") for name in in_path}
        url = PREFIX + path.format(**filled)
        answer = admin.get(url, query_string=urlencode(query, errors="replace"))

        if names and answer.status_code == 404:
            return  # of another resource, or of none
        if not names:
            check_answer(description, path, "get", answer)
        rights = [value.is_right for value in asked.values()]
        if False in rights:
            assert answer.status_code in (400, 404), answer.text
        elif is_whole and None not in rights:
            assert answer.status_code == 200, answer.text

    ask()


@pytest.mark.parametrize(
    "path",
    [
        *(f"/migrations/{{name}}/{action}" for action in TAKES),
        "/rejected-events/retry",
        "/rejected-events/drop",
    ],
)
def test_whatever_is_wanted_the_answer_is_one_of_those_described(
    admin: FlaskClient, description: Any, path: str
) -> None:
    operation = description["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    anything = st.integers(-1, 2**40) | ANY | st.none() | st.just([1])
    bodies = st.fixed_dictionaries(
        {}, optional=dict.fromkeys([*schema["properties"], "no"], anything)
    )

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, st.sampled_from(["dc2", "dc2", "other"]))
    def want(body: dict[str, Any], name: str) -> None:
        answer = admin.post(PREFIX + path.format(name=name), json=body)

        check_answer(description, path, "post", answer)
        if answer.status_code == 200:
            Draft202012Validator(schema).validate(body)

    want()


def test_the_description_is_for_everybody_and_the_same_for_all(
    client: FlaskClient, description: Any
) -> None:
    assert client.get(f"{PREFIX}/openapi.json").json == description


def test_what_is_refused_when_it_is_missing_or_empty_is_described_so(
    admin: FlaskClient, description: Any
) -> None:
    for path in PATHS:
        for row in description["paths"][path]["get"]["parameters"]:
            if row["in"] == "query" and row.get("required"):
                assert row["schema"]["minLength"] == 1, (path, row)
                query = QUERIES[path] | {row["name"]: ""}
                answer = admin.get(PREFIX + path.format(**examples(admin)), query_string=query)
                assert (answer.status_code, answer.json["field"]) == (400, row["name"])
    for path, methods in description["paths"].items():
        if "post" in methods:
            assert methods["post"]["requestBody"]["required"], path
            assert admin.post(PREFIX + path.format(**EXAMPLES)).status_code == 400


def test_every_operation_has_a_name_of_its_own(description: Any) -> None:
    names = [
        row["operationId"] for methods in description["paths"].values() for row in methods.values()
    ]

    assert len(names) == len(set(names))
    assert {"list_records", "get_tag", "start_migration", "list_migration_jobs"} <= set(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)


def test_the_items_of_a_list_are_tied_to_a_named_type(description: Any) -> None:
    for path in LISTS:
        schema = description["paths"][path]["get"]["responses"]["200"]["content"]
        items = schema["application/json"]["schema"]["properties"]["items"]["items"]
        assert list(items) == ["$ref"], path
        assert named(description, items)["properties"]


def test_the_page_of_the_api_names_all_of_it_without_a_sign_in(
    client: FlaskClient, description: Any
) -> None:
    answer = client.get("/api/")

    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?! src=)|style=|onclick", answer.text)
    for path in description["paths"]:
        assert path in answer.text


def test_a_token_is_described_as_what_reads_and_changes_nothing(description: Any) -> None:
    schemes = description["components"]["securitySchemes"]
    reads, changes = [], []
    for methods in description["paths"].values():
        for method, operation in methods.items():
            security = operation.get("security", description["security"])
            (reads if method == "get" else changes).append(security)

    assert schemes["token"]["scheme"] == "bearer"
    assert all({"token": []} in security for security in reads)
    assert changes
    assert all(security == [{"account": []}] for security in changes)


def described(description: Any, path: str, method: str, code: str) -> Any:
    """The schema of an answer, with what it refers to."""
    contents = description["paths"][path][method]["responses"][code]["content"]
    content = contents["application/json" if code == "200" else "application/problem+json"]
    return {**content["schema"], "components": description["components"]}


def named(description: Any, reference: Any) -> Any:
    return description["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
