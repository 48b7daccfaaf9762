"""What happened by day: closed days summarised, all others counted from the events.

A day is listed in `usage_days` before the first event of it is stored; one that is not listed has
no events, and nothing is done for it. It is closed by replacing its documents under a new run id
and then naming that run, so that a reader sees the old ones or the new ones, never a mixture, and
closing it again is harmless. The hours of a day that is not over are closed in the same way, until
the day is.

An event of a time that may be closed opens its hour or day again before it is stored, and so does
what changes one; what was just opened is left alone for OPEN. That is counted from when the
projector works the event in, not from when the event came or happened. Until it is stored passes no
more than the projector's turn, which is shorter; a turn that fails is repeated, and opens the day
again. What ended less than SETTLED ago is opened by nobody and closed by nobody: it is closed OPEN
later, when all that was worked in before is stored. So no event slips in between reading and
closing, however far the inbox is behind.

Each summary is kept twice: in `usage` as rows, one document for each repository, from which every
figure can be made; and in `usage_sums` added up: of all repositories, also for each client class
and account, and of each namespace; so a dashboard reads little more than a document for each day.
"""

from __future__ import annotations

from app.store.usage.days import DayStore
from app.store.usage.pullers import Proof, Puller, Use, Who
from app.store.usage.queries import Image, Usage, UsageQuery
from app.store.usage.reading import Newest, UsageStore

__all__ = [
    "DayStore",
    "Image",
    "Newest",
    "Proof",
    "Puller",
    "Usage",
    "UsageQuery",
    "UsageStore",
    "Use",
    "Who",
]
