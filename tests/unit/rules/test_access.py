"""The access rule against docker_auth's own answers and against a slow restatement of its code."""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import re2
from bson import Code, Decimal128, ObjectId, Regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidReference
from app.rules.access import (
    Account,
    Explanation,
    Rule,
    compile_rule,
    explain,
    find_disorder,
    find_hidden,
    find_odd_field,
    parse_acl,
    without_labels,
)
from app.rules.references import namespace_of, parse_repository

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "acl-vectors.jsonl").read_text().splitlines()
]

ALLOW, DENY = ["*"], []
UNHURRIED: Any = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}


def make_entry(
    seq: float | None = 1, actions: list[str] | None = None, **match: Any
) -> dict[str, Any]:
    entry = {"match": match, "actions": ["pull"] if actions is None else actions}
    return entry if seq is None else {"seq": seq, **entry}


def make_rule(
    *entries: dict[str, Any],
    account: str = "alice",
    labels: dict[str, tuple[str, ...]] | None = None,
    address: str | None = None,
    service: str = "registry",
    own_namespace: bool = False,
    administrators: tuple[str, ...] = (),
) -> Rule:
    return compile_rule(
        parse_acl(entries),
        Account(account, labels or {}),
        address=address,
        service=service,
        own_namespace=own_namespace,
        administrators=administrators,
    )


def make_list(*entries: tuple[str, list[str]]) -> list[dict[str, Any]]:
    """Entries with only a name, in order."""
    return [make_entry(seq, actions, name=name) for seq, (name, actions) in enumerate(entries)]


# A restatement of Go's path.Match, strings.NewReplacer and docker_auth's acl.go, byte by byte


class BadPattern(Exception):
    pass


def decode_rune(text: bytes) -> tuple[int, int]:
    for length in range(1, min(4, len(text)) + 1):
        try:
            return ord(text[:length].decode()), length
        except UnicodeDecodeError:
            continue
    return 0xFFFD, 1


def scan_chunk(pattern: bytes) -> tuple[bool, bytes, bytes]:
    stripped = pattern.lstrip(b"*")
    in_range = False
    position = 0
    while position < len(stripped):
        byte = stripped[position : position + 1]
        if byte == b"\\":
            position += 1
        elif byte == b"[":
            in_range = True
        elif byte == b"]":
            in_range = False
        elif byte == b"*" and not in_range:
            break
        position += 1
    return stripped != pattern, stripped[:position], stripped[position:]


def get_escaped(chunk: bytes) -> tuple[int, bytes]:
    if chunk[:1] in (b"", b"-", b"]"):
        raise BadPattern
    if chunk[:1] == b"\\":
        chunk = chunk[1:]
    if not chunk:
        raise BadPattern
    rune, length = decode_rune(chunk)
    if not chunk[length:]:
        raise BadPattern
    return rune, chunk[length:]


def match_class(chunk: bytes, rune: int) -> tuple[bool, bytes]:
    negated = chunk[:1] == b"^"
    chunk = chunk[negated:]
    matched, count = False, 0
    while not (chunk[:1] == b"]" and count):
        low, chunk = get_escaped(chunk)
        high = low
        if chunk[:1] == b"-":
            high, chunk = get_escaped(chunk[1:])
        matched = matched or low <= rune <= high
        count += 1
    return matched != negated, chunk[1:]


def match_chunk(chunk: bytes, text: bytes) -> bytes | None:
    """What is left of the text, or None if the chunk does not match its beginning."""
    failed = False
    while chunk:
        failed = failed or not text
        operator = chunk[:1]
        if operator == b"[":
            rune, length = decode_rune(text) if text else (0, 0)
            matched, chunk = match_class(chunk[1:], rune)
            failed, text = failed or not matched, text[length:]
        elif operator == b"?":
            failed = failed or text[:1] == b"/"
            text, chunk = text[decode_rune(text)[1] :], chunk[1:]
        else:
            chunk = chunk[operator == b"\\" :]
            if not chunk:
                raise BadPattern
            failed = failed or chunk[:1] != text[:1]
            text, chunk = text[1:], chunk[1:]
    return None if failed else text


def go_path_match(pattern: bytes, name: bytes) -> bool:
    while pattern:
        star, chunk, pattern = scan_chunk(pattern)
        if star and not chunk:
            return b"/" not in name
        skips = name.partition(b"/")[0] if star else b""
        for skip in range(len(skips) + 1):
            rest = match_chunk(chunk, name[skip:])
            if rest is not None and (not rest or pattern):
                name = rest
                break
        else:
            return False
    return not name


def replace_all(text: str, pairs: list[tuple[str, str]]) -> str:
    result, position = "", 0
    while position < len(text):
        for old, new in pairs:
            if text.startswith(old, position):
                result, position = result + new, position + len(old)
                break
        else:
            result, position = result + text[position], position + 1
    return result


def match_string(pattern: str, value: str, pairs: list[tuple[str, str]]) -> bool:
    resolved = replace_all(pattern, pairs)
    if len(resolved) > 2 and resolved[0] == "/" and resolved[-1] == "/":
        try:
            return re2.compile(resolved[1:-1], QUIET).search(value) is not None
        except re2.error:
            return False
    try:
        return go_path_match(resolved.encode(), value.encode())
    except BadPattern:
        return False


def match_with_labels(
    pattern: str | None,
    value: str,
    pairs: list[tuple[str, str]],
    labels: dict[str, tuple[str, ...]],
) -> bool:
    if pattern is None or match_string(pattern, value, pairs):
        return True
    sets = [
        [(f"${{labels:{label}}}", text) for text in texts]
        for label, texts in labels.items()
        if f"${{labels:{label}}}" in pattern
    ]
    return bool(sets) and any(
        match_string(pattern, value, [*pairs, *combination])
        for combination in itertools.product(*sets)
    )


QUIET = re2.Options()
QUIET.log_errors = False
FIELDS = ["account", "type", "name", "service"]


def captures(match: dict[str, Any], request: dict[str, str]) -> Iterator[tuple[str, str]]:
    for field in FIELDS:
        for placeholder, key, digits in re.findall(r"(\$\{(.+?):([0-9]+)\})", match.get(field, "")):
            field = key.lower() if key.title() == key or key.lower() == key else ""
            regex = match.get(field, "") if field in FIELDS else ""
            if len(regex) > 2 and regex[0] == "/" == regex[-1]:
                found = re2.compile(regex[1:-1], QUIET).search(request[field])
                if found and 1 <= int(digits.lstrip("0")[:9] or 0) <= len(found.groups()):
                    yield placeholder, found[int(digits.lstrip("0")[:9] or 0)] or ""


