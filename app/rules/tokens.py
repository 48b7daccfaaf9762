"""API tokens: how one is made, told from a password, and kept. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta

DEFAULT_LIFETIME = timedelta(days=90)
MAX_LIFETIME = timedelta(days=365)  # as at GitLab: a token that never ends is never changed
MAX_LIFETIME_UNKNOWN = DEFAULT_LIFETIME  # where nobody tells us that the account is gone
MAX_NAME_LENGTH = 100

_TOKEN = re.compile(r"rns_[0-9a-f]{64}")  # so that scanners for secrets know it


def make_token() -> str:
    """A new token: 256 random bits behind a prefix."""
    return f"rns_{secrets.token_hex(32)}"


def is_token(text: str) -> bool:
    """Whether this is a token, whoever made it, and no password."""
    return _TOKEN.fullmatch(text) is not None


def hash_token(token: str) -> str:
    """What is kept of a token, and what it is found by: the time that takes tells nothing of it.

    SHA-256 without salt and rounds is enough: nobody guesses 256 random bits.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_token_name(name: str) -> bool:
    """Whether a token can have this name."""
    is_text = 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable() and name == name.strip()
    return is_text and ":" not in name
