"""Finds texts that a template shows and no catalogue can have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jinja2 import Environment, nodes

SHOWN = ("title", "placeholder", "aria-label", "alt", "data-label", "label", "content")
# Names, and what is the same in every language.
NAMES = re.compile(
    r"Registry Notification(s| Server)|/?api/v1/[a-z/-]*|&[a-z]+;|width=device-width|initial-scale"
    r"|light dark|docker pull|\b(API|CSV|NDJSON|OpenAPI|UTC|seq|MB/s)\b"
)
_WORD = re.compile(r"[A-Z][a-z]")  # a text, and no word of the program
_LETTERS = re.compile(r"[^\W\d_]{2}")


class Reader:
    """Reads the nodes of a template in order, and knows where in the HTML it is."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self._place = "text"  # or "tag", or the name of an attribute
        self._tag = ""
        self._quiet = ""  # the element whose text is code

    def read(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Output):
            for part in node.nodes:
                self._read_part(part)
        else:
            for child in node.iter_child_nodes(exclude=("test", "iter", "call", "target", "args")):
                if not isinstance(child, nodes.Expr):
                    self.read(child)

    def _read_part(self, part: nodes.Node) -> None:
        if isinstance(part, nodes.TemplateData):
            self._read_html(part.data, part.lineno)
        else:
            for text in _results(part):
                self._note(text, part.lineno)

    def _read_html(self, data: str, line: int) -> None:
        for piece in re.split(r"""(<!--.*?-->|<[!/]?[a-zA-Z0-9]*|>|[\w-]+="|")""", data):
            if self._place == "text":
                if piece.startswith("<") and not piece.startswith("<!--"):
                    self._tag, self._place = piece, "tag"
                else:
                    self._note(piece, line)
            elif self._place == "tag":
                if piece == ">":
                    self._place = "text"
                    self._open_or_close()
                elif piece.endswith('="'):
                    self._place = piece[:-2]
            elif piece == '"':
                self._place = "tag"
            else:
                self._note(piece, line)
            line += piece.count("\n")

    def _open_or_close(self) -> None:
        if self._tag.strip("</") == self._quiet:
            self._quiet = ""
        elif not self._quiet and self._tag[1:] in ("code", "pre", "script", "style"):
            self._quiet = self._tag[1:]

    def _note(self, text: str, line: int) -> None:
        is_shown = not self._quiet if self._place == "text" else self._place in SHOWN
        if is_shown and _LETTERS.search(NAMES.sub("", text)):
            self.found.append((line, " ".join(text.split())))


def _results(node: nodes.Node) -> Iterator[str]:
    """The texts that an expression may give as they stand, and those that a macro is given."""
    if isinstance(node, nodes.Const):
        yield from [node.value] if isinstance(node.value, str) else []
    elif isinstance(node, nodes.Call):
        yield from _given(node)
    elif isinstance(node, nodes.CondExpr | nodes.BinExpr | nodes.Concat):
        for part in node.iter_child_nodes(exclude=("test",)):
            yield from _results(part)


def _given(node: nodes.Call) -> Iterator[str]:
    name = getattr(node.node, "name", "") or getattr(node.node, "attr", "")
    if name in ("_", "gettext", "ngettext", "pgettext"):
        return
    for part in node.args:
        yield from (text for text in _results(part) if _WORD.match(text))


def texts_outside(environment: Environment, source: str) -> list[tuple[int, str]]:
    """Each with its line."""
    reader = Reader()
    reader.read(environment.parse(source))
    return reader.found
