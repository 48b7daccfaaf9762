"""When the company pushes what. Pure: what happens on a day depends on nothing but the day."""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, datetime, timedelta
from typing import NamedTuple

from app.demo import images
from app.demo.chance import (
    NIGHT_HOURS,
    OFFICE_HOURS,
    between,
    fraction,
    hex_of,
    is_weekday,
    midnight,
    moment_on,
)
from app.demo.images import Manifest
from app.demo.tables import (
    CHARTS,
    FAULTY,
    MIRRORED,
    MOVED_BACK,
    RUNTIMES,
    SERVICES,
    TEAM_OF,
    Chart,
    Service,
)

BASE = "platform/base/"
STORY_WEEKS = 9  # in so many weeks one release is faulty, and one tag moves back
PUSH_TIME = timedelta(minutes=1)
LOOK_BACK = timedelta(days=70)  # what is older than that is current no longer


class Release(NamedTuple):
    """One push that moves tags: of a service, a base image, a mirrored image or a chart.

    The first tag says which release it is. An older manifest takes only the last tag back.
    """

    at: datetime  # UTC
    repository: str
    tags: tuple[str, ...]
    manifest: Manifest
    faulty: bool = False  # to be recalled: replaced after two days


class Build(NamedTuple):
    """A build of a branch: of `main`, which goes to staging, or of a pull request."""

    at: datetime  # UTC
    service: Service
    tag: str
    manifest: Manifest
    of_main: bool


class Schedule:
    """What is released from `first` to `last`, both included.

    Older manifests are unknown, though what came before decides which tag moves to what.
    """

    def __init__(self, first: date, last: date) -> None:
        self._first = midnight(first)
        start = first - LOOK_BACK
        days = [start + timedelta(days=n) for n in range((last - start).days + 1)]
        self._releases: dict[str, list[Release]] = {}
        for service in SERVICES:
            self._releases[service.repository] = _service_releases(service, days)
        for runtime in RUNTIMES:
            self._releases[BASE + runtime] = _base_releases(runtime, days)
        self._releases |= _mirror_releases(days) | _chart_releases(days)

        self._by_day: dict[date, list[Release]] = {}
        for found in self._releases.values():
            for release in filter(self._is_known, found):
                self._by_day.setdefault(release.at.date(), []).append(release)

    def releases_on(self, day: date) -> list[Release]:
        """The releases of a day."""
        return self._by_day.get(day, [])

    def builds_on(self, day: date) -> list[Build]:
        """The builds of a day, none before the first."""
        if midnight(day) < self._first:
            return []
        return [build for service in SERVICES for build in _builds_of(service, day)]

    def current(self, repository: str, at: datetime, back: int = 0) -> Release | None:
        """The newest release at a moment, or the one so many before it.

        None when its manifest is unknown, or while a newer one is being pushed.
        """
        found = self._releases[repository]
        position = bisect_right(found, at, key=lambda release: release.at) - 1
        if position < back or at < found[position].at + PUSH_TIME:
            return None
        release = found[position - back]
        return release if self._is_known(release) else None

    def _is_known(self, release: Release) -> bool:
        return release.manifest.pushed_at >= self._first


def _builds_of(service: Service, day: date) -> list[Build]:
    """Few at weekends, more of services that release often."""
    likely = 0.1 / service.weeks + 0.03 if is_weekday(day) else 0.02
    builds = []
    for number in range(2):
        key = (service.repository, day, number)
        if fraction("build", *key) > likely / (1 + number):
            continue
        at = moment_on(day, OFFICE_HOURS, "build", *key)
        commit = hex_of("commit", *key)[:7]
        of_main = fraction("branch", *key) < 0.65
        pull_request = (day.toordinal() - 738_000) // service.weeks + number
        tag = f"main-{commit}" if of_main else f"pr-{pull_request}-{commit}"
        builder = TEAM_OF[service.repository].builder
        manifest = images.service_image(service, commit, builder, at, ("amd64",))
        builds.append(Build(at, service, tag, manifest, of_main))
    return builds


def _service_releases(service: Service, days: list[date]) -> list[Release]:
    """Releases with their fixes: after some, after each faulty one, after each moved back."""
    releases: list[Release] = []
    for day in days:
        number = _release_number(service, day)
        if number is None:
            continue
        version = f"{day.isocalendar().year - service.since}.{number}"
        faulty = _is_turn_of(service, FAULTY, 3, day)
        moved_back = _is_turn_of(service, MOVED_BACK, 6, day)
        at = moment_on(day, range(8, 12), "release", service.repository)
        release = _service_release(service, f"{version}.0", at)._replace(faulty=faulty)
        before = releases[-1] if releases else None
        releases.append(release)
        if moved_back and before:
            at += timedelta(hours=between(3, 4, day, "moved back"))
            releases.append(before._replace(at=at))
        if faulty or moved_back or fraction(day, "fix", service.repository) < 0.2:
            fixed_on = day + timedelta(days=2 if faulty else 1)
            at = moment_on(fixed_on, range(8, 15), "fix", service.repository)
            releases.append(_service_release(service, f"{version}.1", at))
    return releases


def _release_number(of: Service | Chart, day: date) -> int | None:
    """Which release of its year comes on this day; not all that come every other week together."""
    number, rest = divmod(day.isocalendar().week + len(of.repository), of.weeks)
    return (
        number - len(of.repository) // of.weeks
        if rest == 0 and day.weekday() == of.weekday
        else None
    )


def _is_turn_of(service: Service, services: tuple[str, ...], place: int, day: date) -> bool:
    turn, week = divmod((day.toordinal() - 1) // 7, STORY_WEEKS)
    return week == place and service.repository == services[turn % len(services)]


def _service_release(service: Service, version: str, at: datetime) -> Release:
    builder = TEAM_OF[service.repository].builder
    manifest = images.service_image(service, version, builder, at, service.architectures)
    return Release(at, service.repository, (version, "latest"), manifest)


def _base_releases(runtime: str, days: list[date]) -> list[Release]:
    """Base images are built anew on Monday, before work begins."""
    tag, releases = RUNTIMES[runtime].tag, []
    for day in days:
        if day.weekday() == 0:
            at = moment_on(day, (4,), "base", runtime)
            manifest = images.base_image(BASE + runtime, runtime, at)
            releases.append(Release(at, BASE + runtime, (tag, f"{tag}-{day:%Y%m%d}"), manifest))
    return releases


def _mirror_releases(days: list[date]) -> dict[str, list[Release]]:
    found: dict[str, list[Release]] = {}
    for mirrored in MIRRORED:
        found[mirrored.repository] = []
        for day in days:
            if day.toordinal() % (7 * mirrored.weeks) == 3:
                at = moment_on(day, NIGHT_HOURS, mirrored.repository)
                manifest = images.mirrored_image(mirrored, at)
                release = Release(at, mirrored.repository, (mirrored.tag,), manifest)
                found[mirrored.repository].append(release)
    return found


def _chart_releases(days: list[date]) -> dict[str, list[Release]]:
    found: dict[str, list[Release]] = {}
    for chart in CHARTS:
        found[chart.repository] = []
        for day in days:
            number = _release_number(chart, day)
            if number is not None:
                version = f"{day.isocalendar().year - 2021}.{number}.0"
                at = moment_on(day, OFFICE_HOURS, chart.repository)
                manifest = images.chart(chart, version, at)
                found[chart.repository].append(Release(at, chart.repository, (version,), manifest))
    return found