def authorize(
    documents: list[dict[str, Any]],
    account: Account,
    name: str,
    address: str | None = None,
    service: str = "registry",
) -> bool | None:
    """Whether docker_auth lets `account` pull; None where no entry matches."""
    request = {"account": account.name, "type": "repository", "name": name, "service": service}
    for document in sorted((d for d in documents if "seq" in d), key=lambda d: d["seq"]):
        match = document["match"]
        pairs = [
            (f"${{{field}}}", re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", request[field]))
            for field in FIELDS
        ]
        pairs += captures(match, request)
        if (
            all(
                match_with_labels(match.get(f), request[f], pairs, dict(account.labels))
                for f in FIELDS
            )
            and (
                "ip" not in match
                or (
                    address is not None
                    and ipaddress.ip_address(address) in ipaddress.ip_network(match["ip"])
                )
            )
            and all(
                any(match_string(pattern, value, pairs) for value in account.labels.get(label, ()))
                for label, pattern in match.get("labels", {}).items()
            )
        ):
            return document["actions"] == ["*"] or "pull" in document["actions"]
    return None


# Generated lists, accounts and names

WORDS = ["a", "b", "ab", "team", "x.y", "a-b"]
SEPARATORS = ["", "/", "/", "-"]
VALID_NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).flatmap(
    lambda words: st.tuples(
        *(st.just(word) for word in words), st.lists(st.sampled_from("/-"), min_size=4, max_size=4)
    ).map(lambda parts: "".join(a + b for a, b in zip(parts[:-1], parts[-1], strict=False))[:-1])
)
ODD_TEXT = st.lists(
    st.sampled_from(
        [*WORDS, "/", "*", "\\", "?", "[", "$", "${account}", "世", "é", "\n", "^", "("]
    ),
    max_size=4,
).map("".join)
NAMES = st.one_of(VALID_NAMES, VALID_NAMES, ODD_TEXT)
PLACEHOLDERS = [
    "${account}",
    "${name}",
    "${type}",
    "${service}",
    "${account:1}",
    "${Account:1}",
    "${account:2}",
    "${name:1}",
    "${labels:group}",
    "${labels:project}",
    "${labels:none}",
    "${odd:1}",
]
GLOB_PARTS = ["*", "*", "?", "[a-b]", "[^a]", "[^/]", "[b-a]", "\\*", "\\a", "[", "]", "世", "[^é]"]
REGEX_PARTS = [
    "^", "^", "$", ".*", ".+", "(a|b)", "(.+)", "(x)?", "[^/]+", "|", "\\.", "\\/", "a*", "b?",
    "(?i)A", "\\pL", "\\z", "[[:alpha:]]", "\\Q.\\E", "\\Q\\E", "{", "(",
]  # fmt: skip
TEAMS = ["team/", "a/", "b/", "${account}/", "${labels:group}/"]


def joined(*parts: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(parts), max_size=5).map("".join)


GLOBS = joined(*WORDS, "/", "/", *GLOB_PARTS, *PLACEHOLDERS)
REGEXES = joined(*WORDS, "/", "/", *REGEX_PARTS, *PLACEHOLDERS).map(lambda text: f"/{text}/")
SIMPLE = st.one_of(
    st.sampled_from(["*", "/.*/", "/^/", "${name}", "${account}", "*/*"]),
    st.sampled_from(TEAMS).map(lambda team: f"{team}*"),
    st.sampled_from(TEAMS).map(lambda team: f"/^{team}.*/"),
    VALID_NAMES,
    VALID_NAMES.map(lambda name: f"/^{name}$/"),
)
PATTERNS = st.one_of(SIMPLE, SIMPLE, GLOBS, REGEXES)
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "account": st.one_of(
            st.sampled_from(["*", "alice", "a*", "/^(.)(.*)$/", "/(x)|./", "${name}", ""]), PATTERNS
        ),
        "type": st.sampled_from(["repository", "*", "/^rep(.*)/", "${type}", "registry"]),
        "service": st.sampled_from(["registry", "*", "", "${account}"]),
        "labels": st.dictionaries(st.sampled_from(["group", "project"]), PATTERNS, max_size=2),
        "ip": st.sampled_from(["10.0.0.0/8", "10.1.2.3", "::/0", "2001:db8::1"]),
    },
)
MATCHES = st.one_of(st.just({}), st.just({}), CONDITIONS).flatmap(
    lambda conditions: st.fixed_dictionaries(
        {key: st.just(value) for key, value in conditions.items()}, optional={"name": PATTERNS}
    )
)
ACTIONS = st.sampled_from([["*"], ["pull"], ["push", "pull"], [], ["push"], ["*", "push"]])


def is_valid_pattern(pattern: str) -> bool:
    try:
        return not (len(pattern) > 2 and pattern[0] == "/" == pattern[-1]) or bool(
            re2.compile(pattern[1:-1], QUIET)
        )
    except re2.error:
        return False


def is_valid_match(match: dict[str, Any]) -> bool:
    patterns = [pattern for field, pattern in match.items() if field not in ("labels", "ip")]
    return all(map(is_valid_pattern, [*patterns, *match.get("labels", {}).values()]))


def make_documents(matches: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(matches.filter(is_valid_match), ACTIONS), max_size=5).flatmap(
        lambda entries: st.permutations(
            [{"seq": n, "match": m, "actions": a} for n, (m, a) in enumerate(entries)]
        )
    )


VALUES = st.lists(st.one_of(st.sampled_from(WORDS), PATTERNS), max_size=3).map(tuple)
ACCOUNTS = st.builds(
    Account,
    st.one_of(st.sampled_from(["", "alice", "a", "team", "a/b"]), ODD_TEXT),
    st.dictionaries(st.sampled_from(["group", "project"]), VALUES),
)
ADDRESSES = st.sampled_from([None, "10.1.2.3", "192.0.2.1", "2001:db8::1"])


@settings(max_examples=250, **UNHURRIED)
@given(
    documents=make_documents(MATCHES),
    account=ACCOUNTS,
    names=st.lists(NAMES, min_size=1, max_size=8),
    address=ADDRESSES,
    own_namespace=st.booleans(),
)
def test_a_rule_answers_as_the_slow_restatement(
    documents: list[dict[str, Any]],
    account: Account,
    names: list[str],
    address: str | None,
    own_namespace: bool,
) -> None:
    acl = parse_acl(documents)
    circumstances: dict[str, Any] = {
        "address": address,
        "service": "registry",
        "own_namespace": own_namespace,
        "administrators": (),
    }
    rule = compile_rule(acl, account, **circumstances)

    for name in [*names, account.name, f"{account.name}/a/b"]:
        expected = authorize(documents, account, name, address)
        if expected is None:
            expected = bool(own_namespace and account.name and name.startswith(f"{account.name}/"))
        assert rule.may_pull(name) == expected
        assert_consistent(rule, name)
        assert_explains(explain(acl, account, name, **circumstances), expected)


@settings(max_examples=60, **UNHURRIED)
@given(
    entries=st.lists(
        st.tuples(st.one_of(GLOBS, REGEXES).filter(is_valid_pattern), ACTIONS),
        min_size=12,
        max_size=20,
    ),
    account=ACCOUNTS,
    names=st.lists(NAMES, min_size=1, max_size=20),
)
def test_a_rule_of_many_patterns_answers_as_the_slow_restatement(
    entries: list[tuple[str, list[str]]], account: Account, names: list[str]
) -> None:
    documents = make_list(*entries)
    rule = make_rule(*documents, account=account.name, labels=dict(account.labels))

    for name in names:
        assert rule.may_pull(name) == bool(authorize(documents, account, name))
        assert_consistent(rule, name)


