r"""docker_auth's patterns: globs as Go's `path.Match`, and `/…/` as RE2. Pure.

Source: cesanta/docker_auth `auth_server/authz/acl.go`, Go's `path/match.go` and `regexp`.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Literal

import msgspec
import re2

MAX_GROUPS = 1000  # of one regex; RE2 takes minutes and gigabytes over deeper nesting

QUOTED = str.maketrans({char: f"\\{char}" for char in r"\.+*?()|[]{}^$"})  # Go: QuoteMeta
OPTIONS = re2.Options()
OPTIONS.log_errors = False


class InvalidPattern(ValueError):
    """A pattern that Go does not compile either: it matches nothing."""


class TooComplex(ValueError):
    """A pattern or a number of patterns that cannot be tried in reasonable time or space."""


class Matcher(msgspec.Struct, frozen=True):
    """One compiled pattern; whatever it matches begins with `text`.

    `exact` matches `text` alone, `children` what follows it (empty or ending in a slash) up to the
    next slash, `below` all that begins with it (ending in a slash), `everything` and `test` say
    themselves. `superset` is an RE2 regex that finds at least the ASCII strings that match.
    """

    kind: Literal["everything", "exact", "children", "below", "test"]
    text: str
    test: Callable[[str], bool]
    superset: str = ""


EVERYTHING = Matcher("everything", "", lambda _: True)


def is_regex(pattern: str) -> bool:
    return len(pattern) > 2 and pattern[0] == "/" == pattern[-1]


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Matcher | None:
    """The matcher of a pattern without placeholders; None if it matches nothing.

    Raises:
        TooComplex: a regex is too large.
    """
    if not is_regex(pattern):
        return _compile_glob(pattern)
    try:
        return _compile_regex(pattern[1:-1])
    except InvalidPattern:
        return None


@lru_cache(maxsize=4096)
def compile_regex(text: str) -> Any:
    if text.count("(") > MAX_GROUPS:
        raise TooComplex(f"more than {MAX_GROUPS} groups")
    if re.search(r"(?<!\\)(\\\\)*\\C", text):
        raise InvalidPattern(r"\C is RE2's, Go does not know it")
    try:
        compiled = re2.compile(text, OPTIONS)
    except UnicodeEncodeError as error:
        raise TooComplex("not valid Unicode") from error
    except re2.error as error:
        message = str(error.args[0], errors="replace")
        kind = TooComplex if "too large" in message else InvalidPattern
        raise kind(message) from error
    if not all(map(str.isascii, compiled.groupindex)):
        raise InvalidPattern("the name of a group has letters that Go does not take")
    return compiled


_BEGINNING = re.compile(r"\^((?:[^\\.+*?()|\[\]{}^$]|\\[!-/:-@\[-`{-~])*)(.*)", re.DOTALL)


def _compile_regex(text: str) -> Matcher:
    compiled = compile_regex(text)

    def test(value: str) -> bool:
        return compiled.search(encode(value)) is not None

    if text == ".*":
        return EVERYTHING
    beginning = _BEGINNING.fullmatch(text)
    if beginning is None:
        return Matcher("test", "", test, text)
    literal = re.sub(r"\\(.)", r"\1", beginning[1])
    if beginning[2] == "$":
        return exactly(literal)
    if beginning[2] in ("", ".*"):
        if literal.endswith("/"):
            return below(literal)
        return Matcher("test", literal, test, text) if literal else EVERYTHING
    # A repetition, even one behind `\Q\E` or `(?i)`, may make the last character optional.
    return Matcher("test", "" if "|" in beginning[2] else literal[:-1], test, text)


def encode(value: str) -> bytes:
    return value.encode("utf-8", "replace")


def exactly(text: str) -> Matcher:
    return Matcher("exact", text, partial(operator.eq, text))


def below(text: str) -> Matcher:
    return Matcher("below", text, lambda value: value.startswith(text))


_ITEM = r"(?:[^\\\]\-]|\\.)"
_GLOB_TOKEN = re.compile(
    rf"(?P<star>\*+)|(?P<any>\?)|\[(?P<negated>\^?+)(?P<ranges>(?:{_ITEM}(?:-{_ITEM})?)++)\]"
    r"|\\(?P<escaped>.)|(?P<plain>[^\\\[*?])",
    re.DOTALL,
)
_RANGE = re.compile(rf"({_ITEM})(?:-({_ITEM}))?", re.DOTALL)
# Go's `*` skips bytes, and what `?` or a class finds inside a character counts as U+FFFD. So every
# further byte of a character is represented by this one, which no valid string contains.
_BYTE = "\udc80"


def _compile_glob(pattern: str) -> Matcher | None:
    """Go's path.Match: what `*` took is given back to the last `*` only, hence the atomic groups.

    They make a difference only where a class takes a slash, which no `*` may cross.
    """
    tokens: list[re.Match[str]] = []
    position = 0
    while position < len(pattern):
        token = _GLOB_TOKEN.match(pattern, position)
        if token is None:
            return None
        tokens.append(token)
        position = token.end()
    text = "".join(itertools.takewhile(bool, map(_literal, tokens)))
    special = tokens[len(text) :]
    if not special:
        return exactly(text)
    if len(special) == 1 and special[0]["star"] and (not text or text.endswith("/")):
        return Matcher(
            "children", text, lambda value: value.startswith(text) and "/" not in value[len(text) :]
        )
    first, *chunks = _chunks(tokens)
    inner = "".join(f"(?>[^/]*?{chunk})" for chunk in chunks[:-1])
    last = f"[^/]*?{chunks[-1]}" if chunks else ""
    compiled = re.compile(f"{first}{inner}{last}")
    superset = "".join(
        _literal(token).translate(QUOTED) or ("[^/]*" if token["star"] else "(?s:.)")
        for token in tokens
    )
    return Matcher(
        "test", text, lambda value: bool(compiled.fullmatch(_mark_bytes(value))), f"^{superset}$"
    )


def _literal(token: re.Match[str]) -> str:
    return token["escaped"] or token["plain"] or ""


def _chunks(tokens: Iterable[re.Match[str]]) -> list[str]:
    """The regexes of what stands between the stars."""
    chunks = [""]
    for token in tokens:
        if token["star"]:
            chunks.append("")
        elif token["any"]:
            chunks[-1] += f"(?>[^/{_BYTE}]{_BYTE}*|{_BYTE})"
        elif token["ranges"]:
            chunks[-1] += _class(token["ranges"], is_negated=bool(token["negated"]))
        else:
            chunks[-1] += re.escape(_mark_bytes(_literal(token)))
    return chunks


def _class(ranges: str, *, is_negated: bool) -> str:
    """The regex of a class; a range that ends before it begins is empty in Go."""
    bounds = [(low[-1], high[-1:] or low[-1]) for low, high in _RANGE.findall(ranges)]
    members = "".join(f"{re.escape(a)}-{re.escape(b)}" for a, b in bounds if a <= b)
    has_replacement = any(low <= "\ufffd" <= high for low, high in bounds)
    if is_negated:
        one = f"[^{members}]" if members else r"[\s\S]"
    else:
        one = f"[{members}]" if members else "(?!)"
    inside = f"|{_BYTE}" if has_replacement != is_negated else ""
    return f"(?>(?!{_BYTE}){one}{_BYTE}*{inside})"


def _mark_bytes(value: str) -> str:
    if value.isascii():
        return value
    return "".join(char + _BYTE * (len(encode(char)) - 1) for char in value)
