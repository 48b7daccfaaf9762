"""Pulls and checks of one client (rules 1 to 4)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from app.rules.events import Event
from app.rules.folding.pairs import nearest_pairs
from app.rules.folding.terms import (
    LONGEST,
    WINDOW,
    Children,
    TagAt,
    cause_after,
    is_index,
    neighbours,
    own_tag,
    skew,
)


class Downloads:
    """The pulls and checks of one client, given in order of time, while they are folded."""

    def __init__(
        self,
        events: Sequence[Event],
        children: Children,
        belongs: dict[str, Event],
        paired: dict[str, str],
    ) -> None:
        self._events = events
        self._belongs = belongs
        self._paired = paired
        self._held: dict[str, set[str]] = {}  # by index that was pulled: what it holds
        self._holding: defaultdict[str, list[Event]] = defaultdict(list)  # by child: their pulls
        seen = {event.digest for event in events}
        for event in events:
            if event.action == "pull" and event.digest and is_index(event, children):
                if event.digest not in self._held:
                    named = set(children.get(event.digest, ()))
                    self._held[event.digest] = named & seen - {event.digest}
                for child in self._held[event.digest]:
                    self._holding[child].append(event)
        self._unknown = {index for index in self._held if not children.get(index)}

    def fold(self, tag_at: TagAt) -> None:
        self._pair()
        self._take_in()
        self._attach_checks()
        if self._unknown:
            self._guess_children(tag_at)

    def _pair(self) -> None:
        """Rule 1."""
        by_digest: defaultdict[str, list[Event]] = defaultdict(list)
        for event in self._events:
            if event.digest and (event.action == "pull" or own_tag(event)):
                by_digest[event.digest].append(event)
        for digest, same in by_digest.items():
            if len({event.action for event in same}) == 1:
                continue
            holding = [index.position for index in self._holding.get(digest, ())]
            for check, pull in nearest_pairs(same, holding):
                self._belongs[check.id] = pull
                self._paired[pull.id] = own_tag(check) or ""

    def _take_in(self) -> None:
        """Rule 2."""
        if not self._holding:
            return
        takings: defaultdict[str, list[_Taking]] = defaultdict(list)  # by child, the newest last
        indexes: defaultdict[str, list[Event]] = defaultdict(list)  # by child, in order of time
        left: list[Event] = []
        for event in self._events:
            digest = event.digest or ""
            taking = None
            if digest in self._holding and self._is_free(event):
                while takings[digest] and not takings[digest][-1].takes(event):
                    takings[digest].pop()  # nor would it take a later one
                if takings[digest]:
                    taking = takings[digest][-1]
                    self._belongs[event.id] = taking.take(event)
                else:
                    left.append(event)
            if event.action == "pull" and digest in self._held:
                taking = taking or _Taking(event)
                for child in self._held[digest]:
                    takings[child].append(taking)
                    indexes[child].append(event)
        for event in left:
            index = cause_after(indexes[event.digest or ""], event)
            if index:
                self._belongs[event.id] = index

    def _attach_checks(self) -> None:
        """Rule 3."""
        pulls: defaultdict[str | None, list[Event]] = defaultdict(list)
        for event in self._events:
            if event.action == "pull":
                pulls[event.digest].append(event)
        for check in self._events:
            if check.action != "check" or not self._is_free(check):
                continue
            before, after = neighbours(pulls[check.digest], check)
            if after and after.timestamp - check.timestamp <= WINDOW:
                self._belongs[check.id] = after
            elif before and check.timestamp - before.timestamp <= skew(check, before):
                self._belongs[check.id] = before

    def _guess_children(self, tag_at: TagAt) -> None:
        """Rule 4."""
        pulls = [e for e in self._events if e.action == "pull" and e.id not in self._belongs]
        guesses: defaultdict[str | None, list[Event]] = defaultdict(list)
        for index, child in self._guesses(pulls, tag_at):
            guesses[child].append(index)
        for pull in pulls:
            before, _ = neighbours(guesses[pull.digest], pull)
            if before and pull.timestamp - before.timestamp <= WINDOW:
                self._belongs[pull.id] = before
            elif after := cause_after(guesses[pull.digest], pull):
                self._belongs[pull.id] = after

    def _guesses(self, pulls: Sequence[Event], tag_at: TagAt) -> Iterator[tuple[Event, str | None]]:
        """The pulls of an index with unknown children, each with what is taken for its child."""
        marks = [(pull.digest, self._may_be_child(pull, tag_at)) for pull in pulls]
        near: Counter[tuple[str | None, bool]] = Counter()  # within WINDOW of the index
        begin = end = 0
        for index in pulls:
            if index.digest not in self._unknown:
                continue
            while end < len(pulls) and pulls[end].timestamp <= index.timestamp + WINDOW:
                near[marks[end]] += 1
                end += 1
            while pulls[begin].timestamp < index.timestamp - WINDOW:
                near[marks[begin]] -= 1
                if not near[marks[begin]]:
                    del near[marks[begin]]
                begin += 1
            if len(near) == 2:  # the index itself and one other
                yield from ((index, digest) for digest, may_be_child in near if may_be_child)

    def _may_be_child(self, pull: Event, tag_at: TagAt) -> bool:
        return pull.digest not in self._held and self._is_free(pull) and tag_at(pull) is None

    def _is_free(self, event: Event) -> bool:
        """Whether it names no tag and is neither paired nor part of anything yet."""
        return (
            own_tag(event) is None
            and event.id not in self._belongs
            and event.id not in self._paired
        )


class _Taking:
    """The pull of an index, while it may take in its children."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._last = event.timestamp

    def takes(self, child: Event) -> bool:
        return (
            child.timestamp <= self._last + WINDOW
            and child.timestamp <= self._event.timestamp + LONGEST
        )

    def take(self, child: Event) -> Event:
        self._last = child.timestamp
        return self._event
