"""The patterns of an entry against the values of a request, placeholders filled in."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from app.rules.access.acl import FIELDS, Account, Entry, Labels
from app.rules.patterns import (
    EVERYTHING,
    QUOTED,
    Matcher,
    TooComplex,
    compile_pattern,
    compile_regex,
    encode,
    is_regex,
)

MAX_COMBINATIONS = 10_000  # of label values in one pattern

_CAPTURE = re.compile(r"\$\{(.+?):([0-9]+)\}")  # acl.go: captureGroupRegex
_NAME = re.compile(r"\$\{[nN]ame[:}]")  # what is unknown until the name is
Condition = tuple[str, tuple[str, ...], Labels]  # pattern, values, labels for its placeholders


class Request:
    """The values that patterns are matched against, and what stands for their placeholders."""

    def __init__(self, account: Account, service: str, name: str = "") -> None:
        self.account = account
        self.fields = {
            "account": account.name,
            "type": "repository",
            "name": name,
            "service": service,
        }
        self.quoted = {
            f"${{{field}}}": text.translate(QUOTED) for field, text in self.fields.items()
        }
        self.labels = {f"${{labels:{label}}}": texts for label, texts in account.labels.items()}


def find_matchers(entry: Entry, request: Request) -> list[Matcher]:
    """What together matches the names that the entry matches, its `ip` apart.

    An entry that is too complex fails closed: it matches nothing if it allows, else everything.
    """
    pattern = entry.patterns["name"]
    conditions = conditions_of(entry, request, ("account", "type", "service"))
    known = [condition for condition in conditions if not _NAME.search(condition[0])]
    try:
        variables = variables_of(entry, request)
        if not hold(known, variables):
            return []
        if len(known) < len(conditions) or (pattern and _NAME.search(pattern)):
            return [Matcher("test", "", partial(_matches_name, entry, request))]
        if pattern is None:
            return [EVERYTHING]
        compiled = map(compile_pattern, _candidates(pattern, variables, request.labels))
        return [matcher for matcher in compiled if matcher is not None]
    except TooComplex:
        return [] if entry.allows else [EVERYTHING]


def _matches_name(entry: Entry, request: Request, name: str) -> bool:
    request = Request(request.account, request.fields["service"], name)
    try:
        return hold(conditions_of(entry, request, FIELDS), variables_of(entry, request))
    except TooComplex:
        return not entry.allows


def conditions_of(entry: Entry, request: Request, fields: Iterable[str]) -> list[Condition]:
    """What an entry demands of these fields and of the labels.

    The patterns of labels have no placeholders for labels.
    """
    conditions: list[Condition] = []
    for field in fields:
        if (pattern := entry.patterns[field]) is not None:
            conditions.append((pattern, (request.fields[field],), request.labels))
    for label, pattern in entry.labels.items():
        conditions.append((pattern, request.account.labels.get(label, ()), {}))
    return conditions


def hold(conditions: Iterable[Condition], variables: Mapping[str, str]) -> bool:
    """Whether every condition is met by one of its values."""
    return all(
        any(
            matches(candidate, value)
            for candidate in _candidates(pattern, variables, labels)
            for value in values
        )
        for pattern, values, labels in conditions
    )


def matches(pattern: str, value: str) -> bool:
    """Whether a pattern, its placeholders filled in, matches a value."""
    matcher = compile_pattern(pattern)
    return matcher is not None and matcher.test(value)


def variables_of(entry: Entry, request: Request) -> dict[str, str]:
    """What stands for the placeholders of this entry's patterns, labels apart.

    A group counts where one of the four fields mentions it, as in docker_auth: with the regex as
    it is written, and unknown when another placeholder stands before it in the same pattern.
    """
    variables = dict(request.quoted)
    for found in itertools.chain(*(_CAPTURE.finditer(p) for p in entry.patterns.values() if p)):
        field = found[1][0].lower() + found[1][1:]
        pattern = entry.patterns.get(field) or ""
        group = int(found[2].lstrip("0")[:9] or 0)
        if is_regex(pattern) and 0 < group <= compile_regex(pattern[1:-1]).groups:
            match = compile_regex(pattern[1:-1]).search(encode(request.fields[field]))
            if match is not None:
                variables[found[0]] = (match[group] or b"").decode("utf-8", "replace")
    return variables


def _candidates(pattern: str, variables: Mapping[str, str], labels: Labels) -> Iterator[str]:
    """The pattern with its label placeholders left as they are, then with every combination.

    Raises:
        TooComplex: there are more than MAX_COMBINATIONS.
    """
    yield _substitute(pattern, variables)
    used = {placeholder: texts for placeholder, texts in labels.items() if placeholder in pattern}
    if math.prod(map(len, used.values())) > MAX_COMBINATIONS:
        raise TooComplex("too many combinations of labels")
    for combination in itertools.product(*used.values()) if used else ():
        yield _substitute(pattern, {**variables, **dict(zip(used, combination, strict=True))})


def _substitute(pattern: str, variables: Mapping[str, str]) -> str:
    """Replace in one pass, so that a placeholder in a value stays as it is."""
    if "${" not in pattern:
        return pattern
    used = "|".join(re.escape(key) for key in variables if key in pattern)
    return re.sub(used, lambda found: variables[found[0]], pattern) if used else pattern
