"""`rns accounts import` and `rns acl import`, on mongomock and on a wire server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run

from app.rules.access import Account, compile_rule
from app.store import Stores
from app.store.htpasswd import Htpasswd

HASH = "$2y$05$LO.vzwpWC5LZGqThvEfznu8qhb5SGqvBSWY1J3yZ4AxtMRZ3kN5jC"  # badmin
CONFIG = f"""\
server: {{addr: ":5001"}}
token: {{issuer: "Acme auth server", expiration: 900}}
users:
  "admin":
    password: "{HASH}"
  007:
    password: "{HASH}"
    labels: {{group: [dev, 42], site: [yes]}}
  "": {{}}
acl:
  - match: {{account: "admin"}}
    actions: ["*"]
    comment: "Admin has full access to everything."
  - match: {{account: 007, name: "test-*"}}
    actions: ["*"]
  - match: {{account: 007}}
    actions: []
  - match: {{account: "/.+/", name: "${{account}}/*", ip: }}
    actions: [push, pull]
acl_mongo:
  collection: acl
"""
SEEDS = """\
{"seq": 10, "match" : {"account" : "admin"}, "actions" : ["*"], "comment" : "Admin"}

{"seq": 20, "match" : {"labels": {"group": "dev"}}, "actions" : ["pull"]}
"""


@pytest.fixture(autouse=True)
def everywhere(stores: Stores, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands work on `stores`: mongomock, and the server."""
    monkeypatch.setattr("app.cli.imports.open_stores", lambda settings: stores)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def file(text: str) -> str:
        path = tmp_path / "auth_config.yml"
        path.write_text(text, "utf-8")
        return str(path)

    return file


def acl_of(stores: Stores) -> list[tuple[int, Any, Any]]:
    documents = stores.accounts.find_acl_documents()
    return [(d["seq"], d["match"], d["actions"]) for d in documents]


