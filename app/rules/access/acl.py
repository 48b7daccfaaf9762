"""docker_auth's accounts and ACL entries, as its documents have them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec

from app.errors import InvalidQuery
from app.rules.patterns import compile_regex, is_regex

FIELDS = ("account", "type", "name", "service")  # on which an entry may set a pattern
MAX_MESSAGE_LENGTH = 300
MAX_SEQ = 2**63  # docker_auth reads 64 bits
Labels = Mapping[str, tuple[str, ...]]


class Account(msgspec.Struct, frozen=True):
    """Whom docker_auth knows; the anonymous account has the name ""."""

    name: str
    labels: Labels

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Account:
        """The account of a document `{username, labels?: {label: [value, …]}}`.

        Null is an empty list. What else is not a list of values is no label, what is not a string
        no value; `find_odd_field` tells of them.
        """
        labels = document.get("labels")
        return cls(
            document["username"],
            {
                label: tuple(value for value in values or () if isinstance(value, str))
                for label, values in (labels.items() if isinstance(labels, Mapping) else ())
                if values is None or isinstance(values, list | tuple)
            },
        )


def find_odd_field(document: Mapping[str, Any]) -> str | None:
    """What of an account's document is not as it is read here, in words: nobody is let in with it.

    docker_auth cannot read such labels either. A field in capitals it reads, and here it would be
    as if it were not there. Without a label an entry that denies by it would not match.
    """
    for field in document:
        if field.lower() in ("username", "password", "labels") and not field.islower():
            return f"{field} is to be written {field.lower()}"
    for field in ("username", "password"):
        if (value := document.get(field)) is not None and not _is_text(value):
            return f"{field} is {_kind_of(value)} and not text"
    return _find_odd_label(document.get("labels"))


def _find_odd_label(labels: object) -> str | None:
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        return f"labels is {_kind_of(labels)} and not a document"
    for label, values in labels.items():
        if values is not None and not isinstance(values, list | tuple):
            return f"label {label} is {_kind_of(values)} and not a list"
        for value in values or ():
            if not _is_text(value):
                return f"label {label} has {_kind_of(value)}, which is not text"
    return None


def check_account_name(name: str) -> None:
    """Raise InvalidQuery unless `name` can be an account: printable, without colon or blank ends.

    HTTP Basic ends the user name at the first colon (RFC 7617).
    """
    if not name or len(name) > 255 or not name.isprintable() or ":" in name or name != name.strip():
        raise InvalidQuery("account name: 1 to 255 printable characters without a colon")


class Problem(msgspec.Struct, frozen=True):
    """Why an entry is ignored or invalid; `index` is its place, from 0, among the documents.

    It is -1 where the list as a whole cannot be read.
    """

    seq: int | None  # None where it has none that can be read
    index: int
    message: str

    @property
    def where(self) -> str:
        """Which entry it is, in words."""
        if self.seq is not None:
            return f"seq {self.seq}"
        if self.index < 0:
            return "of the file"
        return f"without seq, number {self.index + 1} in the collection"


class Entry(msgspec.Struct, frozen=True):
    """One entry; a pattern or network that is None sets no condition."""

    seq: int
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
    """Read docker_auth's documents `{seq, match, actions, comment?}` in any order.

    An entry without `seq` is ignored. What docker_auth cannot read (an invalid regex, IP or CIDR,
    a value of a wrong type, a `seq` that is no whole number) and two entries with one `seq` make
    the list invalid: where an entry that cannot be read would stand is not known, so it stands
    before all others and denies. Both are reported in `problems`; nothing is raised.
    """
    entries: dict[int, Entry] = {}
    problems = []
    is_valid = True
    for index, document in enumerate(documents):
        seq = None
        try:
            fields = _fields_of(document, "an entry")
            seq = _parse_seq(fields.get("seq"))
            if seq is None:
                problems.append(Problem(None, index, "ignored: it has no seq"))
                continue
            entry = _parse_entry(seq, index, fields)
            if entries.setdefault(seq, entry) is not entry:
                raise ValueError("another entry has the same seq")
        except ValueError as error:
            is_valid = False
            problems.append(Problem(seq, index, f"invalid: {error}"[:MAX_MESSAGE_LENGTH]))
    return Acl(tuple(entries[seq] for seq in sorted(entries)), tuple(problems), is_valid)


def without_labels(acl: Acl) -> Acl:
    """The list where nobody tells the labels of an account; `problems` name what depends on them.

    Such an entry allows nothing to anybody. One that denies does so whatever the labels are: else
    an account would see what docker_auth denies to it.
    """
    entries, problems = [], list(acl.problems)
    for entry in acl.entries:
        is_in_pattern = any(
            "${labels:" in pattern for pattern in entry.patterns.values() if pattern
        )
        if entry.labels or is_in_pattern:
            effect = "allows nobody anything" if entry.allows else "denies whatever they are"
            text = f"it asks for labels, which a token server does not tell: it {effect}"
            problems.append(Problem(entry.seq, entry.index, text))
            if not entry.allows:
                entry = _denying_anyway(entry, is_in_pattern)
        entries.append(entry)
    return Acl(tuple(entries), tuple(problems), acl.is_valid)


def _denying_anyway(entry: Entry, is_in_pattern: bool) -> Entry:
    """The entry without its labels and, where these are in a pattern, without what is filled in."""
    patterns = {
        field: None if is_in_pattern and pattern and "${" in pattern else pattern
        for field, pattern in entry.patterns.items()
    }
    return msgspec.structs.replace(entry, patterns=patterns, labels={})


def by_seq(documents: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The documents in the order in which they are tried; first those whose `seq` is no number."""

    def order(document: Mapping[str, Any]) -> float:
        seq = document.get("seq")
        return seq if isinstance(seq, int | float) and seq == seq else -math.inf

    return sorted(documents, key=order)


