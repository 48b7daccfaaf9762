"""The ACL of docker_auth's own configuration file."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from builders import rule

from app.rules.access import parse_acl
from app.rules.access.auth_config import acl_documents

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


def test_the_entries_are_documents_in_the_order_of_the_file() -> None:
    documents = acl_documents(yaml.safe_load(EXAMPLE))

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
    assert parse_acl(documents).problems == ()


def test_the_rule_is_that_of_the_entries() -> None:
    documents = acl_documents(yaml.safe_load(EXAMPLE))

    assert rule("alice", documents).may_pull("alice/app")
    assert not rule("alice", documents).may_pull("bob/app")


def test_the_order_decides_whatever_seq_an_entry_has() -> None:
    config = {"acl": [{"seq": 9, "match": {}, "actions": []}, {"match": {}, "actions": ["*"]}]}

    assert [document["seq"] for document in acl_documents(config)] == [1, 2]
    assert not rule("alice", acl_documents(config)).may_pull("team/app")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "deny",
        {},
        {"match": None, "actions": []},
        {"actions": ["*"]},
        {"match": {"account": 123}, "actions": ["pull"]},
        {"match": {"name": "/(/"}, "actions": ["pull"]},
        {"match": {"ip": "10.0.0.300"}, "actions": ["pull"]},
        {"match": {}},
        {"match": {}, "actions": "pull"},
    ],
)
def test_an_entry_that_cannot_be_read_denies_all(entry: Any) -> None:
    documents = acl_documents({"acl": [{"match": {}, "actions": ["*"]}, entry]})

    acl = parse_acl(documents)
    assert not acl.is_valid
    assert [problem.seq for problem in acl.problems] == [2]
    assert not rule("alice", documents).may_pull("team/app")


@pytest.mark.parametrize("config", [None, [], "acl", {}, {"acl": None}, {"acl": {"match": {}}}])
def test_a_file_without_a_list_is_refused(config: Any) -> None:
    with pytest.raises(ValueError, match="no list `acl:`"):
        acl_documents(config)


def test_an_empty_list_allows_nothing() -> None:
    assert acl_documents({"acl": []}) == []