def assert_explains(explanation: Explanation, expected: bool) -> None:
    """The explanation says the same, and names the one entry that decides, if one does."""
    assert explanation.allowed == expected
    matching = [step for step in explanation.steps if step.verdict != "no match"]
    assert [step.verdict for step in matching[:1]] in ([], ["decides"])
    assert all(step.verdict == "too late" for step in matching[1:])
    assert all(bool(step.because) == (step.verdict == "no match") for step in explanation.steps)
    for step in matching[:1]:
        assert step.hidden_by is None
        assert step.allows == expected


def assert_consistent(rule: Rule, name: str) -> None:
    """Shape and prefixes agree with `may_pull` about this name, if it is a repository name."""
    try:
        parse_repository(name)
    except InvalidReference:
        return
    allowed = rule.may_pull(name)
    assert not allowed or any(name.startswith(prefix) for prefix in rule.prefixes)
    if rule.shape is not None:
        assert allowed == (
            rule.shape.everything
            or namespace_of(name) in rule.shape.namespaces
            or name in rule.shape.repositories
            or any(name.startswith(f"{parent}/") for parent in rule.shape.parents)
        )


EVERY_NAME = [
    separator.join(words)
    for length in (1, 2, 3)
    for words in itertools.product(["a", "b", "team", "alice"], repeat=length)
    for separator in "/-"
]


@settings(max_examples=150, **UNHURRIED)
@given(
    entries=st.lists(st.tuples(SIMPLE.filter(is_valid_pattern), ACTIONS), max_size=5),
    account=st.sampled_from(["alice", "a", "team"]),
    own_namespace=st.booleans(),
)
def test_a_shape_of_simple_entries_is_exact(
    entries: list[tuple[str, list[str]]], account: str, own_namespace: bool
) -> None:
    rule = make_rule(*make_list(*entries), account=account, own_namespace=own_namespace)

    for name in EVERY_NAME:
        assert_consistent(rule, name)


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_docker_auth_gave_the_same_answer(vector: dict[str, Any]) -> None:
    labels = {label: tuple(values) for label, values in vector["labels"].items()}

    rule = make_rule(*vector["acl"], account=vector["account"], labels=labels)

    assert [name for name in vector["names"] if rule.may_pull(name)] == vector["may_pull"]
    for name in vector["names"]:
        assert_consistent(rule, name)


# Globs. The first cases are those of Go's path/match_test.go.

GLOB_CASES = [
    ("abc", "abc", True),
    ("*", "abc", True),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*", "ab/c", False),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a?b", "a☺b", True),
    ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("a[^a][^a][^a]b", "a☺b", False),
    ("[a-ζ]*", "β", True),
    ("*[a-ζ]", "A", False),
    ("a?b", "a/b", False),
    ("a*b", "a/b", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "x", True),
    ("[x\\-]", "-", True),
    ("[x\\-]", "z", False),
    ("[\\-x]", "x", True),
    ("[\\-x]", "-", True),
    ("[\\-x]", "a", False),
    ("[]a]", "]", False),
    ("[-]", "-", False),
    ("[x-]", "x", False),
    ("[x-]", "-", False),
    ("[x-]", "z", False),
    ("[-x]", "x", False),
    ("[-x]", "-", False),
    ("[-x]", "a", False),
    ("\\", "a", False),
    ("[a-b-c]", "a", False),
    ("[", "a", False),
    ("[^", "a", False),
    ("[^bc", "a", False),
    ("a[", "a", False),
    ("a[", "ab", False),
    ("a[", "x", False),
    ("a/b[", "x", False),
    ("*x", "xxx", True),
    # Not in Go's table
    ("", "", True),
    ("", "a", False),
    ("*", "", True),
    ("**", "a", True),
    ("**", "a/b", False),
    ("*", "/", False),
    ("//", "//", True),
    ("team/*", "team/", True),
    ("team/*", "team", False),
    ("[^]", "^", False),
    ("[^]a]", "b", False),
    ("[[]", "[", True),
    ("[]]", "]", False),
    ("]", "]", True),
    ("[a]]", "a]", True),
    ("[*]", "*", True),
    ("[*]", "a", False),
    ("[c-a]", "b", False),
    ("[^c-a]", "b", True),
    ("[^c-a]", "\n", True),
    ("?", "\n", True),
    ("[!-~]", "-", True),
    ("[a^]", "^", True),
    ("[&&~|]", "~", True),
    ("a[^x]b", "a/b", True),
    ("*[^x]*c", "aa/c", False),
    ("*[^x]c", "aa/c", True),
    ("*??", "世", True),
    ("??", "世", False),
    ("*[^é]", "é", True),
    ("*[\ufffd]", "é", True),
    ("[\ufffd]", "é", False),
    ("*[a-b]", "é", False),
    ("*[^é\ufffd]", "é", False),
    ("*[一-\ue000]", "é", False),
    ("*[^世]?", "世", True),
    ("{a,b}", "a", False),
    ("(a|b)", "(a|b)", True),
    ("a.c", "abc", False),
]


@pytest.mark.parametrize(("pattern", "name", "matches"), GLOB_CASES)
def test_a_glob_matches_as_in_go(pattern: str, name: str, matches: bool) -> None:
    assert make_rule(make_entry(name=pattern)).may_pull(name) is matches
    assert match_string(pattern, name, []) is matches


@settings(max_examples=600, **UNHURRIED)
@given(
    pattern=joined(
        *"ab/-\\^]", "[", "[a-b]", "[^a]", "[^/]", "*", "?", "é", "世", "[é-世]", "[^é]"
    ),
    name=joined(*"ab/-\\^[]", "é", "世", "\n"),
)
@example("*[^a]b*[^b]c", "xab/bcbbc")
def test_a_glob_matches_as_the_restatement_of_go(pattern: str, name: str) -> None:
    rule = make_rule(make_entry(name=f"x{pattern}"))

    assert rule.may_pull(f"x{name}") is match_string(f"x{pattern}", f"x{name}", [])


# Regexes


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("/am/", "team", True),
        ("/^am/", "team", False),
        ("/^\\pL+$/", "日本", True),
        ("/^\\pL+$/", "a1", False),
        ("/^[[:alpha:]]+$/", "abc", True),
        ("/^a(?i)BC$/", "abc", True),
        ("/^a(?i)BC$/", "Abc", False),
        ("/a\\z/", "ba", True),
        ("/a$/", "a\n", False),
        ("/^\\Qa.b\\E/", "a.b/c", True),
        ("/^\\Qa.b\\E/", "axb/c", False),
        ("/^ab\\Q\\E*$/", "a", True),
        ("/^ab(?i)*$/", "a", True),
        ("/^ab?$/", "a", True),
        ("/^ab{0}c/", "ac", True),
        ("/^ab|c/", "xc", True),
        ("/^team\\//", "team/a/b", True),
        ("/^team\\//", "team", False),
        ("/^team/.+/", "team/", False),
        ("/^team/.*/", "team/", True),
        ("/^tea.*/", "team", True),
        ("/^a\\.b$/", "a.b", True),
        ("/^a\\.b$/", "axb", False),
        ("/.*/", "\n", True),
        ("/.+/", "", False),
        ("/^$/", "", True),
        ("/(?P<team>a)/", "a", True),
    ],
)
def test_a_regex_is_re2_and_not_anchored(pattern: str, name: str, matches: bool) -> None:
    assert make_rule(make_entry(name=pattern)).may_pull(name) is matches


