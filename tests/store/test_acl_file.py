"""The ACL of docker_auth's own configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import rule

from app.rules.access import parse_acl
from app.store.acl_file import AclFile

# As docker_auth's examples have it.
EXAMPLE = """
server: {addr: ":5001"}
token: {issuer: Acme, expiration: 900}
users:
  admin: {password: "$2y$05$LO.vzwpWC5LZGqThvEfznu8qhb5SGqvBSWY1J3yZ4AxtMRZ3kN5jC"}
  "": {}
acl:
  - match: {account: admin}
    actions: ["*"]
    comment: Admin has full access to everything.
  - match: {ip: 127.0.0.0/8, name: "secret/*"}
    actions: []
  - match: {account: "/.+/", name: "${account}/*"}
    actions: ["pull", "push"]
"""


@pytest.fixture
def file(tmp_path: Path) -> AclFile:
    return AclFile(tmp_path / "auth_config.yml")


def write(file: AclFile, config: Any) -> None:
    """Write the file, later than before whatever the clock of the file system is."""
    before = file.file.stat().st_mtime_ns if file.file.exists() else 0
    file.file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    os.utime(file.file, ns=(0, before + 10**9))


def test_the_entries_are_documents_in_the_order_of_the_file(file: AclFile) -> None:
    write(file, EXAMPLE)

    documents = file.find_all()

    assert documents == [
        {
            "seq": 1,
            "match": {"account": "admin"},
            "actions": ["*"],
            "comment": "Admin has full access to everything.",
        },
        {"seq": 2, "match": {"ip": "127.0.0.0/8", "name": "secret/*"}, "actions": []},
        {
            "seq": 3,
            "match": {"account": "/.+/", "name": "${account}/*"},
            "actions": ["pull", "push"],
        },
    ]
    assert (parse_acl(documents).problems, file.problem) == ((), "")
    assert rule("alice", documents).may_pull("alice/app")
    assert not rule("alice", documents).may_pull("bob/app")


def test_plain_values_are_text_as_docker_auth_reads_them(file: AclFile) -> None:
    write(file, "acl: [{match: {account: 007, name: yes}, actions: [pull]}]")

    assert file.find_all()[0]["match"] == {"account": "007", "name": "yes"}


def test_the_order_decides_whatever_seq_an_entry_has(file: AclFile) -> None:
    allow, deny = {"match": {}, "actions": ["*"]}, {"seq": 9, "match": {}, "actions": []}
    write(file, {"acl": [deny, allow]})

    assert [document["seq"] for document in file.find_all()] == [1, 2]
    assert not rule("alice", file.find_all()).may_pull("team/app")


def test_what_docker_auth_ignores_in_an_entry_is_ignored(file: AclFile) -> None:
    write(file, {"acl": [{"match": {"name": "team/*"}, "actions": ["pull"], "note": "x"}]})

    assert rule("alice", file.find_all()).may_pull("team/app")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "deny",
        {},
        {"match": None, "actions": []},
        {"actions": ["*"]},
        {"match": {"account": ["a"]}, "actions": ["pull"]},
        {"match": {"name": "/(/"}, "actions": ["pull"]},
        {"match": {"ip": "10.0.0.300"}, "actions": ["pull"]},
        {"match": {}},
        {"match": {}, "actions": "pull"},
    ],
)
def test_an_entry_that_cannot_be_read_denies_all(file: AclFile, entry: Any) -> None:
    write(file, {"acl": [{"match": {}, "actions": ["*"]}, entry]})

    acl = parse_acl(file.find_all())

    assert not acl.is_valid
    assert [problem.seq for problem in acl.problems] == [2]
    assert not rule("alice", file.find_all()).may_pull("team/app")


@pytest.mark.parametrize("config", ["", "x", "{}", "acl:", "acl: {match: {}}", "acl: [", "a\0"])
def test_a_file_without_a_list_is_a_problem_until_it_has_one(file: AclFile, config: str) -> None:
    write(file, config)

    assert file.find_all() == []
    assert file.problem.startswith("docker_auth.acl_file: ")
    assert str(file.file) in file.problem
    write(file, EXAMPLE)
    assert len(file.find_all()) == 3
    assert file.problem == ""


@pytest.mark.parametrize("other", ["ldap_auth: {base: a, base: b}", "token: !key x", "users: !key"])
def test_what_else_is_in_the_file_is_not_looked_at(file: AclFile, other: str) -> None:
    """One of docker_auth's own examples has a key twice."""
    write(file, f"{EXAMPLE}\n{other}\n")

    assert (len(file.find_all()), file.problem) == (3, "")


def test_a_file_that_goes_and_comes_back_unchanged_is_read_again(file: AclFile) -> None:
    write(file, EXAMPLE)
    assert len(file.find_all()) == 3
    away = file.file.with_suffix(".away")
    file.file.rename(away)

    assert file.find_all() == []
    assert "No such file" in file.problem
    away.rename(file.file)

    assert len(file.find_all()) == 3


def test_an_empty_list_allows_nothing_and_is_no_problem(file: AclFile) -> None:
    write(file, "acl: []")

    assert (file.find_all(), file.problem) == ([], "")


@pytest.mark.parametrize(
    "entry",
    [
        "{match: {Account: bob}, actions: []}",
        "{match: {name: 'team/*', ACCOUNT: bob}, actions: []}",
        "{match: {account: alice, acount: bob}, actions: []}",
    ],
)
def test_a_condition_that_docker_auth_does_not_find_is_none(file: AclFile, entry: str) -> None:
    """It looks for fields in small letters, so this one denies to all."""
    write(file, f"acl:\n  - {entry}\n  - {{match: {{}}, actions: [pull]}}\n")

    decided = rule("alice", file.find_all())

    assert not decided.may_pull("team/app")
