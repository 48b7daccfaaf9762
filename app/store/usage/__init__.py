"""What happened by day: closed days summarised, all others counted from the events.

A day is closed by replacing its documents under a new run id and then naming that run in
`usage_days`, so that a reader sees the old ones or the new ones, never a mixture, and closing it
again is harmless. The hours of a day that is not over are closed in the same way, until the day
is. An event that comes late, or changes an older one, opens its hour or day again before it
is stored; what was just opened is left alone for OPEN, longer than storing takes, so that no event
slips in between reading and closing.

Each summary is kept twice: in `usage` as rows, one document for each repository, from which every
figure can be made; and in `usage_sums` added up: of all repositories, also for each client class
and account, and of each namespace; so a dashboard reads little more than a document for each day.
"""

from __future__ import annotations

from app.store.usage.days import DayStore
from app.store.usage.queries import Image, Usage, UsageQuery
from app.store.usage.reading import Newest, UsageStore

__all__ = ["DayStore", "Image", "Newest", "Usage", "UsageQuery", "UsageStore"]