def test_the_acl_of_docker_auths_file_is_added_in_its_order(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    result = run("acl", "import", file(CONFIG))

    assert (result.status, result.err) == (0, "")
    assert result.out.endswith("added 4, left 0 that are there already\n")
    assert acl_of(stores) == [
        (10, {"account": "admin"}, ["*"]),
        (20, {"account": "007", "name": "test-*"}, ["*"]),
        (30, {"account": "007"}, []),
        (40, {"account": "/.+/", "name": "${account}/*"}, ["push", "pull"]),
    ]
    comments = [d.get("comment") for d in stores.accounts.find_acl_documents()]
    assert comments == ["Admin has full access to everything.", None, None, None]
    acl = stores.accounts.load_acl()
    assert (acl.problems, acl.is_valid) == ((), True)


@pytest.mark.parametrize("text", [CONFIG, SEEDS, "- {match: {}, actions: [pull]}\n"])
def test_an_import_that_is_repeated_adds_nothing(
    run: Run, stores: Stores, file: Callable[[str], str], text: str
) -> None:
    run("acl", "import", file(text))
    before = acl_of(stores)

    again = run("acl", "import", file(text))

    assert (again.status, len(before) > 0) == (0, True)
    assert again.out.startswith("added 0, left")
    assert acl_of(stores) == before


def test_entries_that_are_new_in_the_file_get_their_place_in_its_order(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    run("acl", "import", file("- {match: {name: a}, actions: [pull]}\n- {match: {}, actions: []}"))

    result = run(
        "acl",
        "import",
        file(
            "- {match: {name: a}, actions: [pull]}\n- {match: {name: b}, actions: [pull]}\n"
            "- {match: {}, actions: []}\n- {match: {name: c}, actions: [pull]}"
        ),
    )

    assert [(seq, match) for seq, match, _ in sorted(acl_of(stores), key=lambda e: e[0])] == [
        (10, {"name": "a"}),
        (15, {"name": "b"}),
        (20, {}),
        (30, {"name": "c"}),
    ]
    assert 'added 15: {"match":{"name":"b"},"actions":["pull"]}\n' in result.out
    assert "added 30" in result.out
    assert "never decides: seq 20 matches all" in result.out


def test_the_lines_that_mongoimport_takes_keep_their_seq(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    assert run("acl", "import", file(SEEDS)).status == 0

    assert [(seq, match) for seq, match, _ in acl_of(stores)] == [
        (10, {"account": "admin"}),
        (20, {"labels": {"group": "dev"}}),
    ]


def test_a_file_of_docker_auth_in_json_is_read_too(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    document = {"acl": [{"match": {"account": "a"}, "actions": ["pull"]}]}

    for text in (json.dumps(document), json.dumps(document, indent=2)):
        assert run("acl", "import", file(text)).status == 0
    assert acl_of(stores) == [(10, {"account": "a"}, ["pull"])]


def test_a_dry_run_says_the_same_and_adds_nothing(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    for kind in ("acl", "accounts"):
        tried = run(kind, "import", file(CONFIG), "--dry-run")
        before = (acl_of(stores), stores.accounts.find_all())
        done = run(kind, "import", file(CONFIG))

        assert before == ([], []) or kind == "accounts"
        assert stores.accounts.find_all() == [] or kind == "accounts"
        assert tried.out.replace("would add", "added") == done.out


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=str)
def test_accounts_are_not_imported_where_a_file_has_them(
    run: Run, stores: Stores, file: Callable[[str], str], tmp_path: Path, options: list[str]
) -> None:
    stores.accounts.htpasswd = Htpasswd(tmp_path / "htpasswd")

    refused = run("accounts", "import", file(CONFIG), *options)

    assert (refused.status, refused.out) == (1, "")
    assert "htpasswd -B" in refused.err


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{match: {name: '/(/'}, actions: [pull]}", "invalid: name '/(/': missing ): ("),
        ("{match: {name: a}, actions: pull}", "invalid: actions is not a list of words"),
        ("{match: {name: [a]}, actions: [pull]}", "invalid: name is a list and not text"),
        ("{match: {ip: 10.0.0}, actions: [pull]}", "invalid: ip '10.0.0' is not an address"),
        ("{match: {acount: bob}, actions: [pull]}", "match has acount, which docker_auth ignores"),
        ("{match: {}, action: [pull]}", "has action, unknown here"),
        ("{actions: [pull]}", "invalid: match is not a document"),
        ("{match: {}, actions: [], seq: 1.5}", "invalid: seq is text and not a whole number"),
        ("pull", "is not a document"),
    ],
)
def test_a_file_with_an_entry_that_cannot_be_adds_nothing(
    run: Run, stores: Stores, file: Callable[[str], str], entry: str, says: str
) -> None:
    result = run("acl", "import", file(f"acl:\n  - {{match: {{}}, actions: []}}\n  - {entry}\n"))

    where = "entry 2" if entry == "pull" else "entry 2 (line 3)"
    assert result.status == 1
    assert f"refused {where}: {says}" in result.out
    assert result.err.endswith("1 of 2 entries are refused, so nothing is added\n")
    assert acl_of(stores) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server: {}", "expected acl"),
        ("acl: {a: b}", "expected acl"),
        ("acl: [", "not valid YAML: line 1"),
        ("acl: []\nacl: []", "acl: given twice (line 2)"),
        ('acl: [{match: {account: "\\ud800"}}]', "line 1: found an escape that is no character"),
        ("{}", "expected acl"),
        ("", "expected acl"),
    ],
)
def test_a_file_that_is_none_of_docker_auth_is_told_so(
    run: Run, stores: Stores, file: Callable[[str], str], text: str, says: str
) -> None:
    result = run("acl", "import", file(text))

    assert (result.status, result.out) == (1, "")
    assert says in result.err


