"""config.yml as YAML, more strictly than PyYAML reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from app.errors import ConfigError
from app.settings.messages import key_path


def read_yaml(file: Path) -> dict[str, Any]:
    """The sections of a file, unchecked.

    Raises:
        ConfigError: it cannot be read, is no YAML or says something twice.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    document = parse_yaml(text, str(file))
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected sections, as in `server:`, and found none")
    return document


def parse_yaml(
    text: str, name: str, kind: type[yaml.SafeLoader] = yaml.SafeLoader, section: str = ""
) -> Any:
    """What `text` says, as this kind of loader reads it; a ConfigError begins with `name`.

    Of a file that is another program's only the `section` is looked at.
    """
    try:
        loader = kind(text)
        node = loader.get_single_node()
        if section and isinstance(node, yaml.MappingNode):
            node.value = [pair for pair in node.value if pair[0].value in (section, "<<")]
        _refuse_duplicates(node)
        return loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {_describe(error)}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply, or contains itself") from None
    except (ValueError, LookupError, AttributeError):  # 2026-13-45, `!!bool x`, `!!timestamp x`
        raise ConfigError(f"{name}: not valid YAML: there is no such date or number") from None


def _refuse_duplicates(node: yaml.Node | None, path: str = "") -> None:
    """Refuse a key that is given twice, which PyYAML takes silently."""
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            _refuse_duplicates(entry, f"{path}[{index}]")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            text = str(key.value)
            below = key_path(path, text)
            if text in seen:
                raise ConfigError(f"{below}: given twice (line {key.start_mark.line + 1})")
            seen.add(text)
            _refuse_duplicates(value, below)


def _describe(error: yaml.YAMLError) -> str:
    """Where the error is and what, without the text found there: it may be a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem or not error.problem_mark:
        return " ".join(str(error).split())
    hint = r"\1; text that begins with * or ! needs quotes"
    problem = re.sub(r"\b(alias|tag) .*", hint, error.problem, flags=re.DOTALL)
    return f"line {error.problem_mark.line + 1}: {problem}"
