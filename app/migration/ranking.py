"""What our own events tell of a registry: what is in use, and digests that no tag names."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from app.errors import IllegalState
from app.rules.access import Rule
from app.rules.usage import PULL, PULL_PART, PUSH, PUSH_PART
from app.settings import MigrationOptions, PulledWithin, parse_duration
from app.store import Stores
from app.store.usage import UsageQuery

RANKED_BY = timedelta(days=90)
MAX_RANKED = 1_000  # repositories; the others come by name
EVERYTHING = Rule((), otherwise=True)


def rank_repositories(stores: Stores, registry: str, now: datetime) -> list[str]:
    """The repositories that were pulled in the last 90 days, those pulled most first."""
    scope = stores.catalogue.find_scope(EVERYTHING)
    last = stores.days.calendar.day_of(now)
    query = UsageQuery(first=last - RANKED_BY, last=last, registry=registry)
    found = stores.usage.read_sums(query, scope, now, tops=("repositories",))
    pulls = {
        name: number for (_, name), (number, _) in found.tops["repositories"].items() if number
    }
    return sorted(pulls, key=lambda name: (-pulls[name], name))[:MAX_RANKED]


def find_digests(
    stores: Stores, registry: str, options: MigrationOptions, now: datetime
) -> dict[str, set[str]]:
    """The digests of each repository that `options.untagged` wants; some of them have a tag.

    With `all_known` whatever was pushed or pulled while events came.

    Raises:
        IllegalState: that is not known yet for some days.
    """
    if options.untagged == "none":
        return {}
    actions = {PULL, PULL_PART}
    last = stores.days.calendar.day_of(now)
    if isinstance(options.untagged, PulledWithin):
        first = last - parse_duration(options.untagged.pulled_within)
    else:
        actions |= {PUSH, PUSH_PART}
        first = date.min
    query = UsageQuery(first=first, last=last, registry=registry, supplements=True)
    scope = stores.catalogue.find_scope(EVERYTHING)
    found: dict[str, set[str]] = {}
    images = stores.usage.find_images(query, scope, now, lambda row: row.action in actions)
    if images.missing:
        raise IllegalState(
            f"options.untagged: the usage of {len(images.missing)} days is not summarised yet;"
            " the server does it within minutes, rns usage refresh at once"
        )
    for _, repository, _, digest in images.found:
        if digest:
            found.setdefault(repository, set()).add(digest)
    return found