def test_an_order_that_cannot_be_kept_is_told_and_nothing_is_added(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    run("acl", "import", file("- {match: {name: a}, actions: []}\n- {match: {}, actions: [pull]}"))
    before = acl_of(stores)

    turned = "- {match: {}, actions: [pull]}\n- {match: {name: a}, actions: []}\n"
    result = run("acl", "import", file(f"{turned}- {{match: {{name: new}}, actions: [pull]}}"))

    assert result.status == 1
    assert "seq 20 and 10 are stored in the opposite order; nothing is added" in result.err
    assert acl_of(stores) == before


def test_nothing_is_added_to_an_acl_that_cannot_be_read(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    stores.accounts._acl.insert_one({"seq": 10.5, "match": {}, "actions": []})

    result = run("acl", "import", file(CONFIG))

    assert (result.status, result.out) == (1, "")
    assert "cannot be read" in result.err
    assert len(acl_of(stores)) == 1


# Accounts


def test_the_users_of_docker_auths_file_sign_in_with_their_passwords(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    result = run("accounts", "import", file(CONFIG))

    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == [
        "added admin",
        "added 007",
        'left out: the anonymous account; rns accounts add "" makes it',
    ]
    assert stores.accounts.sign_in("admin", "badmin")
    assert stores.accounts.sign_in("admin", "other") is None
    signed_in = stores.accounts.sign_in("007", "badmin")
    assert signed_in
    assert signed_in.account == Account("007", {"group": ("dev", "42"), "site": ("yes",)})


def test_accounts_that_are_there_stay_as_they_are(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    run("accounts", "import", file(CONFIG))
    stores.accounts.set_password("admin", "changed")

    again = run("accounts", "import", file(CONFIG))

    assert again.status == 0
    assert again.out.splitlines()[:2] == [
        "left admin: it is there with another password or other labels",
        "left 007: it is there already",
    ]
    assert stores.accounts.sign_in("admin", "changed")


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("{}", "has no password: docker_auth lets it in with any"),
        ("", "has no password: docker_auth lets it in with any"),
        ("{password: ''}", "has no password: docker_auth lets it in with any"),
        ("{password: secret}", "its password is no bcrypt hash; make one with htpasswd -nB"),
        (f"{{password: {HASH}, labels: {{group: dev}}}}", "label group is text and not a list"),
        (f"{{password: {HASH}, labels: [dev]}}", "labels is a list and not a document"),
    ],
)
def test_an_account_that_cannot_be_is_refused_by_name(
    run: Run, stores: Stores, file: Callable[[str], str], user: str, says: str
) -> None:
    text = f"users:\n  open: {user}\n  admin: {{password: {HASH}}}\n"
    result = run("accounts", "import", file(text))

    assert result.status == 1
    assert result.out.splitlines() == [f"refused 'open': {says}", "added admin"]
    assert result.err.endswith("1 of 2 accounts are refused\n")
    assert [account.name for account in stores.accounts.find_all()] == ["admin"]


def test_a_name_of_null_is_empty_as_docker_auth_reads_it(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    user = f"{{password: {HASH}, labels: {{~: [dev]}}}}"
    text = f"users: {{~: {{}}, bob: {user}}}\nacl: [{{match: {{labels: {{~: dev}}}}, actions: []}}]"

    accounts = run("accounts", "import", file(text))
    acl = run("acl", "import", file(text))

    assert (accounts.status, acl.status) == (0, 0)
    assert accounts.out.splitlines()[0].startswith("left out: the anonymous account")
    assert stores.accounts.find_all() == [Account("bob", {"": ("dev",)})]
    assert acl_of(stores) == [(10, {"labels": {"": "dev"}}, [])]


def test_what_is_imported_lets_people_see_what_it_says(
    run: Run, stores: Stores, file: Callable[[str], str]
) -> None:
    run("accounts", "import", file(CONFIG))
    run("acl", "import", file(CONFIG))

    def seen(name: str) -> list[str]:
        signed_in = stores.accounts.sign_in(name, "badmin")
        assert signed_in
        rule = compile_rule(
            stores.accounts.load_acl(),
            signed_in.account,
            address=None,
            service="registry",
            own_namespace=False,
            administrators=[],
        )
        names = ("test-1", "team/app", "007/app", "admin/app")
        return [name for name in names if rule.may_pull(name)]

    assert seen("admin") == ["test-1", "team/app", "007/app", "admin/app"]
    assert seen("007") == ["test-1"]
