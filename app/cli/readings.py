"""What pages, API and background read, asked for a sample of what is on record.

Only reads. The store's own methods ask, so their queries are those that a server sends.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_network
from itertools import islice
from typing import Any, NamedTuple

from tqdm import tqdm

from app.analysis.recall import recall_digest, recall_tag
from app.analysis.unused import UnusedQuery, find_unused
from app.errors import StoreUnavailable
from app.migration import load_plans
from app.migration.progress import find_progress
from app.migration.readiness import find_checks
from app.rules.access import Rule
from app.rules.addresses import parse_ip
from app.rules.events import Event
from app.rules.patterns import compile_pattern
from app.rules.shares import Share
from app.settings import Settings
from app.store import Stores, deadline
from app.store.catalogue import Catalogue, CatalogueQuery
from app.store.events import CONTENT, RecordQuery
from app.store.scope import Scope
from app.store.sign_ins import FAMILIAR
from app.store.usage import UsageQuery

MAX_S = 10  # of one reading
SAMPLED = 500  # events
DAYS = 30
CAP = 10_000  # up to which pages count
INBOX_BYTES = 1 << 20

Reading = Callable[[], Any]


class Sample(NamedTuple):
    """The newest events of the busiest repository of the newest day, and one of a tag."""

    event: Event
    tagged: Event
    person: Event  # with an account, if any has one
    events: list[Event]


def take_sample(stores: Stores) -> Sample | None:
    """What to ask for; None of an empty database."""
    newest = stores.events.find_newest()
    if newest is None:
        return None
    since = newest.timestamp - timedelta(days=1)
    events = stores.events.find_newest_within(since, SAMPLED) or [newest]
    [(busiest, _)] = Counter(event.repository for event in events).most_common(1)
    events = [event for event in events if event.repository == busiest]
    event = next((event for event in events if event.digest), events[0])
    tagged = next((event for event in events if event.tag and event.digest), event)
    person = next((event for event in events if event.actor), event)
    return Sample(event, tagged, person, events[:50])


def read_all(stores: Stores, settings: Settings, sample: Sample, now: datetime) -> None:
    """Read everything once; what takes more than MAX_S is broken off.

    Raises:
        StoreUnavailable: the database does not answer at all.
    """
    everything = stores.catalogue.find_scope(Rule((), otherwise=True), sample.person.actor)
    readings: list[Reading] = []
    for scope in (everything, _narrow_scope(stores, sample)):
        for topic in (_catalogue, _records, _figures):
            readings += topic(stores, scope, sample, now)
    for topic in (_one_thing, _people, _background):
        readings += topic(stores, everything, sample, now)
    readings += _migrations(stores, settings, now)
    for reading in tqdm(readings, unit="reading", disable=None):
        try:
            with deadline(MAX_S):
                _read(reading)
        except StoreUnavailable:
            stores.schema.find()  # raises, if it is not this question alone


def _read(reading: Reading) -> None:
    found = reading()
    if isinstance(found, Iterator):
        for _ in islice(found, SAMPLED):
            pass


def _narrow_scope(stores: Stores, sample: Sample) -> Scope:
    """That of who may see one namespace, when all beneath it and a pattern were looked up too."""
    namespace = re.escape(sample.event.namespace)
    patterns = (f"/^{namespace}.*x?$/", f"/^{namespace}/.+$/", f"{sample.event.namespace}/*")
    scope = Scope(Rule(()), [])
    for matcher in filter(None, map(compile_pattern, patterns)):
        scope = stores.catalogue.find_scope(Rule([(matcher, True)]), sample.person.actor)
    return scope


def _catalogue(stores: Stores, scope: Scope, sample: Sample, now: datetime) -> Iterator[Reading]:
    catalogue, event, tag = stores.catalogue, sample.event, sample.tagged.tag or "latest"
    of_repository = CatalogueQuery(repository=event.repository, registry=event.registry)
    word = event.repository.rpartition("/")[2][:4]
    for query in (
        CatalogueQuery(),
        CatalogueQuery(sort="pushed"),
        CatalogueQuery(registry=event.registry),
        CatalogueQuery(q=word),
        CatalogueQuery(q=f"^{event.repository[:3]}"),
        CatalogueQuery(q=f"*{word}*", sort="pushed"),
    ):
        yield partial(_list_repositories, catalogue, query, scope)
        yield partial(catalogue.count, "repository", query, scope, cap=CAP)
    for query in (
        CatalogueQuery(),
        CatalogueQuery(sort="pushed"),
        of_repository,
        CatalogueQuery(repository=event.repository, sort="pushed"),
        CatalogueQuery(namespace=event.namespace),
        CatalogueQuery(namespace=event.namespace, sort="pushed"),
        CatalogueQuery(tag_pattern=tag),
        CatalogueQuery(q=f"{word}:{tag[:2]}"),
        CatalogueQuery(digest=event.digest or "sha256:", deleted=True),
        CatalogueQuery(since=now - timedelta(days=DAYS), until=now),
        CatalogueQuery(since=now - timedelta(days=DAYS), until=now, sort="pushed"),
    ):
        yield partial(catalogue.find_tags, query, scope)
        yield partial(catalogue.count, "tag", query, scope, cap=CAP)


def _list_repositories(catalogue: Catalogue, query: CatalogueQuery, scope: Scope) -> None:
    catalogue.count_tags(catalogue.find_repositories(query, scope).items)


def _records(stores: Stores, scope: Scope, sample: Sample, now: datetime) -> Iterator[Reading]:
    events, event, person = stores.events, sample.event, sample.person
    address = parse_ip(person.address)
    for query in (
        RecordQuery(),
        RecordQuery(since=now - timedelta(days=1)),
        RecordQuery(parts=True),
        RecordQuery(kind=CONTENT),
        RecordQuery(action="delete"),
        RecordQuery(registry=event.registry),
        RecordQuery(namespace=event.namespace),
        RecordQuery(repository=event.repository),
        RecordQuery(repository=event.repository, tag=sample.tagged.tag),
        RecordQuery(digest=event.digest),
        RecordQuery(repository=event.repository, digest=event.digest),
        RecordQuery(actor=person.actor or "-"),
        RecordQuery(actor=person.actor or "-", namespace=event.namespace),
        RecordQuery(client=person.client),
        RecordQuery(network=ip_network(address) if address else None),
    ):
        yield partial(events.find_page, query, scope)
        yield partial(events.count, query, scope, cap=CAP)
    yield partial(events.find, event.id, scope)
    yield partial(events.find_last_pull, RecordQuery(repository=event.repository), scope)
    yield partial(events.find_last_pull, RecordQuery(digest=event.digest), scope)
    yield partial(events.find_registry, event.digest or "", scope)


def _figures(stores: Stores, scope: Scope, sample: Sample, now: datetime) -> Iterator[Reading]:
    usage, event, person = stores.usage, sample.event, sample.person
    last = stores.days.calendar.day_of(now)
    first = last - timedelta(days=DAYS - 1)
    for query in (
        UsageQuery(first=first, last=last),
        UsageQuery(first=first, last=last, registry=event.registry),
        UsageQuery(first=first, last=last, namespace=event.namespace),
        UsageQuery(first=first, last=last, actor=person.actor),
        UsageQuery(first=first, last=last, clients=frozenset([person.client])),
        UsageQuery(first=first, last=last, repository=event.repository),
    ):
        yield partial(usage.read_sums, query, scope, now)
    month = UsageQuery(first=first, last=last)
    yesterday = UsageQuery(first=last - timedelta(days=1), last=last)
    yield partial(usage.read_lines, "repositories", set(), month, scope, now, only_closed=True)
    yield partial(usage.read_lines, "clients", set(), month, scope, now)
    yield partial(usage.read_hours, yesterday, scope, now)
    yield partial(usage.read_hours, month, scope, now, max_open=timedelta(days=2))
    for query in (
        UsageQuery(first=first, last=last, repository=event.repository),
        UsageQuery(first=first, last=last, digest=event.digest),
    ):
        yield partial(usage.read_use, query, scope, now)
    yield partial(usage.read_address, person.address, [last], scope, now)
    yield partial(find_unused, stores, scope, UnusedQuery(days=DAYS), now)


def _one_thing(stores: Stores, scope: Scope, sample: Sample, now: datetime) -> Iterator[Reading]:
    """A tag, a digest, recall."""
    catalogue, event, tagged = stores.catalogue, sample.event, sample.tagged
    digest = event.digest or ""
    place = (tagged.registry, tagged.repository, tagged.tag or "")
    if tag := catalogue.get_tag(*place, scope):
        yield partial(catalogue.find_history, tag, scope)
        yield partial(recall_tag, stores, scope, *place, None, None)
    yield partial(catalogue.find_named, [place], scope)
    yield partial(recall_digest, stores, scope, digest)
    yield partial(stores.manifests.find_whole, event.registry, [digest])
    yield partial(stores.manifests.find_digests, [event.registry], digest[:12], 50)
    yield partial(stores.usage.find_newest, [event.repository], scope, now, lambda row: True)


def _people(stores: Stores, scope: Scope, sample: Sample, now: datetime) -> Iterator[Reading]:
    """Sign-ins, tokens, and what only administrators see."""
    sign_ins, tokens, person = stores.sign_ins, stores.tokens, sample.person
    name, registry = person.actor, person.registry
    filters: list[dict[str, str]] = [{}, {"account": name}, {"address": person.address}]
    for chosen in filters:
        yield partial(sign_ins.find_page, chosen)
        yield partial(sign_ins.count, chosen, cap=CAP)
    yield partial(sign_ins.find_wait, name, person.address, now)
    yield partial(sign_ins.find_sessions, name, now - FAMILIAR)
    yield partial(sign_ins.is_ended, person.id)
    yield partial(tokens.find, person.id, now)
    yield partial(tokens.find_all, name)
    yield tokens.find_page
    yield stores.rejected.find_page
    yield stores.rejected.count
    yield stores.wiring.find_senders
    yield stores.wiring.find_refusals
    yield partial(stores.checks.get, registry)
    yield partial(stores.checks.find_differences, registry, 50)
    yield partial(stores.checks.find_open_gaps, registry)
    yield partial(stores.events.find_newest_of, registry)


def _background(stores: Stores, scope: Scope, sample: Sample, now: datetime) -> Iterator[Reading]:
    """What the projector, the summaries and the checks read."""
    events, days, event = stores.events, stores.days, sample.event
    soon, digests = event.timestamp - timedelta(minutes=5), [event.digest or ""]
    of = stores.schema.check_projectors()
    yield partial(stores.inbox.find_oldest, 100, INBOX_BYTES, Share(0, of))
    if of > 1:
        yield partial(stores.inbox.find_common, 1, INBOX_BYTES, of)
    yield stores.inbox.count
    yield stores.inbox.find_newest
    yield partial(events.find_between, event.registry, event.repository, soon, event.timestamp)
    yield partial(events.find_all_between, soon, event.timestamp)
    yield partial(events.find_by_digests, event.registry, digests)
    yield partial(events.find_by_ids, [event.id])
    yield partial(events.find_after, event.digest or "", event.position)
    yield partial(events.iterate, soon)
    yield partial(stores.catalogue.find_tags_at, sample.events)
    yield stores.catalogue.find_names
    yield partial(stores.catalogue.find_digests, event.registry, event.repository)
    yield partial(days.find_open_days, now)
    yield partial(days.find_open_hours, now)
    yield days.find_first_day
    yield days.find_kept_since


def _migrations(stores: Stores, settings: Settings, now: datetime) -> Iterator[Reading]:
    """Pages and workers of each configured migration."""
    migrations = stores.migrations
    jobs, runs = migrations.jobs, migrations.runs
    for plan in load_plans(settings):
        name = plan.name
        yield partial(find_progress, migrations, plan, now)
        yield partial(find_checks, stores, plan, now)
        for state in ("", "pending", "dead"):
            yield partial(jobs.find, name, state=state)
            yield partial(jobs.count_found, name, cap=CAP, state=state)
        yield partial(jobs.has_open, name, 0)
        yield partial(jobs.count_errors, name)
        yield partial(jobs.count_done, name)
        yield partial(jobs.count_deleted_since, name, now - timedelta(days=1))
        yield partial(jobs.find_unwanted_since, name, now)
        yield partial(runs.find_drift, name)
        yield partial(runs.count_drift, name, cap=CAP)
        yield partial(runs.find_history, name)
        yield partial(migrations.plans.find_audit, name)