def test_many_regexes_are_found_together_and_the_first_still_decides() -> None:
    documents = make_list(
        *((f"/-{n}(/|$)/", ALLOW if n % 2 else DENY) for n in range(40)),
        ("*/*/x[^_]z", ALLOW),
        ("/[3]$/", ALLOW),
    )
    rule = make_rule(*documents)

    for name in [
        "a-1",
        "a-2",
        "a-2/b-1",
        "a-1/b-2",
        "a-43",
        "a-41",
        "日本-1",
        "a/b/x/z",
        "a/b/x_z",
    ]:
        assert rule.may_pull(name) == bool(authorize(documents, Account("alice", {}), name))


def test_regexes_too_large_for_one_automaton_are_tried_one_by_one() -> None:
    documents = make_list(
        *((f"/(a|b|{n}){{900}}.{{900}}x/", DENY) for n in range(60)), ("*", ALLOW)
    )

    assert make_rule(*documents).may_pull("a") is True


# Lists


def test_the_first_match_wins_in_the_order_of_seq_not_of_documents() -> None:
    rule = make_rule(make_entry(2, ["pull"], name="a"), make_entry(1, [], name="a"))

    assert rule.may_pull("a") is False


def test_int_and_float_seq_are_one_order() -> None:
    rule = make_rule(make_entry(10.0, []), make_entry(9, ["*"], name="a"))

    assert [name for name in ("a", "b") if rule.may_pull(name)] == ["a"]


@pytest.mark.parametrize(
    ("actions", "allows"),
    [
        (["*"], True),
        (["pull"], True),
        (["push", "pull"], True),
        ([], False),
        (["push"], False),
        (["*", "push"], False),
        (["*", "*"], False),
        (["*", "pull"], True),
        (["Pull"], False),
    ],
)
def test_only_a_lone_star_or_the_word_pull_allows(actions: list[str], allows: bool) -> None:
    assert make_rule(make_entry(1, actions)).may_pull("a") is allows


@pytest.mark.parametrize("seq", [{}, {"seq": None}], ids=str)
def test_an_entry_without_seq_is_ignored_and_reported(seq: Any) -> None:
    ignored = {**seq, "match": {"name": "/(/"}, "actions": ["*"]}
    acl = parse_acl([make_entry(1, name="a"), ignored])

    rule = make_rule(make_entry(1, name="a"), ignored)

    assert [(p.seq, p.index, p.message) for p in acl.problems] == [
        (None, 1, "ignored: it has no seq")
    ]
    assert acl.is_valid
    assert [name for name in ("a", "b") if rule.may_pull(name)] == ["a"]


INVALID = {
    "regex of account": make_entry(account="/(/"),
    "regex of type": make_entry(type="/a**/"),
    "regex of name": make_entry(name="/[a-/"),
    "regex of service": make_entry(service="/(?=a)/"),
    "regex of a label": make_entry(labels={"group": "/\\1/"}),
    "regex Go does not know": make_entry(name="/\\C/"),
    "regex with a group that Go does not know": make_entry(name="/(?P<équipe>a)/"),
    "regex too large": make_entry(name="/\\pL{1,1000}/"),
    "regex too deep": make_entry(name=f"/{'(' * 100_000}a{')' * 100_000}/"),
    "regex not Unicode": make_entry(name="/\udcff/"),
    "regex of BSON": make_entry(account=Regex("^bob")),
    "regex of BSON in a label": make_entry(labels={"group": Regex("^dev")}),
    "name an ObjectId": make_entry(name=ObjectId()),
    "name code": make_entry(name=Code("a")),
    "service a date": make_entry(service=datetime.now(UTC)),
    "type true": make_entry(type=True),
    "account a number": make_entry(account=1),
    "name a list": make_entry(name=["a"]),
    "name bytes": make_entry(name=b"a"),
    "labels a list": make_entry(labels=["group"]),
    "labels empty text": make_entry(labels=""),
    "label null": make_entry(labels={"group": None}),
    "ip empty": make_entry(ip=""),
    "ip a number": make_entry(ip=1),
    "ip a glob": make_entry(ip="192.168.0.*"),
    "ip a name": make_entry(ip="foo"),
    "ip with zone": make_entry(ip="fe80::1%eth0"),
    "ip with leading zero": make_entry(ip="10.0.0.01"),
    "ip with a line end": make_entry(ip="10.0.0.1\n"),
    "CIDR too long": make_entry(ip="192.168.0.1/100"),
    "CIDR v6 too long": make_entry(ip="2001:db8::/222"),
    "CIDR with netmask": make_entry(ip="10.0.0.0/255.0.0.0"),
    "CIDR without length": make_entry(ip="10.0.0.0/"),
    "CIDR with endless length": make_entry(ip="10.0.0.0/" + "9" * 5000),
    "actions missing": {"seq": 1, "match": {}},
    "actions null": {"seq": 1, "match": {}, "actions": None},
    "actions text": {"seq": 1, "match": {}, "actions": "pull"},
    "actions numbers": {"seq": 1, "match": {}, "actions": ["pull", 1]},
    "actions regex": {"seq": 1, "match": {}, "actions": [Regex("pull")]},
    "comment a number": {**make_entry(), "comment": 7},
    "field twice": make_entry(name="a", Name="b"),
    "seq fractional": make_entry(10.5),
    "seq text": make_entry("10"),  # type: ignore[arg-type]
    "seq true": make_entry(True),
    "seq not a number": make_entry(float("nan")),
    "seq endless": make_entry(float("inf")),
    "seq too large": make_entry(2**63),
    "seq decimal": make_entry(Decimal128("10")),  # type: ignore[arg-type]
    "seq a list": make_entry([1]),  # type: ignore[arg-type]
    "match missing": {"seq": 1, "actions": ["*"]},
    "match null": {"seq": 1, "match": None, "actions": ["*"]},
    "match a list": {"seq": 1, "match": [], "actions": ["*"]},
    "not a document": "a",
    "seq taken": make_entry(0),
}


@pytest.mark.parametrize("document", INVALID.values(), ids=INVALID)
def test_an_invalid_entry_denies_everything_to_all_but_administrators(document: Any) -> None:
    documents = [make_entry(0), document]
    acl = parse_acl(documents)

    rule = make_rule(*documents, own_namespace=True, administrators=("root",))
    root = make_rule(*documents, account="root", administrators=("root",))

    assert not acl.is_valid
    assert [problem.index for problem in acl.problems] == [1]
    assert (rule.may_pull("a"), rule.may_pull("alice/a"), rule.prefixes) == (False, False, ())
    assert root.may_pull("a")


def test_the_message_of_an_invalid_regex_says_where_and_why() -> None:
    acl = parse_acl([make_entry(7, name="/(a/")])

    assert [(p.seq, p.message) for p in acl.problems] == [
        (7, "invalid: name '/(a/': missing ): (a")
    ]


@pytest.mark.parametrize(
    ("entry", "where", "message"),
    [
        (
            make_entry(7, account=Regex("^bob")),
            "seq 7",
            "account is a regular expression of BSON (put quotes around it) and not text",
        ),
        (make_entry(7, name=ObjectId()), "seq 7", "name is an ObjectId and not text"),
        (
            make_entry(10.5),
            "without seq, number 2 in the collection",
            "seq is the number 10.5 and not a whole number",
        ),
    ],
)
def test_an_entry_that_docker_auth_cannot_read_is_named(
    entry: dict[str, Any], where: str, message: str
) -> None:
    [problem] = parse_acl([make_entry(1), entry]).problems

    assert (problem.where, problem.message) == (where, f"invalid: {message}")


