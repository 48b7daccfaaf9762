"""Some months of a company's registry, as the events that it would have sent.

A function of the time alone: no state, no network, no chance. What happens on a day depends on that
day only, so a later history tells the same about the time that both know, with the same ids; but it
leaves out what was done with images from before its own beginning. So a later history loaded over
an earlier one adds what happened since, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec

from app.demo import traffic
from app.demo.schedule import Schedule
from app.demo.wire import WireEvent
from app.rules.events import Event, parse_envelope

REGISTRY = "demo"  # the name under which the events are filed
DAYS = 100
DELIVERY = timedelta(milliseconds=200)  # from an event to its arrival


def history(until: datetime) -> Iterator[WireEvent]:
    """The events of the 100 days before that of `until` (aware) and of its own, in order of time.

    None is later than `until`; the last one is within about four hours of it. Two histories of
    one day (UTC) are the same as far as both go.
    """
    until = until.astimezone(UTC)
    first = until.date() - timedelta(days=DAYS)
    schedule = Schedule(first, until.date())
    events: list[WireEvent] = []
    for number in range(DAYS + 1):
        day = first + timedelta(days=number)
        events += traffic.builds(schedule, day)
        events += traffic.releases(schedule, day)
        events += traffic.nodes(schedule, day)
        events += traffic.people(schedule, day)
        events += traffic.robots(schedule, day)
        events += traffic.cleanup(schedule, day)
    last = until.replace(tzinfo=None).isoformat(timespec="microseconds")
    for event in sorted(events, key=lambda event: str(event["timestamp"])):
        if event["timestamp"] > last:  # as text: the width is fixed
            return
        yield event


def envelopes(until: datetime, events_each: int = 100) -> Iterator[bytes]:
    """The history as bodies of notifications, so many events in each, for `parse_envelope`."""
    events = history(until)
    while batch := list(islice(events, events_each)):
        yield msgspec.json.encode({"events": batch})


def parsed_history(until: datetime) -> Iterator[Event]:
    """The history as events to store, each received 0.2 s after it happened."""
    for body in envelopes(until):
        for event in parse_envelope(body, REGISTRY, until).events:
            yield msgspec.structs.replace(event, received_at=event.timestamp + DELIVERY)
