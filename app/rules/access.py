r"""Who may pull what: docker_auth's ACL, its patterns, and the rule of one request. Pure.

Source: cesanta/docker_auth `auth_server/authz/acl.go`, Go's `path.Match` and `regexp`. An account
sees the repositories it may pull: the first entry that matches decides, none allows nothing.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import msgspec
import re2

from app.rules.patterns import (
    EVERYTHING,
    OPTIONS,
    QUOTED,
    Matcher,
    TooComplex,
    below,
    compile_pattern,
    compile_regex,
    encode,
    is_regex,
)

MAX_COMBINATIONS = 10_000  # of label values in one pattern
MAX_PREFIXES = 100  # more are no cheaper to look up than all names
MAX_COMPARISONS = 50_000  # to simplify a rule
MIN_FILTERED = 8  # tests of a rule; fewer are as quick one by one

_FIELDS = ("account", "type", "name", "service")
_CAPTURE = re.compile(r"\$\{(.+?):([0-9]+)\}")  # acl.go: captureGroupRegex
_NAME = re.compile(r"\$\{[nN]ame[:}]")  # what is unknown until the name is
_Labels = Mapping[str, tuple[str, ...]]
_Condition = tuple[str, tuple[str, ...], _Labels]  # pattern, values, labels for its placeholders


# Accounts and entries


class Account(msgspec.Struct, frozen=True):
    """Whom docker_auth knows; the anonymous account has the name "" and no labels."""

    name: str
    labels: _Labels

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


class _Entry(msgspec.Struct, frozen=True):
    seq: float
    index: int  # its place, from 0, among the documents
    patterns: Mapping[str, str | None]  # by _FIELDS
    labels: Mapping[str, str]
    network: IPv4Network | IPv6Network | None
    allows: bool


class Acl(msgspec.Struct, frozen=True):
    """A parsed list; unless `is_valid` it denies everything to all but administrators."""

    entries: tuple[_Entry, ...]
    problems: tuple[Problem, ...]
    is_valid: bool


def parse_acl(documents: Iterable[Mapping[str, Any]]) -> Acl:
    """Read docker_auth's documents `{seq, match, actions}` in any order.

    An entry without a numeric `seq` is ignored. An invalid regex, IP or CIDR, a wrong type, or two
    entries with one `seq` (docker_auth wants it unique) make the list invalid. Both are reported
    in `problems`; nothing is raised.
    """
    entries: dict[float, _Entry] = {}
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


def _parse_entry(seq: float, index: int, document: Mapping[str, Any]) -> _Entry:
    match = document.get("match")
    if not isinstance(match, Mapping):
        raise ValueError("match is not a document")
    actions = document.get("actions")
    if not isinstance(actions, list | tuple) or not all(isinstance(a, str) for a in actions):
        raise ValueError("actions is not a list of words")
    patterns = {field: match.get(field) for field in _FIELDS}
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
    return _Entry(seq, index, patterns, labels, network, allows)


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


def _parse_address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return _parse_network(text).network_address if text and "/" not in text else None
    except ValueError:
        return None


# Entries against a request


class _Request:
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


def _matchers(entry: _Entry, request: _Request) -> list[Matcher]:
    """What together matches the names that the entry matches, its `ip` apart.

    An entry that is too complex fails closed: it matches nothing if it allows, else everything.
    """
    pattern = entry.patterns["name"]
    conditions = _conditions(entry, request, ("account", "type", "service"))
    known = [condition for condition in conditions if not _NAME.search(condition[0])]
    try:
        variables = _variables(entry, request)
        if not _hold(known, variables):
            return []
        if len(known) < len(conditions) or (pattern and _NAME.search(pattern)):
            return [Matcher("test", "", partial(_matches_name, entry, request))]
        if pattern is None:
            return [EVERYTHING]
        compiled = map(compile_pattern, _candidates(pattern, variables, request.labels))
        return [matcher for matcher in compiled if matcher is not None]
    except TooComplex:
        return [] if entry.allows else [EVERYTHING]


def _matches_name(entry: _Entry, request: _Request, name: str) -> bool:
    request = _Request(request.account, request.fields["service"], name)
    try:
        return _hold(_conditions(entry, request, _FIELDS), _variables(entry, request))
    except TooComplex:
        return not entry.allows


def _conditions(entry: _Entry, request: _Request, fields: Iterable[str]) -> list[_Condition]:
    """On these fields and on the labels, whose patterns have no placeholders for labels."""
    conditions: list[_Condition] = []
    for field in fields:
        if (pattern := entry.patterns[field]) is not None:
            conditions.append((pattern, (request.fields[field],), request.labels))
    for label, pattern in entry.labels.items():
        conditions.append((pattern, request.account.labels.get(label, ()), {}))
    return conditions


def _hold(conditions: Iterable[_Condition], variables: Mapping[str, str]) -> bool:
    """Whether every condition is met by one of its values."""
    return all(
        any(
            _matches(candidate, value)
            for candidate in _candidates(pattern, variables, labels)
            for value in values
        )
        for pattern, values, labels in conditions
    )


def _matches(pattern: str, value: str) -> bool:
    matcher = compile_pattern(pattern)
    return matcher is not None and matcher.test(value)


def _variables(entry: _Entry, request: _Request) -> dict[str, str]:
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


def _candidates(pattern: str, variables: Mapping[str, str], labels: _Labels) -> Iterator[str]:
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


# Explaining


class Step(msgspec.Struct, frozen=True):
    """What one entry says about one request.

    `place` counts the entries from 1 in the order in which they are tried, `index` from 0 among the
    documents. `verdict` is `decides`, `too late` (it matches after the one that decides) or `no
    match`, and then `because` names the first condition that is not met. `hidden_by` is the `seq`
    of an earlier entry that matches all that this one can: it never decides.
    """

    seq: float
    place: int
    index: int
    allows: bool
    verdict: str
    because: str
    hidden_by: float | None


class Explanation(msgspec.Struct, frozen=True):
    """Why a repository may or may not be pulled; `steps` are all entries in their order."""

    allowed: bool
    reason: str
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]


def explain(
    acl: Acl,
    account: Account,
    repository: str,
    *,
    address: str | None,
    service: str,
    own_namespace: bool,
    administrators: Collection[str],
) -> Explanation:
    """Say which entry decides about one repository; agrees with compile_rule for all arguments."""
    request, client = _Request(account, service, repository), _parse_address(address)
    decider: _Entry | None = None
    steps = []
    for place, entry in enumerate(acl.entries, 1):
        because = _unmet(entry, request, client)
        verdict = "no match" if because else "too late" if decider else "decides"
        if verdict == "decides":
            decider = entry
        hidden_by = next((e.seq for e in acl.entries[: place - 1] if _hides(e, entry)), None)
        steps.append(Step(entry.seq, place, entry.index, entry.allows, verdict, because, hidden_by))
    own = own_namespace and account.name and repository.startswith(f"{account.name}/")
    if account.name and account.name in administrators:
        allowed, reason = True, "an administrator sees everything (access.administrators)"
    elif not acl.is_valid:
        allowed, reason = False, "the list has an invalid entry, so it denies everything"
    elif decider:
        what = "allows pull" if decider.allows else "does not allow pull"
        allowed, reason = decider.allows, f"the entry with seq {decider.seq:g} decides: it {what}"
    elif own:
        allowed, reason = True, "no entry matches, but it is the account's own namespace"
    else:
        allowed, reason = False, "no entry matches, and what nothing allows is denied"
    return Explanation(allowed, reason, tuple(steps), acl.problems)


def _unmet(entry: _Entry, request: _Request, client: IPv4Address | IPv6Address | None) -> str:
    """The first condition of an entry that does not hold, in words; "" when all hold."""
    if entry.network and (client is None or client not in entry.network):
        return f"ip {entry.network} does not hold {client or 'an unknown address'}"
    try:
        variables = _variables(entry, request)
        named = [*(f for f in _FIELDS if entry.patterns[f] is not None), *entry.labels]
        for name, condition in zip(named, _conditions(entry, request, _FIELDS), strict=True):
            if not _hold([condition], variables):
                values = ", ".join(map(repr, condition[1])) or "no value"
                return f"{name} {condition[0]!r} does not match {values}"
    except TooComplex as error:
        return f"too complex to be tried, so it allows nothing: {error}" if entry.allows else ""
    return ""


def _hides(earlier: _Entry, later: _Entry) -> bool:
    """Whether all that `later` can match surely matches `earlier`; misses less obvious cases."""
    networks = earlier.network, later.network
    if networks[0] is not None and (
        networks[1] is None
        or networks[0].version != networks[1].version
        or not networks[1].subnet_of(networks[0])  # type: ignore[arg-type]
    ):
        return False
    if any(later.labels.get(label) != pattern for label, pattern in earlier.labels.items()):
        return False
    pairs = ((earlier.patterns[field], later.patterns[field]) for field in _FIELDS)
    return all(wide is None or wide == narrow or _holds(wide, narrow) for wide, narrow in pairs)


def _holds(wide: str, narrow: str | None) -> bool:
    """Whether a pattern without placeholders matches the only text that another one matches."""
    is_text = narrow is not None and not re.search(r"[*?\[\\$]", narrow) and not is_regex(narrow)
    return is_text and "${" not in wide and _matches(wide, narrow or "")


# Rules


class Shape(msgspec.Struct, frozen=True):
    """The repositories that a rule allows: the union of these sets.

    `namespaces` holds names up to the last slash (`""`: names without one), `parents` stands for
    all that lies at any depth below `<parent>/`. Exact for every repository name (app.references).
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
        is_settled = any(_covers(earlier, matcher) for earlier, _ in steps[:index])
        if not is_settled and any(
            allows and (_covers(later, matcher) or _covers(matcher, later))
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


def _covers(wide: Matcher, narrow: Matcher) -> bool:
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
        address: the client's, without port; an `ip` condition is never met without one.
        service: the registry's name for its token service.
    """
    if account.name and account.name in administrators:
        return Rule([], otherwise=True)
    if not acl.is_valid:
        return Rule([])
    request, client = _Request(account, service), _parse_address(address)
    steps: list[tuple[Matcher, bool]] = []
    for entry in acl.entries:
        if entry.network and (client is None or client not in entry.network):
            continue
        for matcher in _matchers(entry, request):
            if matcher.kind == "everything":
                return Rule(steps, otherwise=entry.allows)
            steps.append((matcher, entry.allows))
    if own_namespace and account.name:
        steps.append((below(f"{account.name}/"), True))
    return Rule(steps)
