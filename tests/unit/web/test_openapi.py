"""The API's description: it names what there is, and what there is looks like that."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from builders import INDEX, NOW, basic, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

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
    "/storage",
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
CHANGING = [
    *(f"/migrations/{{name}}/{action}" for action in TAKES),
    "/rejected-events/retry",
    "/rejected-events/drop",
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


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("path", [*PATHS, *CHANGING])
def test_whatever_is_asked_the_answer_is_one_of_those_described(
    admin: FlaskClient, path: str, mode: GenerationMode
) -> None:
    api = schemathesis.openapi.from_wsgi(f"{PREFIX}/openapi.json", admin.application)
    operation = api[path]["GET" if path in PATHS else "POST"]
    there, needed = examples(admin), QUERIES.get(path, {})

    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy(generation_mode=mode), st.booleans(), st.booleans())
    def ask(case: schemathesis.Case, is_there: bool, is_whole: bool) -> None:
        if mode is GenerationMode.POSITIVE and is_there:
            case.path_parameters |= {name: there[name] for name in case.path_parameters}
            case.query = needed | case.query if is_whole else case.query
        answer = case.call(headers=basic("admin"))
        query = parse_qsl(urlsplit(answer.request.url).query, keep_blank_values=True)
        assume(all(value.strip() for _, value in query))  # what is empty is not asked

        case.validate_response(answer, checks=CHECKS)
        if mode is GenerationMode.POSITIVE and answer.status_code == 400:
            assert is_free_text(operation, answer.json().get("field")), answer.text

    ask()


def is_free_text(operation: Any, name: str | None) -> bool:
    """Whether a parameter, or what it is not told of, may be a text that cannot be used."""
    schemas = {row["name"]: row["schema"] for row in operation.definition.raw["parameters"]}
    if "requestBody" in operation.definition.raw:
        content = operation.definition.raw["requestBody"]["content"]["application/json"]
        schemas |= content["schema"]["properties"]
    if name not in schemas:
        return True
    kinds = schemas[name].get("anyOf", [schemas[name]])
    return any(each.get("type") == "string" and "enum" not in each for each in kinds)


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