def test_a_message_about_an_entry_is_bounded() -> None:
    for document in INVALID.values():
        [problem] = parse_acl([document, make_entry(0)]).problems[-1:]
        assert len(problem.message) <= 300
    [problem] = parse_acl([make_entry(name="/(" + "a" * 10_000 + "/")]).problems
    assert len(problem.message) <= 300


def test_the_fields_of_an_entry_are_found_in_capitals_too() -> None:
    entry = {"Seq": 1, "Match": {"Account": "bob", "NAME": "a"}, "Actions": ["pull"]}

    assert make_rule(entry, account="bob").may_pull("a")
    assert not make_rule(entry, account="bob").may_pull("b")
    assert not make_rule(entry, account="alice").may_pull("a")


# The order in which docker_auth's code tries entries


def disorder(*entries: dict[str, Any]) -> list[tuple[int, int]]:
    return [(pair.first, pair.second) for pair in find_disorder(parse_acl(entries))]


def test_entries_that_are_stored_in_the_order_of_seq_are_in_order() -> None:
    assert disorder(make_entry(10, DENY), make_entry(20, ALLOW), make_entry(30, DENY)) == []


def test_entries_whose_stored_order_decides_otherwise_are_named_in_pairs() -> None:
    entries = [make_entry(30, ALLOW), make_entry(20, DENY, name="a/*"), make_entry(10, ALLOW)]

    assert disorder(*entries) == [(10, 20), (20, 30)]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ({}, {}, True),
        ({"name": "team/*"}, {"name": "team/app"}, True),
        ({"name": "team/*"}, {"name": "ops/*"}, False),
        ({"name": "team/*"}, {"name": "ops/app"}, False),
        ({"name": "/^team\\//"}, {"name": "team/*"}, True),
        ({"name": "/^team\\//"}, {"name": "/^ops\\//"}, False),
        ({"name": "*/app"}, {"name": "team/app"}, True),
        ({"name": "*/app"}, {"name": "team/web"}, False),
        ({"name": "*/app"}, {"name": "team/*"}, True),
        ({"name": "/app$/"}, {"name": "team/*"}, True),
        ({"name": "team/x?y"}, {"name": "ops/x?y"}, False),
        ({"name": "${account}/*"}, {"name": "ops/*"}, True),
        ({"name": "[a-"}, {"name": "[a-"}, False),
        ({"account": "alice"}, {"account": "bob"}, False),
        ({"account": "alice"}, {"name": "team/*"}, True),
        ({"ip": "10.0.0.0/8"}, {"ip": "10.1.0.0/16"}, True),
        ({"ip": "10.0.0.0/8"}, {"ip": "192.0.2.0/24"}, False),
        ({"ip": "::/0"}, {"ip": "10.0.0.0/8"}, False),
        ({"labels": {"group": "dev"}}, {"labels": {"group": "ops"}}, True),
    ],
)
def test_the_order_of_two_entries_matters_where_a_request_may_match_both(
    one: dict[str, Any], other: dict[str, Any], meet: bool
) -> None:
    for first, second in ((one, other), (other, one)):
        entries = [make_entry(2, ALLOW, **second), make_entry(1, DENY, **first)]
        assert disorder(*entries) == ([(1, 2)] if meet else [])


def test_the_order_of_entries_with_one_result_does_not_matter() -> None:
    assert disorder(make_entry(2, ALLOW), make_entry(1, ["pull"])) == []


