"""/api/v1/openapi.json: the API as OpenAPI 3.1, made of the forms and structs it consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec
from werkzeug.datastructures import MultiDict
from wtforms import IntegerField, SelectField
from wtforms.validators import NumberRange

from app.analysis.explain import Answer
from app.analysis.recall import Consumer, Interval
from app.analysis.storage import Growth
from app.analysis.unused import UnusedTag
from app.migration.progress import Progress
from app.migration.readiness import Check
from app.rules.events import Event, Rejected
from app.store.catalogue import Move, Repository, Tag
from app.store.manifests import Manifest
from app.store.migrations import Drift, Job
from app.store.sign_ins import SignIn
from app.version import VERSION
from app.web import forms
from app.web.analysis import INTERNAL, PROOFS
from app.web.figures import Figures
from app.web.lists import FILES, MAX_PAGE_SIZE, PAGE_SIZE
from app.web.migration import MAX_DELETES, SECRET, TAKES

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
ERRORS = {
    "400": "A filter that does not exist, or a value that cannot be used.",
    "401": "No account, a wrong password, or a wrong token.",
    "403": "The account is no administrator, or a token would change something.",
    "404": "There is no such resource, or the account may not see it.",
    "409": "Not in the state that things are in; the answer says what would come first.",
    "429": "Too many failed sign-ins; Retry-After says when to come back.",
    "503": "The database is away, or who knows the accounts; Retry-After says when to come back.",
}
LIST_PARAMETERS: list[Schema] = [
    {
        "name": "limit",
        "in": "query",
        "description": "Items of a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": PAGE_SIZE},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "Where a page begins: follow `next`.",
        "schema": {"type": "string"},
    },
]
TOTAL: Schema = {
    "name": "total",
    "in": "query",
    "description": "1: say how many there are; it costs several times what the page costs.",
    "schema": {"enum": ["0", "1"], "default": "0"},
}
LIST_PARAMETERS.append(TOTAL)
FORMAT: Schema = {
    "name": "format",
    "in": "query",
    "description": "The whole list as a file, instead of a page of JSON.",
    "schema": {"enum": list(FILES)},
}


def _in_path(name: str, description: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


NAME = _in_path("name", "Of a migration in config.yml.")
REPOSITORY = _in_path("repository", "The whole name; its slashes may stand as they are.")
PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string", "description": "What the status means."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, for a person."},
        "code": {"type": "string", "description": "What is wrong, for a program."},
        "field": {"type": "string", "description": "The parameter that is wrong."},
    },
    "required": ["type", "title", "status", "detail", "code"],
}
ACTIONS = {
    "start": "Begin, or crawl once more.",
    "pause": "Begin no more jobs.",
    "resume": "Go on.",
    "lift-brake": "Carry out deletes as they come, after the brake.",
    "verify": "Have a worker compare both sides; what differs is copied anew.",
    "retry": "Begin jobs anew: all that failed, those of a class, or one.",
    "skip": "Leave a job out until its tag is pushed again.",
}
ONE_OF = {
    "repositories": "repository",
    "tags": "tag",
    "manifests": "manifest",
    "records": "record",
    "migrations": "migration",
}
REJECTED_ACTIONS = {
    "retry": "Take one rejected event in again, or all that are understood now.",
    "drop": "Forget one rejected event, or all.",
}
NUMBER = {"minimum": 0, "maximum": MAX_DELETES}
TYPES = {"allow_deletes": {"anyOf": [{"type": "integer", **NUMBER}, {"type": "string"}]}}


class List(msgspec.Struct, frozen=True):
    """A list of the API: its filters, and its items, `struct` without `left_out` but `added`."""

    summary: str
    form: type[forms.FilterForm]
    struct: type[msgspec.Struct]
    left_out: Sequence[str] = ()
    added: dict[str, Any] = {}
    beside: dict[str, Any] = {}  # what the answer has besides a page


LISTS = {
    "/repositories": List(
        "Repositories", forms.RepositoryFilter, Repository, added={"tags": int, "pulls": int | None}
    ),
    "/tags": List(
        "Tags",
        forms.TagFilter,
        Tag,
        added={"size": int | None, "platforms": str | None, "signed": bool},
    ),
    "/records": List("Records, newest first", forms.RecordFilter, Event, INTERNAL),
    "/unused": List(
        "Tags that nobody used for some days",
        forms.UnusedFilter,
        UnusedTag,
        added={name: datetime | None if name.endswith("_at") else str | None for name in PROOFS},
        beside={
            "since": datetime,
            "too_new": dict[str, datetime],
            "silent": dict[str, date],
            "unclear": list[str],
            "missing": list[date],
            "freed": int,
            "unknown": int,
            "maybe_shared": int,
        },
    ),
    "/storage": List(
        "What the tags of each namespace hold, and what of it came in some days",
        forms.StorageFilter,
        Growth,
        beside={
            "first": date,
            "last": date,
            "size": int,
            "came": int,
            "unknown": int,
            "undated": int,
        },
    ),
    "/history": List("What a tag pointed to, newest first", forms.HistoryFilter, Move),
    "/recall": List(
        "Who pulled an image",
        forms.RecallFilter,
        Consumer,
        beside={
            "digests": list[str],
            "intervals": list[Interval],
            "kept_since": datetime | None,
        },
    ),
    "/sign-ins": List("Sign-ins, for administrators", forms.SignInFilter, SignIn),
    "/rejected-events": List(
        "Events that could not be understood, for administrators", forms.FilterForm, Rejected
    ),
    "/migrations": List("Migrations, for administrators", forms.FilterForm, Progress),
    "/migrations/{name}/jobs": List("Jobs of a migration", forms.JobFilter, Job, SECRET),
    "/migrations/{name}/drift": List(
        "Differences that the last verification found", forms.DriftFilter, Drift
    ),
}


def describe(root: str = "") -> Schema:
    """The document; `root` is the path below which this server is."""
    structs = [entry.struct for entry in LISTS.values()] + [Figures, Answer, Check, Interval]
    _, components = msgspec.json.schema_components([*structs, Manifest], ref_template=REFERENCE)
    components["Problem"] = PROBLEM
    components["Message"] = _object({"message": {"type": "string"}})
    components["Manifest"] = _object(
        components["Manifest"]["properties"]
        | {"registry": {"type": "string"}, "total_size": {"type": ["integer", "null"]}}
    )
    for entry in LISTS.values():
        _shape_items(entry, components)
    usage = [*_parameters(forms.UsageFilter), FORMAT]
    ready = _page(_ref("Check"), {"ready": {"type": "boolean"}})
    answers = {
        "/usage": _operation("Figures of a period", _ref("Figures"), usage),
        "/access": _operation(
            "Why an account may or may not see a repository, for administrators",
            _ref("Answer"),
            _parameters(forms.AccessFilter),
        ),
        "/repositories/{repository}": _operation(
            "A repository", _ref("Repository"), [REPOSITORY, *_parameters(forms.RegistryFilter)]
        ),
        "/tags/{repository}:{tag}": _operation(
            "A tag",
            _ref("Tag"),
            [REPOSITORY, _in_path("tag", "The whole tag."), *_parameters(forms.RegistryFilter)],
        ),
        "/manifests/{digest}": _operation(
            "What is known of a manifest",
            _ref("Manifest"),
            [_in_path("digest", "The whole digest.")],
        ),
        "/records/{id}": _operation(
            "A record", _ref("Event"), [_in_path("id", "The `id` of a record.")]
        ),
        "/migrations/{name}": _operation("A migration", _ref("Progress"), [NAME]),
        "/migrations/{name}/ready": _operation("Whether it may be cut over", ready, [NAME]),
    }
    answers |= {path: _list(path, entry) for path, entry in LISTS.items()}
    paths = {path: {"get": answer} for path, answer in answers.items()}
    for action, summary in ACTIONS.items():
        takes = TAKES.get(action, set())
        paths[f"/migrations/{{name}}/{action}"] = {"post": _action(summary, takes, [NAME])}
    for action, summary in REJECTED_ACTIONS.items():
        paths[f"/rejected-events/{action}"] = {"post": _action(summary, {"id"}, [])}
    for path, methods in paths.items():
        for method, operation in methods.items():
            operation["operationId"] = _operation_id(method, path)
    schemes = {
        "account": {"type": "http", "scheme": "basic", "description": "The registry account."},
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token, as rns_…; it reads, and changes nothing.",
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Registry Notification Server",
            "version": VERSION,
            "description": "What a container registry's events tell. An account gets what it may "
            "pull, and nothing else exists for it. What is not shown of other people "
            "(access.records) is empty or null. Times are RFC 3339 in UTC.",
        },
        "servers": [{"url": f"{root}/api/v1"}],
        "security": [{"account": []}, {"token": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": schemes},
    }


def _operation_id(method: str, path: str) -> str:
    """As `list_records`, `get_tag`, `start_migration`: the name of a function in a client."""
    first, *rest = path.strip("/").split("/")
    if rest:
        first = ONE_OF.get(first, first)
    words = [first, *(word for word in rest if "{" not in word)]
    if method == "post":
        words = [words.pop(), *words]
    else:
        words.insert(0, "list" if path in LISTS else "get")
    return "_".join(words).replace("-", "_")


def _shape_items(entry: List, components: Schema) -> None:
    """Make the struct's schema that of the list's items."""
    if entry.left_out or entry.added:
        fields = components[entry.struct.__name__]["properties"]
        kept = {name: field for name, field in fields.items() if name not in entry.left_out}
        components[entry.struct.__name__] = _object(kept | _schemas(entry.added))


def _list(path: str, entry: List) -> Schema:
    item = _ref(entry.struct.__name__)
    parameters = [*_parameters(entry.form), *LIST_PARAMETERS, FORMAT]
    if NAME["name"] in path:
        parameters.insert(0, NAME)
    return _operation(entry.summary, _page(item, _schemas(entry.beside)), parameters)


def _action(summary: str, takes: set[str], parameters: list[Schema]) -> Schema:
    fields = {name: TYPES.get(name, {"type": "string"}) for name in sorted(takes)}
    body = {"type": "object", "properties": fields, "additionalProperties": False}
    return {
        **_operation(summary, _ref("Message"), parameters),
        "security": [{"account": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
    }


def _page(item: Schema, beside: Schema) -> Schema:
    page = _object(
        {
            "items": {"type": "array", "items": item},
            "next": {
                "type": ["string", "null"],
                "format": "uri",
                "description": "The next page; null on the last one.",
            },
            **beside,
        }
    )
    page["properties"]["total"] = {"type": "integer", "description": "Only with `total=1`."}
    page["properties"]["total_is_minimum"] = {
        "type": "boolean",
        "description": "There are more: counting stopped at `total`.",
    }
    page["properties"]["up_to"] = {
        "type": "string",
        "format": "date-time",
        "description": "Only while events wait to be worked in: what came later is missing.",
    }
    return page


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _operation(summary: str, answer: Schema, parameters: Sequence[Schema]) -> Schema:
    failed = {"application/problem+json": {"schema": _ref("Problem")}}
    found = {"application/json": {"schema": answer}}
    if FORMAT in parameters:
        found |= {name: {"schema": {"type": "string"}} for name in FILES.values()}
    return {
        "summary": summary.rstrip("."),
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "Found.", "content": found},
            **{code: {"description": reason, "content": failed} for code, reason in ERRORS.items()},
        },
    }


def _parameters(form: type[forms.FilterForm]) -> list[Schema]:
    """The fields of a filter form as query parameters."""
    return [
        {
            "name": field.name,
            "in": "query",
            "required": bool(field.flags.required),
            "description": f"{field.label.text}: {field.description}".rstrip(": "),
            "schema": _field_schema(field),
        }
        for field in form(MultiDict())
    ]


def _field_schema(field: Any) -> Schema:
    if isinstance(field, forms.PeriodField):
        return {
            "type": "integer",
            "minimum": 1,
            "maximum": field.longest,
            "default": int(field.default),
        }
    if isinstance(field, SelectField):
        return {"enum": [choice.value for choice in field.choices if choice.value]}
    if isinstance(field, forms.SwitchField):
        return {"enum": [*field.OFF, *field.ON]}
    if isinstance(field, IntegerField):
        within = next(each for each in field.validators if isinstance(each, NumberRange))
        return {
            "type": "integer",
            "minimum": within.min,
            "maximum": within.max,
            "default": field.default,
        }
    if isinstance(field, forms.DayField):
        return {"type": "string", "format": "date"}
    return {"type": "string", "minLength": 1} if field.flags.required else {"type": "string"}


def _ref(name: str) -> Schema:
    return {"$ref": REFERENCE.format(name=name)}


def _schemas(kinds: Mapping[str, Any]) -> Schema:
    schemas, _ = msgspec.json.schema_components(kinds.values(), ref_template=REFERENCE)
    return dict(zip(kinds, schemas, strict=True))
