"""docker_auth's accounts and ACL entries, as its documents have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import msgspec

from app.rules.patterns import compile_regex, is_regex

FIELDS = ("account", "type", "name", "service")  # on which an entry may set a pattern
Labels = Mapping[str, tuple[str, ...]]


class Account(msgspec.Struct, frozen=True):
    """Whom docker_auth knows; the anonymous account has the name ""."""

    name: str
    labels: Labels

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Account:
        """The account of a document `{username, labels?: {label: [value, …]}}`.

        As docker_auth reads it: what is not a list of values is no label, what is not a string
        no value.
        """
        labels = document.get("labels")
        return cls(
            document["username"],
            {
                label: tuple(value for value in values if isinstance(value, str))
                for label, values in (labels.items() if isinstance(labels, Mapping) else ())
                if isinstance(values, list | tuple)
            },
        )


class Problem(msgspec.Struct, frozen=True):
    """Why an entry is ignored or invalid; `index` is its place, from 0, among the documents."""

    seq: float | None
    index: int
    message: str


class Entry(msgspec.Struct, frozen=True):
    """One entry; a pattern or network that is None sets no condition."""

    seq: float
    index: int  # its place, from 0, among the documents
    patterns: Mapping[str, str | None]  # by FIELDS
    labels: Mapping[str, str]
    network: IPv4Network | IPv6Network | None
    allows: bool


class Acl(msgspec.Struct, frozen=True):
    """A parsed list; unless `is_valid` it denies everything to all but administrators."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    is_valid: bool


def parse_acl(documents: Iterable[Mapping[str, Any]]) -> Acl:
    """Read docker_auth's documents `{seq, match, actions}` in any order.

    An entry without a numeric `seq` is ignored. An invalid regex, IP or CIDR, a wrong type, or two
    entries with one `seq` (docker_auth wants it unique) make the list invalid. Both are reported
    in `problems`; nothing is raised.
    """
    entries: dict[float, Entry] = {}
    problems = []
    is_valid = True
    for index, document in enumerate(documents):
        seq = None
        try:
            seq = _parse_seq(document)
            if seq is None:
                problems.append(Problem(None, index, "ignored: it has no seq"))
                continue
            entry = _parse_entry(seq, index, document)
            if entries.setdefault(seq, entry) is not entry:
                raise ValueError("another entry has the same seq")
        except ValueError as error:
            is_valid = False
            problems.append(Problem(seq, index, f"invalid: {error}"))
    return Acl(tuple(entries[seq] for seq in sorted(entries)), tuple(problems), is_valid)


def _parse_seq(document: object) -> float | None:
    if not isinstance(document, Mapping):
        raise ValueError("not a document")
    seq = document.get("seq")
    is_number = isinstance(seq, int | float) and not isinstance(seq, bool) and seq == seq
    return seq if is_number else None


def _parse_entry(seq: float, index: int, document: Mapping[str, Any]) -> Entry:
    match = document.get("match")
    if not isinstance(match, Mapping):
        raise ValueError("match is not a document")
    actions = document.get("actions")
    if not isinstance(actions, list | tuple) or not all(isinstance(a, str) for a in actions):
        raise ValueError("actions is not a list of words")
    patterns = {field: match.get(field) for field in FIELDS}
    if patterns["name"] == "${name}":
        patterns["name"] = None  # each name matches itself
    labels = {} if match.get("labels") is None else match["labels"]
    if not isinstance(labels, Mapping):
        raise ValueError("labels is not a document")
    for field, pattern in patterns.items():
        if pattern is not None:
            _check_pattern(field, pattern)
    for label, pattern in labels.items():
        _check_pattern(f"label {label}", pattern)
    network = None if match.get("ip") is None else _parse_network(match["ip"])
    allows = "pull" in actions or list(actions) == ["*"]
    return Entry(seq, index, patterns, labels, network, allows)


def _check_pattern(field: str, pattern: object) -> None:
    if not isinstance(pattern, str):
        raise ValueError(f"{field} is not a string")
    if is_regex(pattern):
        try:
            compile_regex(pattern[1:-1])
        except ValueError as error:
            raise ValueError(f"{field} {pattern!r}: {error}") from error


def _parse_network(text: object) -> IPv4Network | IPv6Network:
    """An address or CIDR as Go's net package reads them, so without zone and netmask."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]+)?", text):
        raise ValueError(f"ip {text!r} is not an address or CIDR")
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_address(text: str | None) -> IPv4Address | IPv6Address | None:
    """A client's address, or None where the text is none."""
    try:
        return _parse_network(text).network_address if text and "/" not in text else None
    except ValueError:
        return None
