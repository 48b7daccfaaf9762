"""Whether the registries' notifications arrive as they should, and in words what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import msgspec

from app.embedded import free_bytes, refuse_without_space
from app.errors import StoreUnavailable
from app.notifications.intake import Intake
from app.notifications.watch import REFUSAL_AGAIN_S
from app.registry.debug_server import ask_debug_server
from app.rules.events import Event
from app.rules.original import is_taken_over
from app.settings import Registry, Settings
from app.store import Stores, deadline
from app.store.state import DatabaseState
from app.store.wiring import Refusal, Sender

LOOKED_AT = 500  # of the newest events
LOOKED_BACK = timedelta(days=30)
AROUND = timedelta(minutes=10)  # the last envelope of a registry that is not among them
LOOK_S = 3.0  # for what came to be read
PENDING_S = 2.0
CLOCK_AHEAD_S = 2.0
CLOCK_BEHIND_S = 60.0
FEW = 5  # events from which nothing follows
MOSTLY = 5  # transfers of blobs for each event that is kept
SHOWN = 20  # of what a test waited for
SLOW_S = 0.5  # a registry waits for a second in the docs' example


class RegistryState(msgspec.Struct, frozen=True, kw_only=True):
    """One registry of the configuration.

    `last` is its newest event within 30 days; `nodes` are those that its newest events name, each
    with the number of its starts. `pending` is what its debug server says, if there is one.
    """

    name: str
    last: Event | None = None
    senders: list[Sender] = []
    nodes: dict[str, int] = {}
    pending: int | None = None
    problems: list[str] = []


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """All that the Wiring page and `rns check` tell.

    `problems` are those of the server itself; each registry has its own.
    """

    database: DatabaseState
    registries: list[RegistryState]
    refusals: list[Refusal]  # within seven days, the newest first
    rejected: int  # events that were not understood
    problems: list[str]


def find_wiring(stores: Stores, settings: Settings, now: datetime) -> Wiring:
    """Look at everything.

    Raises:
        StoreUnavailable: the database is away.
    """
    senders = stores.wiring.find_senders()
    urls = [registry.debug_url for registry in settings.registries if registry.debug_url]
    pending = _find_pending(urls)
    newest = _that_came(stores.events.find_newest_within(now - LOOKED_BACK, LOOKED_AT))
    state = stores.find_state()
    if settings.is_embedded:  # whose database does not tell
        state = msgspec.structs.replace(state, free_bytes=free_bytes(settings))
    return Wiring(
        database=state,
        registries=[
            _look_at(stores, registry, senders, newest, pending) for registry in settings.registries
        ],
        refusals=stores.wiring.find_refusals(),
        rejected=stores.rejected.count(),
        problems=_find_server_problems(stores, settings, state, now),
    )


def has_come(stores: Stores) -> bool:
    """Whether any registry ever sent anything that was taken in."""
    return bool(stores.wiring.find_senders()) or stores.events.find_newest() is not None


def _find_server_problems(
    stores: Stores, settings: Settings, state: DatabaseState, now: datetime
) -> list[str]:
    problems = state.index_problems
    try:
        refuse_without_space(settings)
        Intake(stores, settings.notifications.max_inbox_bytes).refuse_when_full()
    except StoreUnavailable as error:
        problems.append(f"events are refused: {error}")
    open_ones = [registry.name for registry in settings.registries if not registry.all_tokens]
    is_open = settings.server.trusted_proxies and not settings.notifications.allow_anonymous
    if open_ones and is_open:
        problems.append(
            f"whoever reaches the proxy in front can send events as {open_ones[0]}, which has no "
            "token"
        )
    progress = stores.inbox.find_progress()
    behind_s = progress.seconds_behind(now) if progress else 0.0
    if stores.inbox.count() and behind_s > CLOCK_BEHIND_S:
        problems.append(
            f"accepted events wait since {behind_s:,.0f} s to be worked in: no server runs, or it "
            "cannot keep up"
        )
    return problems


def _find_pending(urls: Sequence[str]) -> dict[str, int | None]:
    """How many events wait by debug server; None where it does not tell. All are asked at once."""
    with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        states = pool.map(lambda url: ask_debug_server(url, PENDING_S), urls)
        return {
            url: state.pending if state else None for url, state in zip(urls, states, strict=True)
        }


def _look_at(
    stores: Stores,
    registry: Registry,
    senders: Sequence[Sender],
    newest: Sequence[Event],
    pending: dict[str, int | None],
) -> RegistryState:
    own = [sender for sender in senders if sender.registry == registry.name]
    events = [event for event in newest if event.registry == registry.name]
    if own and not events:
        events = _find_events_of(stores, own[0])
    problems = []
    if not events and not own:
        problems.append("nothing came from it within 30 days")
    waiting = pending.get(registry.debug_url)
    if registry.debug_url and waiting is None:
        problems.append(f"its debug server does not answer: {registry.debug_url}")
    if waiting:
        problems.append(f"{waiting:,} events wait in the registry: it cannot deliver them")
    return RegistryState(
        name=registry.name,
        last=events[0] if events else None,
        senders=own,
        nodes=_count_starts(events),
        pending=waiting,
        problems=[*problems, *_find_event_problems(events), *_find_sender_problems(own)],
    )


def _find_events_of(stores: Stores, sender: Sender) -> list[Event]:
    """The events of a registry from about when it sent something last.

    Only these, because there is no index by registry.
    """
    since, until = sender.at - AROUND, sender.at + AROUND
    return _that_came(
        stores.events.find_newest_within(since, LOOKED_AT, until=until, registry=sender.registry)
    )


def _that_came(events: Sequence[Event]) -> list[Event]:
    """Without those that were taken over from another server."""
    return [event for event in events if not is_taken_over(event)]


def _count_starts(events: Sequence[Event]) -> dict[str, int]:
    starts: dict[str, set[str]] = {}
    for event in events:
        starts.setdefault(event.source or "unnamed", set()).add(event.instance)
    return {node: len(instances) for node, instances in sorted(starts.items())}


def _find_event_problems(events: Sequence[Event]) -> list[str]:
    problems = []
    pushes = [e for e in events if e.action == "push" and e.kind in ("image", "index")]
    if pushes and not any(push.references for push in pushes):
        problems.append(
            "its pushes do not say what they consist of, so sizes and platforms are unknown: set "
            "notifications.events.includereferences: true there"
        )
    if len(events) >= FEW and not any(event.actor for event in events):
        problems.append("no event names an account: it lets in everybody, or a proxy signs in")
    if events:
        delays = [(event.received_at - event.timestamp).total_seconds() for event in events]
        if (least := min(delays)) < -CLOCK_AHEAD_S:
            problems.append(f"its clock is {-least:,.0f} s ahead of this server's")
        elif len(events) >= FEW and least > CLOCK_BEHIND_S:
            problems.append(
                f"its events come {least:,.0f} s late at least: its clock is behind this server's, "
                "or it waited with them"
            )
    return problems


def _find_sender_problems(senders: Sequence[Sender]) -> list[str]:
    problems = []
    accepted = sum(sender.accepted for sender in senders)
    ignored = sum(sender.ignored for sender in senders)
    if ignored >= MOSTLY * max(accepted, 10):
        problems.append(
            f"{ignored:,} of its {accepted + ignored:,} newest events are transfers of blobs, "
            "which nobody needs: set ignore: {mediatypes: [application/octet-stream]} at its "
            "endpoint"
        )
    slowest_s = max((sender.slowest_s for sender in senders), default=0.0)
    if slowest_s >= SLOW_S:
        problems.append(
            f"an answer took {slowest_s:.1f} s: the endpoint's timeout should be well above that"
        )
    return problems


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What came since a moment: what a test waits for."""

    events: list[Event]  # the newest first
    senders: list[Sender]
    refusals: list[Refusal]
    rejected: list[str]  # reasons

    @property
    def is_anything(self) -> bool:
        """Whether there is an end of waiting; who sends nothing but blobs is waited for."""
        return bool(self.events or self.refusals or self.rejected)


def find_arrival(stores: Stores, since: datetime) -> Arrival:
    """What came here from `since` (aware, milliseconds) on, among what happened within an hour."""
    events: list[Event] = []
    with contextlib.suppress(StoreUnavailable), deadline(LOOK_S):
        happened = stores.events.find_newest_within(since - timedelta(hours=1), LOOKED_AT)
        events = [event for event in happened if event.received_at >= since]
    rejected = stores.rejected.find_page(limit=SHOWN).items
    again = since - timedelta(seconds=REFUSAL_AGAIN_S)  # who is refused all the time is noted then
    return Arrival(
        events=events[:SHOWN],
        senders=[sender for sender in stores.wiring.find_senders() if sender.at >= since],
        refusals=[refusal for refusal in stores.wiring.find_refusals() if refusal.at >= again],
        rejected=[event.reason for event in rejected if event.received_at >= since],
    )
