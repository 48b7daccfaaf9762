"""Text from outside, made fit to be kept and shown. Pure."""

from __future__ import annotations

import unicodedata

_UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def clean_text(text: str, limit: int) -> str:
    """`text` without control, format and unpaired surrogate characters, cut at `limit`."""
    if text.isascii() and text.isprintable():
        return text[:limit]
    kept = (c for c in text[: limit * 4] if unicodedata.category(c) not in _UNSHOWN)
    return "".join(kept)[:limit]
