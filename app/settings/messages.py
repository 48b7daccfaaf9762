"""What is wrong, in plain words, with the path of its key first."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

from app.settings.schema import keys_of

# msgspec's names of types, as a person who writes YAML would say them.
_TYPE_WORDS = {
    "object": "a section",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "date": "a date",
    "datetime": "a date",
}
_NEEDS_QUOTES = {"int", "float", "bool", "date", "datetime"}  # what YAML makes of bare text


def key_path(path: str, key: str) -> str:
    """The path of a key; of a key that is none only the beginning: `token:abc` holds a secret."""
    shown = re.sub(r"[^A-Za-z0-9_.-].*", "…", key, flags=re.DOTALL)
    return f"{path}.{shown}" if path else shown


def with_path_first(message: str) -> str:
    """Turn msgspec's "… - at `$.server.workers`" into "server.workers: …", in plain words."""
    match = re.fullmatch(r"(.*?) - at (`key` in )?`\$\.?(.*)`", message, re.DOTALL)
    text, is_key, path = match.groups() if match else (message, None, "")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    if unknown:
        return f"{key_path(path, unknown[1]) or 'config'}: unknown key"
    if is_key:
        return f"{path or 'config'}: a key that is not text"
    wanted = re.fullmatch(r"Expected `str`, got `(.*)`", text)
    text = re.sub(r"`(\w+)`", lambda name: _TYPE_WORDS.get(name[1], name[1]), text)
    hint = "; put quotes around it" if wanted and wanted[1] in _NEEDS_QUOTES else ""
    return f"{path or 'config'}: {text[:1].lower()}{text[1:]}{hint}"


def name_choices(message: str, kind: Any) -> str:
    """A message of `with_path_first` about a wrong word, with the words that there are.

    `kind` is the type of the whole configuration.
    """
    path = message.partition(": ")[0]
    kinds = [kind]
    for key in re.sub(r"\[.*?\]", "", path).split("."):
        below = (keys_of(one).get(key) for one in kinds)
        kinds = [part for found in below if found is not None for part in _parts_of(found)]
    words = [word for one in kinds if get_origin(one) is Literal for word in get_args(one)]
    return f"{message}; expected {', '.join(words)}" if words else message


def _parts_of(kind: Any) -> list[Any]:
    """A type, or those that it is made of: a list's entries, any of a union."""
    if get_origin(kind) is None or get_origin(kind) is Literal:
        return [kind]
    return [part for below in get_args(kind) for part in _parts_of(below)]