def _fields_of(value: object, name: str) -> dict[str, Any]:
    """The fields of a document, as docker_auth's driver finds them: whatever their case."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is not a document")
    fields = {str(key).lower(): below for key, below in value.items()}
    if len(fields) < len(value):
        raise ValueError(f"{name} has a field twice, in capitals and in small letters")
    return fields


def _parse_seq(seq: Any) -> int | None:
    if seq is None:
        return None
    is_number = isinstance(seq, int | float) and not isinstance(seq, bool)
    if not is_number or not -MAX_SEQ < seq < MAX_SEQ or seq != int(seq):
        raise ValueError(f"seq is {_kind_of(seq)} and not a whole number")
    return int(seq)


def _parse_entry(seq: int, index: int, document: Mapping[str, Any]) -> Entry:
    match = _fields_of(document.get("match"), "match")
    actions = document.get("actions")
    if not isinstance(actions, list | tuple) or not all(map(_is_text, actions)):
        raise ValueError("actions is not a list of words")
    if document.get("comment") is not None and not _is_text(document["comment"]):
        raise ValueError(f"comment is {_kind_of(document['comment'])} and not text")
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


def _is_text(value: object) -> bool:
    return type(value) is str  # JavaScript code of BSON is a kind of str


# What a driver makes of the types of BSON, as somebody would say it who wrote the entry.
_KINDS = {
    "Regex": "a regular expression of BSON (put quotes around it)",
    "Pattern": "a regular expression of BSON (put quotes around it)",
    "ObjectId": "an ObjectId",
    "datetime": "a date",
    "DatetimeMS": "a date",
    "NoneType": "nothing",
    "bool": "true or false",
    "bytes": "binary data",
    "list": "a list",
    "dict": "a document",
}


def _kind_of(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    return "text" if _is_text(value) else _KINDS.get(type(value).__name__, type(value).__name__)


def _check_pattern(field: str, pattern: Any) -> None:
    if not _is_text(pattern):
        raise ValueError(f"{field} is {_kind_of(pattern)} and not text")
    if is_regex(pattern):
        try:
            compile_regex(pattern[1:-1])
        except ValueError as error:
            raise ValueError(f"{field} {pattern[:100]!r}: {error}") from error


def _parse_network(text: object) -> IPv4Network | IPv6Network:
    """An address or CIDR as Go's net package reads them, so without zone and netmask."""
    try:
        if not isinstance(text, str) or not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]+)?", text):
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"ip {text!r} is not an address or CIDR") from None
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
