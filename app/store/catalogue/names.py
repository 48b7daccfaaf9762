"""Under which name something stands, after the renames that came since."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from typing import NamedTuple

from app.rules.events import Event

NEVER = "-"  # begins the position of what was pulled but never pushed


def repository_key(repository: str, registry: str) -> str:
    """`_id` of a repository, and `of` in the history of what concerns it as a whole."""
    return f"{repository} {registry}"


def tag_key(repository: str, tag: str, registry: str) -> str:
    """`_id` of a tag, and `of` of its moves."""
    return f"{repository} {tag} {registry}"


def digest_key(repository: str, digest: str, registry: str) -> str:
    """`target` of the moves that made a tag point to a digest, and `of` of its deletes."""
    return f"{repository} {digest} {registry}"


def renames_key(registry: str) -> str:
    """`of` of the renames in a registry: no repository has this name."""
    return f" {registry}"


def is_beneath(name: str, parent: str) -> bool:
    """Whether a rename of `parent` renames `name`."""
    return name == parent or name.startswith(f"{parent}/")


class Rename(NamedTuple):
    """From `position` on what was `old`, or begins with it and a slash, is `new`."""

    position: str
    old: str
    new: str

    def applied(self, name: str) -> str:
        """What becomes of a name."""
        return self.new + name[len(self.old) :] if is_beneath(name, self.old) else name

    @classmethod
    def of(cls, event: Event) -> Rename:
        """The rename that an event tells."""
        return cls(event.position, event.from_repository or "", event.repository)


class Renames:
    """All renames in one registry."""

    def __init__(self, renames: Iterable[Rename] = ()) -> None:
        self._renames = sorted(set(renames))

    @property
    def last(self) -> str:
        """The position of the newest, "" without any."""
        return self._renames[-1].position if self._renames else ""

    def add(self, rename: Rename) -> None:
        """Take in one more."""
        if rename not in self._renames:
            insort(self._renames, rename)

    def without(self, renames: Iterable[Rename]) -> Renames:
        """All but these."""
        return Renames(set(self._renames) - set(renames))

    def added_to(self, others: Renames) -> list[str]:
        """The positions of those that are not among the others."""
        return [rename.position for rename in self._renames if rename not in others._renames]

    def since(self, position: str) -> list[Rename]:
        """Those after a position, the oldest first."""
        return self._renames[bisect_right(self._renames, position, key=lambda one: one.position) :]

    def name(self, repository: str, position: str, until: str | None = None) -> str:
        """What is called now, or was called at `until`, what had this name at `position`."""
        for rename in self.since(position):
            if until is not None and rename.position > until:
                break
            repository = rename.applied(repository)
        return repository

    def trail(self, repository: str, position: str) -> list[tuple[str, str]]:
        """The names that this had from `position` on, each with the position since when."""
        names = [(repository, position)]
        for rename in self.since(position):
            if (name := rename.applied(repository)) != repository:
                repository = name
                names.append((name, rename.position))
        return names

    def touched(self, rename: Rename) -> set[str]:
        """The names at or beneath which all stands that a rename moves, before and after it."""
        parents = {rename.old, rename.new}
        for later in self.since(rename.position):
            parts = {later.new for parent in parents if is_beneath(later.old, parent)}
            parents = {later.applied(parent) for parent in parents} | parts
        return parents
