"""What folding costs where much happens at once: `python benchmarks/folding.py`.

2,000 events of one client within half a minute, of kinds that are paired and taken in; microseconds
of processor time for each event, the median of several rounds.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from datetime import UTC, datetime, timedelta

from app.rules.events import Event, position_at
from app.rules.folding import fold

START = datetime(2026, 11, 23, 18, tzinfo=UTC)
ROUNDS = 5
NUMBER = 2_000
CHILDREN = {"index": ("amd64", "arm64")}
INDEXES = {*CHILDREN, "untold"}

DENSE = {
    "checks and pulls": ["check image v1", "pull image"],
    "checks and pulls by many tags": [
        f"{action} image v{number}" for number in range(99) for action in ("check", "pull")
    ],
    "children": ["check index v1", "pull index", "pull amd64"],
    "other digests": ["pull index", "pull riscv"],
    "an index without children": ["pull untold", "pull amd64"],
    "one without children and others": ["pull untold", *(f"pull {n}" for n in range(999))],
    "pushes": ["push amd64", "push arm64", "push index"],
    "deletes": ["delete image", "delete image v1"],
}


def events_of(texts: list[str]) -> list[Event]:
    """Events that repeat `texts`, each an action, a digest and perhaps a tag."""
    chance = random.Random(1)
    found = []
    for number, text in enumerate(itertools.islice(itertools.cycle(texts), NUMBER)):
        action, digest, *tag = text.split()
        moment = START + timedelta(milliseconds=chance.randrange(30_000))
        found.append(
            Event(
                id=str(number),
                registry="default",
                action=action,
                namespace="team",
                repository="team/app",
                tag=tag[0] if tag else None,
                tag_from="event" if tag else None,
                digest=None if action == "delete" and tag else digest,
                kind="index" if digest in INDEXES else "image",
                timestamp=moment,
                position=f"{position_at(moment)}-{number}",
                received_at=moment,
                source=chance.choice("ab"),
            )
        )
    return found


def main() -> None:
    for name, texts in DENSE.items():
        events = events_of(texts)
        taken = []
        for _ in range(ROUNDS):
            begun = time.process_time()
            fold(events, CHILDREN, lambda event: None)
            taken.append((time.process_time() - begun) / NUMBER * 1e6)
        print(f"{name:40} {statistics.median(taken):6.1f} us for each event")


if __name__ == "__main__":
    main()