@given(
    places=st.permutations(range(5)),
    patterns=st.lists(
        st.sampled_from(["a", "b", "a/*", "a/b", "*", "*/b", "/^a/", "/b$/", "/./", "a/b/*"]),
        min_size=5,
        max_size=5,
    ),
    allowed=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_where_no_pair_is_named_the_stored_order_gives_the_same_answers(
    places: list[int], patterns: list[str], allowed: list[bool]
) -> None:
    entries = [
        make_entry(seq, ALLOW if allows else DENY, name=name)
        for seq, (name, allows) in enumerate(zip(patterns, allowed, strict=True))
    ]
    stored = [entries[place] for place in places]
    unsorted = [{**entry, "seq": seq} for seq, entry in enumerate(stored)]

    if not disorder(*stored):
        here, there = make_rule(*stored), make_rule(*unsorted)
        for name in ("a", "b", "a/b", "a/x", "x/b", "a/b/c", "ab", "x/y"):
            assert here.may_pull(name) == there.may_pull(name)


def test_an_explanation_says_where_the_stored_order_answers_otherwise() -> None:
    deny, allow = make_entry(10, DENY, name="team/*"), make_entry(20, ALLOW)

    assert explained(deny, allow).unsorted == ""
    assert explained(allow, deny).unsorted == "seq 20 is stored before it, and allows pull"
    assert explained(allow, deny, name="ops/app").unsorted == ""
    assert explained(make_entry(30, DENY), allow, deny, name="ops/app").unsorted == (
        "seq 30 is stored before it, and does not allow pull"
    )


def test_a_null_condition_is_a_missing_one() -> None:
    match = {"account": None, "name": None, "ip": None, "labels": None, "email": "x"}

    assert make_rule(make_entry(**match)).may_pull("a")


def test_a_label_may_be_called_as_a_field() -> None:
    entry = make_entry(labels={"name": "dev", "type": "x"})

    assert make_rule(entry, labels={"name": ("dev",), "type": ("x",)}).may_pull("a")


def test_an_empty_pattern_matches_only_the_empty_string() -> None:
    anonymous_only = make_entry(account="")

    assert make_rule(anonymous_only, account="").may_pull("a")
    assert not make_rule(anonymous_only, account="alice").may_pull("a")
    assert not make_rule(make_entry(name="")).may_pull("a")


def test_an_empty_list_allows_nothing() -> None:
    rule = make_rule()

    assert rule.may_pull("a") is False
    assert rule.shape is not None
    assert (rule.shape.everything, rule.prefixes) == (False, ())


# Accounts


def test_an_administrator_sees_everything() -> None:
    rule = make_rule(make_entry(1, []), account="root", administrators=("root",))

    assert rule.may_pull("any/thing")
    assert rule.shape is not None
    assert (rule.shape.everything, rule.prefixes) == (True, ("",))


def test_the_anonymous_account_is_never_an_administrator() -> None:
    assert not make_rule(account="", administrators=("",)).may_pull("a")


def test_the_own_namespace_counts_only_where_no_entry_matches() -> None:
    rule = make_rule(make_entry(1, [], name="alice/secret"), own_namespace=True)

    names = ["alice/a", "alice/a/b", "alice/secret", "alice", "alicex/a", "bob/a"]
    assert [name for name in names if rule.may_pull(name)] == ["alice/a", "alice/a/b"]


def test_the_anonymous_account_has_no_namespace_of_its_own() -> None:
    rule = make_rule(account="", own_namespace=True)

    assert not any(rule.may_pull(name) for name in ("", "/a", "a", "a/b"))


@pytest.mark.parametrize("account", ["a*", "a/b", "${name}", "/.*/", "a.b", "[ab]", "a\\", "世"])
def test_an_account_name_is_taken_literally(account: str) -> None:
    rule = make_rule(make_entry(name="${account}/*"), account=account)
    own = make_rule(account=account, own_namespace=True)

    for other in ("ab/x", "axb/x", "b/x", "a/x"):
        assert not rule.may_pull(other)
        assert not own.may_pull(other)
    assert rule.may_pull(f"{account}/x")
    assert own.may_pull(f"{account}/x/y")


def test_an_account_document_keeps_only_lists_of_strings_as_labels() -> None:
    labels = {"group": ["dev", 1, None], "text": "dev", "null": None, "empty": [], "number": 1}

    account = Account.from_document({"username": "alice", "labels": labels})

    assert account == Account("alice", {"group": ("dev",), "null": (), "empty": ()})


@pytest.mark.parametrize("values", [None, []])
def test_a_label_of_nothing_leaves_no_combination_to_try(values: Any) -> None:
    """docker_auth tries each value of the one with each of the other."""
    document = {"username": "alice", "labels": {"site": values, "group": ["team"]}}
    labels = Account.from_document(document).labels

    rule = make_rule(make_entry(name="/^(${labels:site}|${labels:group})/"), labels=dict(labels))

    assert not rule.may_pull("team/app")


@pytest.mark.parametrize(
    ("labels", "odd"),
    [
        (None, None),
        ({}, None),
        ({"group": ["dev", "ops"], "site": [], "old": None}, None),
        ("dev", "labels is text and not a document"),
        (["dev"], "labels is a list and not a document"),
        ({"group": "dev"}, "label group is text and not a list"),
        ({"group": Regex("dev")}, "label group is a regular expression of BSON"),
        ({"group": ["dev", 1]}, "label group has the number 1, which is not text"),
    ],
)
def test_labels_that_docker_auth_cannot_read_are_named(labels: Any, odd: str | None) -> None:
    found = find_odd_field({"username": "alice", "labels": labels})

    assert found is None if odd is None else found and found.startswith(odd)


@pytest.mark.parametrize("labels", [None, "dev", ["dev"], 1])
def test_an_account_document_with_odd_labels_has_none(labels: object) -> None:
    assert Account.from_document({"username": "a", "labels": labels}) == Account("a", {})


# Placeholders


def test_every_combination_of_labels_is_tried() -> None:
    labels = {"group": ("dev", "ops"), "project": ("web", "api")}

    rule = make_rule(make_entry(name="${labels:group}/${labels:project}"), labels=labels)

    names = ["dev/web", "dev/api", "ops/web", "ops/api", "dev/db", "web/dev"]
    assert [name for name in names if rule.may_pull(name)] == names[:4]


def test_an_unknown_label_leaves_its_placeholder_as_text() -> None:
    rule = make_rule(make_entry(name="${labels:none}/*"), labels={"group": ("dev",)})

    assert rule.may_pull("${labels:none}/a")
    assert not rule.may_pull("dev/a")


def test_a_label_without_values_matches_nothing() -> None:
    rule = make_rule(
        make_entry(name="${labels:group}/${labels:project}"),
        labels={"group": ("dev",), "project": ()},
    )

    assert not any(rule.may_pull(name) for name in ("dev/", "dev/a", "dev/${labels:project}"))


def test_a_label_value_is_a_pattern_and_is_not_resolved_again() -> None:
    labels = {"group": ("t*/a", "/^x/", "${account}", "[")}

    rule = make_rule(make_entry(name="${labels:group}"), labels=labels)

    names = ["team/a", "x/y/z", "${account}", "alice", "["]
    assert [name for name in names if rule.may_pull(name)] == names[:3]


@pytest.mark.parametrize("count", [100, 101])
def test_an_entry_with_too_many_combinations_fails_closed(count: int) -> None:
    labels = {"group": tuple(f"g{n}" for n in range(count)), "project": tuple(map(str, range(100)))}
    pattern = "${labels:group}/${labels:project}"

    allowing = make_rule(make_entry(name=pattern), labels=labels)
    denying = make_rule(make_entry(1, [], name=pattern), make_entry(2), labels=labels)

    assert allowing.may_pull("g1/1") is (count == 100)
    assert denying.may_pull("g1/1") is False
    assert denying.may_pull("other") is (count == 100)


def test_a_regex_that_a_label_makes_too_large_fails_closed() -> None:
    labels = {"group": ("(" * 5000 + ")" * 5000,)}
    pattern = "/^x${labels:group}/"

    allowing = make_rule(make_entry(name=pattern), make_entry(2, name="b"), labels=labels)
    denying = make_rule(
        make_entry(1, [], name=f"{pattern[:-1]}${{name}}/"), make_entry(2), labels=labels
    )

    assert [name for name in ("x", "b") if allowing.may_pull(name)] == ["b"]
    assert not denying.may_pull("b")


def test_a_regex_that_a_label_makes_invalid_matches_nothing() -> None:
    rule = make_rule(
        make_entry(1, [], name="/^${labels:group}/"), make_entry(2), labels={"group": ("(",)}
    )

    assert rule.may_pull("a")


@pytest.mark.parametrize(
    ("account_pattern", "pattern", "account", "name"),
    [
        ("/^(.+)@test\\.com$/", "${account:1}/*", "john.smith@test.com", "john.smith/test"),
        ("/^(.+)@(.+?).test\\.com$/", "${account:1}-${account:2}/*", "a.b@it.test.com", "a.b-it/c"),
        ("/^(.+)@/", "${Account:00000000001}/*", "a@b", "a/c"),
        ("/^(x)?a$/", "b${account:1}", "a", "b"),
        ("/^(.*)$/", "${account:1}/b", "*", "any/b"),
        ("/^a/", "${account:1}", "a", "${account:1}"),
        ("a*", "${account:1}", "a", "${account:1}"),
        ("/^(a)/", "${account:2}", "a", "${account:2}"),
        ("/^(a)/", "${account:0}", "a", "${account:0}"),
        ("/^(a)/", f"${{account:{'9' * 5000}}}", "a", f"${{account:{'9' * 5000}}}"),
        ("/^(a)/", "${account}/${account:1}", "a", "a/${account:1}"),
        ("/^(a)/", "${labels:x}${account:1}", "a", "${labels:x}${account:1}"),
    ],
)
def test_a_capture_group_is_inserted_as_it_is(
    account_pattern: str, pattern: str, account: str, name: str
) -> None:
    entry = make_entry(account=account_pattern, name=pattern)

    assert make_rule(entry, account=account).may_pull(name)
    assert authorize([entry], Account(account, {}), name)


def test_a_group_that_only_a_label_condition_mentions_is_unknown() -> None:
    entry = make_entry(account="/^(.)/", labels={"group": "${account:1}"})
    mentioned = make_entry(
        account="/^(.)/", name="*${account:1}*", labels={"group": "${account:1}"}
    )

    assert not make_rule(entry, labels={"group": ("a",)}).may_pull("a")
    assert make_rule(mentioned, labels={"group": ("a",)}).may_pull("a")


def test_conditions_may_depend_on_the_repository() -> None:
    rule = make_rule(make_entry(account="${name}"), make_entry(2, labels={"group": "${name}"}))

    assert rule.may_pull("alice")
    assert not rule.may_pull("bob")


def test_every_label_of_a_condition_needs_a_value_that_matches() -> None:
    entry = make_entry(labels={"group": "d*", "project": "/web|api/"})

    assert make_rule(entry, labels={"group": ("x", "dev"), "project": ("web",)}).may_pull("a")
    assert not make_rule(entry, labels={"group": ("dev",), "project": ("db",)}).may_pull("a")
    assert not make_rule(entry, labels={"group": ("dev",)}).may_pull("a")


def test_a_label_condition_knows_the_account_but_not_its_labels() -> None:
    labels = {"group": ("dev", "alice"), "project": ("${labels:group}",)}

    assert make_rule(make_entry(labels={"group": "${account}"}), labels=labels).may_pull("a")
    own = make_entry(labels={"group": "${labels:group}"})
    assert not make_rule(own, labels=labels).may_pull("a")
    literal = make_entry(labels={"project": "${labels:group}"})
    assert make_rule(literal, labels=labels).may_pull("a")


def test_where_nobody_tells_labels_an_entry_that_asks_for_them_denies_and_allows_nothing() -> None:
    acl = without_labels(
        parse_acl(
            [
                make_entry(1, labels={"group": "guests"}, name="team/*", actions=[]),
                make_entry(2, name="${labels:project}/*", account="alice", actions=["push"]),
                make_entry(3, labels={"group": "dev"}, name="ops/*"),
                make_entry(4, account="/^b/", name="x/*", labels={}),
                make_entry(5, name="/^${account:1}${labels:a}/", account="/^(c)/", actions=[]),
                make_entry(6, name="*/*"),
            ]
        )
    )

    def may_pull(name: str, repository: str) -> bool:
        account = Account(name, {})
        rule = compile_rule(
            acl, account, address=None, service="s", own_namespace=False, administrators=()
        )
        return rule.may_pull(repository)

    assert not may_pull("bob", "team/app")
    assert may_pull("bob", "ops/app")
    assert not may_pull("alice", "ops/app")
    assert not may_pull("carol", "ops/app")
    assert [(problem.seq, problem.message[-24:]) for problem in acl.problems] == [
        (1, "denies whatever they are"),
        (2, "denies whatever they are"),
        (3, "t allows nobody anything"),
        (5, "denies whatever they are"),
    ]
    assert acl.is_valid


def test_type_and_service_are_conditions_on_the_request() -> None:
    assert make_rule(make_entry(type="repository", service="hub"), service="hub").may_pull("a")
    assert not make_rule(make_entry(type="registry")).may_pull("a")
    assert not make_rule(make_entry(service="other")).may_pull("a")


# Addresses


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("127.0.0.1", None, False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.0/8", "127.0.0.2", True),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("10.0.0.0/08", "10.9.9.9", True),
        ("0.0.0.0/0", "192.0.2.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "2001:db8::1", True),
        ("::/0", "192.0.2.1", False),
        ("2001:db8::1", None, False),
        ("2001:db8::1", "2001:DB8:0::1", True),
        ("2001:db8::1", "2001:db8::2", False),
        ("2001:db8::/48", "2001:db8::2", True),
        ("2001:db8::/48", "2001:db9::2", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "11.1.2.3", False),
        ("::ffff:10.0.0.0/90", "10.1.2.3", False),
        ("::/0", "", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("10.0.0.0/8", "10.0.0.1:80", True),
        ("2001:db8::/48", "[2001:db8::2]:4711", True),
        ("10.0.0.0/8", "[::ffff:10.1.2.3]:4711", True),
        ("0.0.0.0/0", "10.0.0.0/8", False),
        ("0.0.0.0/0", "unknown", False),
    ],
)
def test_an_ip_condition_is_met_by_the_address_of_the_client(
    pattern: str, address: str | None, matches: bool
) -> None:
    assert make_rule(make_entry(ip=pattern), address=address).may_pull("a") is matches


# Shapes and prefixes


@pytest.mark.parametrize(
    ("entries", "namespaces", "repositories", "parents"),
    [
        ([("${account}/*", ALLOW)], {"alice"}, (), ()),
        ([("team/*", ALLOW), ("a/b/*", ALLOW), ("x", ALLOW)], {"team", "a/b"}, {"x"}, ()),
        ([("*", ALLOW)], {""}, (), ()),
        ([("/^team\\//", ALLOW), ("/^a/.*/", ALLOW)], (), (), {"team", "a"}),
        ([("/^team\\/a$/", ALLOW)], (), {"team/a"}, ()),
        ([("team/*", ALLOW), ("team/x", DENY), ("/.*/", DENY)], {"team"}, (), ()),
        ([("team/*", ALLOW), ("team/x", DENY), ("b/*", ALLOW)], {"team", "b"}, (), ()),
        ([("b/x", DENY), ("team/*", ALLOW)], {"team"}, (), ()),
        (
            [("/^a//", ALLOW), ("a/*", DENY), ("a/b/*", DENY), ("a/x", ALLOW), ("b", ALLOW)],
            (),
            {"a/x", "b"},
            {"a"},
        ),
        ([("team/*", ALLOW), ("/x/", DENY)], {"team"}, (), ()),
        ([("${labels:group}/*", ALLOW)], {"dev", "ops"}, (), ()),
        ([("[", DENY), ("a", ALLOW)], (), {"a"}, ()),
    ],
)
def test_a_simple_rule_has_a_shape(
    entries: list[tuple[str, list[str]]], namespaces: Any, repositories: Any, parents: Any
) -> None:
    shape = make_rule(*make_list(*entries), labels={"group": ("dev", "ops")}).shape

    assert shape is not None
    assert not shape.everything
    assert shape.namespaces == frozenset(namespaces)
    assert shape.repositories == frozenset(repositories)
    assert shape.parents == frozenset(parents)


@pytest.mark.parametrize(
    "entries",
    [
        [make_entry(1, ["*"], account="alice")],
        [make_entry(1, ["pull"], name="/.*/")],
        [make_entry(1, ["pull"], name="/regex/"), make_entry(2, ["pull"])],
        [make_entry(1, [], account="bob"), make_entry(2, ["pull"], name="${name}")],
        [make_entry(1, ["pull"]), make_entry(2, [])],
    ],
)
def test_everything_is_a_shape(entries: list[dict[str, Any]]) -> None:
    rule = make_rule(*entries)

    assert rule.shape is not None
    assert rule.shape.everything
    assert rule.prefixes == ("",)


def test_the_own_namespace_is_a_parent_in_the_shape() -> None:
    rule = make_rule(*make_list(("team/*", ALLOW), ("x/*", DENY)), own_namespace=True)

    assert rule.shape is not None
    assert rule.shape.parents == {"alice"}
    assert rule.prefixes == ("alice/", "team/")


@pytest.mark.parametrize(
    "entries",
    [
        [("team/x", DENY), ("team/*", ALLOW)],
        [("x", DENY), ("/.*/", ALLOW)],
        [("/^team//", DENY), ("team/*", ALLOW)],
        [("team/*", DENY), ("/^team//", ALLOW)],
        [("team/*", DENY), ("team/x", ALLOW)],
        [("*/app", ALLOW)],
        [("/x/", DENY), ("team/*", ALLOW)],
        [("a/*", DENY), ("/^a/", ALLOW)],
    ],
)
def test_a_rule_that_is_not_simple_has_no_shape(entries: list[tuple[str, list[str]]]) -> None:
    assert make_rule(*make_list(*entries)).shape is None


@pytest.mark.parametrize(
    ("pattern", "prefixes"),
    [
        ("team-*/app", ("team-",)),
        ("/^prod/[a-z]+$/", ("prod",)),
        ("/^team-?x/", ("team",)),
        ("/^ab\\Q\\E*c/", ("a",)),
        ("/^(a|b)/", ("",)),
        ("/^a|b/", ("",)),
        ("/^ab|b/", ("",)),
        ("a\\?b?", ("a?b",)),
        ("/x/", ("",)),
    ],
)
def test_prefixes_are_what_every_match_begins_with(pattern: str, prefixes: tuple[str, ...]) -> None:
    assert make_rule(make_entry(name=pattern)).prefixes == prefixes


def test_a_prefix_covers_those_that_continue_it_and_denied_ones_do_not_count() -> None:
    documents = make_list(("x/*", DENY), ("team/a", ALLOW), ("te*m", ALLOW), ("b*/c", ALLOW))

    assert make_rule(*documents).prefixes == ("b", "te")


def test_very_many_prefixes_are_no_prefix() -> None:
    documents = make_list(*((f"{n:03}*x", ALLOW) for n in range(101)))

    assert make_rule(*documents[:100]).prefixes == tuple(f"{n:03}" for n in range(100))
    assert make_rule(*documents).prefixes == ("",)


# Size


def test_text_that_is_not_unicode_is_an_ordinary_name() -> None:
    documents = make_list(
        *(("?${account}[x]*", ALLOW) for _ in range(10)), ("/^x/", ALLOW), ("[a-c]*?", ALLOW)
    )
    rule = make_rule(*documents, make_entry(99, [], name="/${name}y/"), account="\udcff")

    names = ("\udcff", "x\udcff", "a\udcff", "a\udcffx", "x")
    assert [rule.may_pull(name) for name in names] == [False, True, True, True, True]


def test_a_thousand_entries_answer_for_many_names() -> None:
    documents = make_list(
        *((f"team-{n}/app", DENY) for n in range(300)),
        *((f"team-{n}/*", ALLOW) for n in range(300)),
        *((f"/^t.*-{n}/x/", ALLOW) for n in range(200)),
        *((f"*-{n}/y?", ALLOW) for n in range(200)),
    )
    rule = make_rule(*documents)

    names = [f"team-{n}/{leaf}" for n in range(0, 400, 7) for leaf in ("app", "web", "x", "yy")]
    allowed = [name for name in names if rule.may_pull(name)]
    expected = [
        name
        for name in names
        if (int(re.findall("[0-9]+", name)[0]) < 300 and not name.endswith("/app"))
    ]
    assert allowed == expected


# Explaining


def explained(*entries: dict[str, Any], name: str = "team/app", **account: Any) -> Explanation:
    return explain(
        parse_acl(entries),
        Account(account.get("account", "alice"), account.get("labels", {})),
        name,
        address=account.get("address"),
        service="registry",
        own_namespace=True,
        administrators=["admin"],
    )


def test_an_explanation_names_the_entry_that_decides_and_why_the_others_do_not() -> None:
    found = explained(
        make_entry(30, ALLOW, name="team/*"),
        make_entry(10, ALLOW, account="bob"),
        make_entry(20, DENY, name="team/a*"),
    )

    assert not found.allowed
    assert found.reason == "the entry with seq 20 decides: it does not allow pull"
    assert [(step.seq, step.place, step.index, step.verdict) for step in found.steps] == [
        (10, 1, 1, "no match"),
        (20, 2, 2, "decides"),
        (30, 3, 0, "too late"),
    ]
    assert found.steps[0].because == "account 'bob' does not match 'alice'"


@pytest.mark.parametrize(
    ("entry", "because"),
    [
        (make_entry(name="ops/*"), "name 'ops/*' does not match 'team/app'"),
        (make_entry(service="other"), "service 'other' does not match 'registry'"),
        (make_entry(labels={"group": "dev"}), "group 'dev' does not match 'ops', 'qa'"),
        (make_entry(labels={"site": "*"}), "site '*' does not match no value"),
        (make_entry(ip="10.0.0.0/8"), "ip 10.0.0.0/8 does not hold 192.0.2.1"),
    ],
)
def test_the_condition_that_is_not_met_is_named(entry: dict[str, Any], because: str) -> None:
    labels = {"group": ("ops", "qa")}

    found = explained(entry, labels=labels, address="192.0.2.1")

    assert found.steps[0].because == because


@pytest.mark.parametrize(
    ("account", "name", "allowed", "reason"),
    [
        ("admin", "team/app", True, "administrator"),
        ("alice", "alice/app", True, "own namespace"),
        ("alice", "team/app", False, "no entry matches"),
        ("", "team/app", False, "no entry matches"),
    ],
)
def test_what_no_entry_decides_is_explained_too(
    account: str, name: str, allowed: bool, reason: str
) -> None:
    found = explained(name=name, account=account)

    assert (found.allowed, reason in found.reason) == (allowed, True)


def test_an_invalid_list_is_explained_as_denying_with_its_problem() -> None:
    found = explained(make_entry(1, ALLOW), make_entry(2, name="/(/"))

    assert not found.allowed
    assert "invalid" in found.reason
    assert found.problems[0].seq == 2


@pytest.mark.parametrize(
    ("first", "second", "hidden"),
    [
        ({}, {"name": "team/*"}, True),
        ({"name": "team/*"}, {"name": "team/*", "account": "bob"}, True),
        ({"name": "team/*"}, {"name": "team/app"}, True),
        ({"name": "/^team/"}, {"name": "team/app"}, True),
        ({"name": "team/*"}, {"name": "ops/app"}, False),
        ({"name": "team/app"}, {"name": "team/*"}, False),
        ({"account": "alice"}, {"name": "team/*"}, False),
        ({"name": "${account}/*"}, {"name": "team/app"}, False),
        ({"labels": {"group": "dev"}}, {}, False),
        ({"labels": {"group": "dev"}}, {"labels": {"group": "dev"}, "name": "a"}, True),
        ({"ip": "10.0.0.0/8"}, {"ip": "10.1.0.0/16"}, True),
        ({"ip": "10.1.0.0/16"}, {"ip": "10.0.0.0/8"}, False),
        ({"ip": "10.0.0.0/8"}, {}, False),
        ({"ip": "::/0"}, {"ip": "10.0.0.1"}, False),
    ],
)
def test_an_entry_that_can_never_decide_is_found(
    first: dict[str, Any], second: dict[str, Any], hidden: bool
) -> None:
    found = explained(make_entry(5, **first), make_entry(7, **second))

    assert found.steps[1].hidden_by == (5 if hidden else None)


def test_of_very_many_entries_some_are_looked_at_for_those_that_never_decide() -> None:
    """A page waits for it: each is compared with all before it."""
    many = [make_entry(seq, account=f"u{seq}") for seq in range(1000)]

    found = find_hidden(parse_acl([*many, make_entry(1000, account="u7")]))
    first = find_hidden(parse_acl([*many[:300], make_entry(1000, account="u7")]))

    assert (found, first) == ({}, {1000: 7})
