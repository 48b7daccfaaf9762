"""The rule of one request: what it may see, as a test of names and as simple sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import re2

from app.rules.access.acl import Account, Acl
from app.rules.access.matching import Request, find_matchers
from app.rules.addresses import parse_ip
from app.rules.patterns import EVERYTHING, OPTIONS, Matcher, below

MAX_PREFIXES = 100  # more are no cheaper to look up than all names
MAX_COMPARISONS = 50_000  # to simplify a rule
MIN_FILTERED = 8  # tests of a rule; fewer are as quick one by one


class Shape(msgspec.Struct, frozen=True):
    """The repositories that a rule allows: the union of these sets.

    `namespaces` holds names up to the last slash (`""`: names without one), `parents` stands for
    all that lies at any depth below `<parent>/`. Exact for every repository name
    (app.rules.references).
    """

    everything: bool
    namespaces: frozenset[str]
    repositories: frozenset[str]
    parents: frozenset[str]


class Rule:
    """What one request may see.

    Attributes:
        shape: what `may_pull` allows, or None when that is not simple.
        prefixes: every repository name that may be pulled begins with one of these; `()` when none
            may be, `("",)` when they can begin with anything.
    """

    def __init__(self, steps: Sequence[tuple[Matcher, bool]], *, otherwise: bool = False) -> None:
        """The first step that matches says whether a name is allowed; `otherwise`, if none does."""
        steps = _without_tail(steps, otherwise)
        self._allows = [*(allows for _, allows in steps), otherwise]
        self._first: dict[tuple[str, str], int] = {}
        self._tests: list[tuple[int, Matcher]] = []
        for index, (matcher, _) in enumerate(steps):
            if matcher.kind == "test":
                self._tests.append((index, matcher))
            else:
                self._first.setdefault((matcher.kind, matcher.text), index)
        self._has_below = any(kind == "below" for kind, _ in self._first)
        self._filter = None
        if len(self._tests) >= MIN_FILTERED:
            self._filter = _filter(tuple(matcher.superset for _, matcher in self._tests))
        self.shape = _shape(steps, otherwise)
        self.prefixes = _prefixes(steps, otherwise)

    def may_pull(self, repository: str) -> bool:
        """Whether the repository may be pulled; right for any string."""
        slash = repository.rfind("/") + 1
        keys = [("exact", repository), ("children", repository[:slash])]
        while self._has_below and slash > 0:
            keys.append(("below", repository[:slash]))
            slash = repository.rfind("/", 0, slash - 1) + 1
        first = min(self._first.get(key, len(self._allows) - 1) for key in keys)
        for position in self._plausible_tests(repository):
            index, matcher = self._tests[position]
            if index > first:
                break
            if repository.startswith(matcher.text) and matcher.test(repository):
                first = index
                break
        return self._allows[first]

    def _plausible_tests(self, repository: str) -> Iterable[int]:
        if self._filter is not None and repository.isascii():
            found = sorted(self._filter.Match(repository) or ())
            if found and found[0] == 0:
                return (position - 1 for position in found[1:])
        return range(len(self._tests))


@lru_cache(maxsize=64)
def _filter(supersets: tuple[str, ...]) -> Any:
    """One automaton for all regexes, or None where that is too large.

    The empty regex before them is always found, unless RE2 runs out of memory for this name.
    """
    found = re2.Set.SearchSet(OPTIONS)
    try:
        for superset in ("", *supersets):
            found.Add(superset)
        found.Compile()
    except (re2.error, UnicodeEncodeError):
        return None
    return found


def _without_tail(
    steps: Sequence[tuple[Matcher, bool]], otherwise: bool
) -> Sequence[tuple[Matcher, bool]]:
    """Without the last steps that only say what would be said without them."""
    end = len(steps)
    while end and steps[end - 1][1] == otherwise:
        end -= 1
    return steps[:end]


def _can_be_repository(matcher: Matcher) -> bool:
    """Whether a repository name may match: none holds an unknown placeholder or begins with `/`."""
    return "${" not in matcher.text and not matcher.text.startswith("/")


def _shape(steps: Sequence[tuple[Matcher, bool]], otherwise: bool) -> Shape | None:
    steps = [step for step in steps if _can_be_repository(step[0])]
    steps = [*_without_tail(steps, otherwise), *([(EVERYTHING, True)] if otherwise else ())]
    if any(matcher.kind == "test" for matcher, _ in steps):
        return None
    denied = [index for index, (_, allows) in enumerate(steps) if not allows]
    if len(denied) * len(steps) > MAX_COMPARISONS:
        return None
    for index in denied:
        matcher = steps[index][0]
        is_settled = any(covers(earlier, matcher) for earlier, _ in steps[:index])
        if not is_settled and any(
            allows and (covers(later, matcher) or covers(matcher, later))
            for later, allows in steps[index + 1 :]
        ):
            return None
    if otherwise:
        return Shape(True, frozenset(), frozenset(), frozenset())
    allowed = {(matcher.kind, matcher.text) for matcher, allows in steps if allows}
    return Shape(
        False,
        namespaces=frozenset(text[:-1] for kind, text in allowed if kind == "children"),
        repositories=frozenset(text for kind, text in allowed if kind == "exact"),
        parents=frozenset(text[:-1] for kind, text in allowed if kind == "below"),
    )


def covers(wide: Matcher, narrow: Matcher) -> bool:
    """Whether `wide` matches all of `narrow`. Neither covers the other: disjoint."""
    if wide.kind == "everything" or narrow.kind == "exact":
        return wide.test(narrow.text)
    if wide.kind == "below":
        return narrow.text.startswith(wide.text)
    return wide.kind == "children" == narrow.kind and wide.text == narrow.text


def _prefixes(steps: Sequence[tuple[Matcher, bool]], otherwise: bool) -> tuple[str, ...]:
    texts = {matcher.text for matcher, allows in steps if allows and _can_be_repository(matcher)}
    prefixes: list[str] = []
    for text in sorted({*texts, ""} if otherwise else texts):
        if not prefixes or not text.startswith(prefixes[-1]):
            prefixes.append(text)
    return tuple(prefixes) if len(prefixes) <= MAX_PREFIXES else ("",)


def compile_rule(
    acl: Acl,
    account: Account,
    *,
    address: str | None,
    service: str,
    own_namespace: bool,
    administrators: Collection[str],
) -> Rule:
    """The rule of one request for repositories.

    A named account in `administrators` sees everything; an invalid list denies all else. With
    `own_namespace` a named account also sees what lies below its name, where no entry matches. An
    entry whose patterns are too many (MAX_COMBINATIONS) or too large does not allow anything; if
    it denies, it denies all that no earlier entry decides.

    Args:
        address: the client's; an `ip` condition is never met without one that can be read.
        service: the registry's name for its token service.
    """
    if account.name and account.name in administrators:
        return Rule([], otherwise=True)
    if not acl.is_valid:
        return Rule([])
    request, client = Request(account, service), parse_ip(address or "")
    steps: list[tuple[Matcher, bool]] = []
    for entry in acl.entries:
        if entry.network and (client is None or client not in entry.network):
            continue
        for matcher in find_matchers(entry, request):
            if matcher.kind == "everything":
                return Rule(steps, otherwise=entry.allows)
            steps.append((matcher, entry.allows))
    if own_namespace and account.name:
        steps.append((below(f"{account.name}/"), True))
    return Rule(steps)
