"""docker_auth's own configuration file: its accounts (`users`) and its ACL (`acl`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml
from yaml.constructor import ConstructorError

from app.errors import InvalidQuery
from app.rules.access import check_account_name, find_odd_field, parse_acl
from app.settings import parse_yaml

_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_READ = {"match", "actions", "comment"}
_KNOWN = {"seq", "_id", *_READ}
_CONDITIONS = {"account", "type", "name", "service", "ip", "labels"}


class Entry(NamedTuple):
    """One ACL entry of a file; `problem` says why it cannot be, "" if it can."""

    where: str
    document: dict[str, Any]
    problem: str


class User(NamedTuple):
    """One account of a file; `problem` says why it cannot be, "" if it can."""

    name: str
    password_hash: str
    labels: dict[str, list[str]]
    problem: str


def read_acl(file: Path) -> list[Entry]:
    """The entries of `acl`, or of a file that is only the list, or has one as JSON in each line.

    Raises:
        InvalidQuery, ConfigError: the file cannot be read, or has no entries.
    """
    document = _read(file, "acl")
    entries = document.get("acl") if isinstance(document, Mapping) else document
    if not isinstance(entries, list):
        raise InvalidQuery(f"{file}: expected acl, as in docker_auth's configuration, or a list")
    return [_entry(number, given) for number, given in enumerate(entries, 1)]


def read_users(file: Path) -> list[User]:
    """The accounts of `users`.

    Raises:
        InvalidQuery, ConfigError: the file cannot be read, or has no accounts.
    """
    document = _read(file, "users")
    users = document.get("users") if isinstance(document, Mapping) else None
    if not isinstance(users, Mapping):
        raise InvalidQuery(f"{file}: expected users, as in docker_auth's configuration")
    return [_user(name, given) for name, given in users.items()]


class _Numbered(dict[str, Any]):
    """A mapping that knows the line in which it begins."""

    line = 0


class _Loader(yaml.SafeLoader):
    """Plain values are text, as they are written: Go reads `account: 007` so. Null stays null."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML wants it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[_Numbered]:
    mapping = _Numbered()
    mapping.line = node.start_mark.line + 1
    yield mapping
    for key, value in loader.construct_mapping(node).items():
        mapping["" if key is None else str(key)] = value  # as Go reads null


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        problem = "found an escape that is no character"
        raise ConstructorError(None, None, problem, node.start_mark)
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _read(file: Path, section: str) -> Any:
    """What the file says: JSON with one document in each line, as mongoimport takes it, or YAML."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InvalidQuery(f"{file}: cannot be read: {error}") from None
    documents = _json_lines(text)
    if documents is None:
        return parse_yaml(text, str(file), _Loader, section)
    is_whole = len(documents) == 1 and "match" not in documents[0]
    return documents[0] if is_whole else documents


def _json_lines(text: str) -> list[_Numbered] | None:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_Numbered(msgspec.json.decode(line, type=dict[str, Any])))
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return None
        found[-1].line = number
    return found or None


def _entry(number: int, given: Any) -> Entry:
    where = f"entry {number}"
    if not isinstance(given, Mapping):
        return Entry(where, {}, "is not a document")
    if isinstance(given, _Numbered):
        where += f" (line {given.line})"
    document: dict[str, Any] = {
        key: _plain(value) for key, value in given.items() if value is not None and key in _READ
    }
    match = document.get("match")
    if isinstance(match, dict):
        # In YAML, docker_auth does not find `Account` where it looks for `account`.
        document["match"] = {
            key: value for key, value in match.items() if value is not None and key in _CONDITIONS
        }
        unknown = match.keys() - _CONDITIONS
        if unknown:
            what = ", ".join(sorted(map(str, unknown)))
            return Entry(where, document, f"match has {what}, which docker_auth ignores")
    if unknown := given.keys() - _KNOWN:
        return Entry(where, document, f"has {', '.join(sorted(map(str, unknown)))}, unknown here")
    seq = given.get("seq")
    if seq is not None:
        is_number = isinstance(seq, str) and re.fullmatch(r"-?[0-9]{1,18}", seq)
        document["seq"] = int(seq) if is_number else seq
    problems = parse_acl([{"seq": number, **document}]).problems
    return Entry(where, document, problems[0].message if problems else "")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    return [_plain(below) for below in value] if isinstance(value, list) else value


def _user(name: str, given: Any) -> User:
    document = _plain(given) if isinstance(given, Mapping) else {}
    labels, password = document.get("labels") or {}, document.get("password")
    try:
        check_account_name(name)
    except InvalidQuery as error:
        return User(name, "", {}, str(error))
    if not password:
        return User(name, "", {}, "has no password: docker_auth lets it in with any")
    if not isinstance(password, str) or not _BCRYPT.fullmatch(password):
        return User(name, "", {}, "its password is no bcrypt hash; make one with htpasswd -nB")
    if odd := find_odd_field(document):
        return User(name, "", {}, odd)
    return User(name, password, {label: list(labels[label] or ()) for label in labels}, "")
