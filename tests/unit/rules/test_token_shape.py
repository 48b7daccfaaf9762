"""API tokens: their shape, and how they are kept."""

from __future__ import annotations

import logging

import pytest

from app.logs import LineFormatter, hide_tokens
from app.rules.tokens import hash_token, is_token, is_token_name, make_token


def test_a_token_has_256_random_bits_behind_a_prefix_that_scanners_know() -> None:
    tokens = {make_token() for _ in range(1000)}

    assert len(tokens) == 1000
    assert all(is_token(token) and len(token) == 4 + 64 for token in tokens)


@pytest.mark.parametrize(
    "text", ["", "rns_", "rns_" + "0" * 63, "rns_" + "0" * 65, "RNS_" + "0" * 64, "x" * 68]
)
def test_what_is_no_token_is_a_password(text: str) -> None:
    assert not is_token(text)


def test_what_is_kept_does_not_hold_the_token() -> None:
    token = make_token()

    assert token[4:] not in hash_token(token)
    assert hash_token(token) == hash_token(token) != hash_token(make_token())


@pytest.mark.parametrize(
    ("name", "is_name"),
    [
        ("ci", True),
        ("nightly report 2", True),
        ("ünï", True),
        ("x" * 100, True),
        ("x" * 101, False),
        ("", False),
        (" ci", False),
        ("a:b", False),
        ("a\nb", False),
        ("a\0b", False),
    ],
)
def test_names_of_tokens(name: str, is_name: bool) -> None:
    assert is_token_name(name) is is_name


@pytest.mark.parametrize("cut", [None, 40, 24])
def test_the_log_hides_a_token_and_a_good_part_of_one(cut: int | None) -> None:
    token = make_token()[:cut]
    record = logging.LogRecord("x", logging.INFO, "", 1, "GET /%s failed", (token,), None)
    try:
        raise ValueError(token)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)

    line = LineFormatter("%(message)s").format(record)

    assert token[4:] not in line
    assert line.startswith("GET /rns_… failed")


def test_the_names_of_metrics_are_no_tokens() -> None:
    assert hide_tokens("rns_database_up rns_session") == "rns_database_up rns_session"
