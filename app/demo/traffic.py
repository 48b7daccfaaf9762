"""Who talks to the registry on a day, and about what. Pure.

Every function gives the events of what began on that day, in no order.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

from app.demo import images
from app.demo.chance import (
    CLUSTER_HOURS,
    NIGHT_HOURS,
    OFFICE_HOURS,
    between,
    fraction,
    is_weekday,
    midnight,
    moment_on,
    pick,
)
from app.demo.schedule import BASE, Build, Release, Schedule
from app.demo.tables import (
    AMS,
    ARGOCD,
    BUILDERS,
    CHARTS,
    CLEANUP,
    CLUSTERS,
    COSIGN,
    DEPOTS,
    DIUN,
    FRA,
    HELM,
    MIRRORED,
    ORAS,
    PEOPLE,
    REGSYNC,
    RENOVATE,
    RUNTIMES,
    SCANNER,
    SERVICES,
    STAGING,
    TEAM_OF,
    TEAMS,
    VERIFIER,
    Client,
    Service,
    Team,
    runner_of,
)
from app.demo.wire import WireEvent, check, delete, move_tag, pull, push

_SERVICE_OF = {service.repository: service for service in SERVICES}
_PLATFORM = next(team for team in TEAMS if team.namespace == "platform")
_CRON_JOBS = ("crm/mailer", "data/etl")  # imagePullPolicy: Always
_MOVES = {FRA: 2, AMS: 1}  # pods that come to another node in a day


def builds(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    """CI builds every branch; what is on `main` starts in staging at once."""
    for build in schedule.builds_on(day):
        yield from _build(schedule, build)


def releases(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    """What is released on the day, with signatures, and where it is started then."""
    for release in schedule.releases_on(day):
        if release.repository in _SERVICE_OF:
            yield from _service_release(schedule, release)
        else:
            client = _publisher_of(release.repository)
            yield from push(release.at, release.manifest, release.tags, client)


def nodes(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    """Pods move to other nodes; jobs that always pull ask for their tag every four hours."""
    for cluster, moves in _MOVES.items():
        services = [service for service in SERVICES if cluster in service.clusters]
        for number in range(moves):
            at = moment_on(day, CLUSTER_HOURS, cluster, number)
            service = pick(services, "moves", at)
            node = pick(CLUSTERS[cluster], "to", at)
            if release := schedule.current(service.repository, at):
                yield from pull(at, release.manifest, release.tags[0], node)
    for hour in range(0, 24, 4):
        repository = _CRON_JOBS[hour // 4 % len(_CRON_JOBS)]
        at = midnight(day) + timedelta(hours=hour, minutes=5, seconds=between(1, 9, day, hour))
        if release := schedule.current(repository, at):
            yield from check(at, release.manifest, "latest", STAGING[hour // 4 % len(STAGING)])


def people(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    """Developers try releases of their own team, sometimes older or others'; or a base image."""
    for team in TEAMS:
        for name in team.people:
            if fraction(day, "works on images", name) < (0.15 if is_weekday(day) else 0.02):
                yield from _developer(schedule, day, team, PEOPLE[name])


def robots(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    """Scanner and updaters at night, the mirror twice a day, Argo CD when a chart is new."""
    for number, service in enumerate(SERVICES):
        at = moment_on(day, NIGHT_HOURS, "scan", service.repository)
        release = schedule.current(service.repository, at)
        if release and number % 14 == day.toordinal() % 14:
            yield from pull(at, release.manifest, "latest", SCANNER)
    if day.weekday() in (0, 3):
        yield from _look_for_updates(schedule, day)
    for hour in range(0, 24, 12):
        at = midnight(day) + timedelta(hours=hour, minutes=20, seconds=3)
        if release := schedule.current("warehouse/picking", at):
            yield from check(at, release.manifest, "latest", DIUN)
    for hour in (4, 16):
        mirrored = MIRRORED[(hour // 12 + day.toordinal()) % len(MIRRORED)]
        at = midnight(day) + timedelta(hours=hour, minutes=35, seconds=between(0, 5, day, hour))
        if release := schedule.current(mirrored.repository, at):
            yield from check(at, release.manifest, mirrored.tag, REGSYNC)
    for chart in CHARTS:
        at = moment_on(day, OFFICE_HOURS, "sync", chart.repository)
        release = schedule.current(chart.repository, at)
        if release and fraction(day, "sync", chart.repository) < 0.3:
            yield from pull(at, release.manifest, release.tags[0], ARGOCD)


def cleanup(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    """On Sunday night the builds of pull requests of the week before last are deleted."""
    if day.weekday() != 6:
        return
    at = midnight(day) + timedelta(hours=2, minutes=30)
    for days_ago in range(20, 13, -1):
        for build in schedule.builds_on(day - timedelta(days=days_ago)):
            if not build.of_main:
                yield from delete(at, build.manifest, (build.tag,), CLEANUP)
                at += timedelta(seconds=between(0.3, 1.5, build.tag))


def _build(schedule: Schedule, build: Build) -> Iterator[WireEvent]:
    runner = _runner(build.service, build.tag)
    if fraction("cached", build.tag) < 0.25:
        yield from _pull_base(schedule, build.service, build.at - timedelta(minutes=3), runner)
    yield from push(build.at, build.manifest, (build.tag,), runner)
    if build.of_main:
        at = build.at + timedelta(minutes=between(2, 5, build.tag))
        yield from pull(at, build.manifest, build.tag, pick(STAGING, build.tag))


def _service_release(schedule: Schedule, release: Release) -> Iterator[WireEvent]:
    at, manifest = release.at, release.manifest
    service = _SERVICE_OF[release.repository]
    runner = _runner(service, at)
    if at > manifest.pushed_at:
        yield from move_tag(at, manifest, release.tags[-1], runner)
    else:
        yield from _pull_base(schedule, service, at - timedelta(minutes=5), runner)
        yield from push(at, manifest, release.tags, runner)
        if TEAM_OF[service.repository].signs:
            yield from _sign(release, runner)
    yield from _roll_out(release, service)
    if release.faulty:
        yield from _faulty_release(release)


def _sign(release: Release, runner: Client) -> Iterator[WireEvent]:
    """cosign and oras get what they sign, then push; Kyverno looks for it before a start."""
    manifest, tag = release.manifest, release.manifest.digest.replace(":", "-")
    at = release.at + timedelta(seconds=30)
    cosign, oras = runner._replace(agent=COSIGN), runner._replace(agent=ORAS)
    yield from pull(at, manifest, None, cosign)
    signature = images.signature(manifest, at)
    yield from push(at + timedelta(seconds=2), signature, (f"{tag}.sig",), cosign)
    yield from push(at + timedelta(seconds=9), images.sbom_list(manifest, at), (tag,), oras)
    yield from pull(at + timedelta(minutes=55), signature, f"{tag}.sig", VERIFIER)


def _roll_out(release: Release, service: Service) -> Iterator[WireEvent]:
    """To staging within minutes, to production after some hours, to the depots at night."""
    key, tag = release.at, release.tags[0]
    for number in range(2):
        at = release.at + timedelta(minutes=5, seconds=between(0, 90, key, number))
        yield from pull(at, release.manifest, tag, pick(STAGING, key, number))
    for cluster in service.clusters:
        low, high = (11, 14) if cluster == DEPOTS else (1, 2.5)
        wait = between(low, high, key, cluster)
        at = release.at + timedelta(hours=wait)
        for node in CLUSTERS[cluster]:
            if fraction("runs on", service.repository, node.address) < 0.16:
                yield from pull(at, release.manifest, tag, node)
                at += timedelta(seconds=between(15, 50, at))


def _faulty_release(release: Release) -> Iterator[WireEvent]:
    """A faulty release is tried by several people; one node pins it and comes back later."""
    tag = release.tags[0]
    for number in range(4):
        client = pick(list(PEOPLE.values()), release.at, number)
        at = moment_on(release.at.date() + timedelta(days=1), OFFICE_HOURS, release.tags, number)
        yield from pull(at, release.manifest, tag, client)
    node = pick(CLUSTERS[AMS], release.at)
    yield from pull(release.at + timedelta(days=4, hours=17), release.manifest, tag, node)


def _developer(schedule: Schedule, day: date, team: Team, client: Client) -> Iterator[WireEvent]:
    at = moment_on(day, OFFICE_HOURS, client.actor)
    what = fraction(day, "tries", client.actor)
    if what < 0.15:
        repository = BASE + pick(tuple(RUNTIMES), at)
    elif what < 0.3:
        repository = pick(SERVICES, at).repository
    else:
        repository = pick(team.services, at).repository
    back = 1 if 0.3 <= what < 0.45 else 0
    if release := schedule.current(repository, at, back):
        yield from pull(at, release.manifest, release.tags[0], client)


def _look_for_updates(schedule: Schedule, day: date) -> Iterator[WireEvent]:
    at = midnight(day) + timedelta(hours=5, minutes=30)
    for repository in (
        *(BASE + runtime for runtime in RUNTIMES),
        *(m.repository for m in MIRRORED),
    ):
        if release := schedule.current(repository, at):
            yield from check(at, release.manifest, release.tags[0], RENOVATE)
        at += timedelta(seconds=between(1, 4, at))


def _pull_base(
    schedule: Schedule, service: Service, at: datetime, runner: Client
) -> Iterator[WireEvent]:
    if release := schedule.current(BASE + service.runtime, at):
        yield from pull(at, release.manifest, release.tags[0], runner)


def _runner(service: Service, key: object) -> Client:
    team = TEAM_OF[service.repository]
    number = int(fraction("runner", key) * 3)
    return runner_of(team, BUILDERS[team.builder], number)


def _publisher_of(repository: str) -> Client:
    if repository.startswith("mirror/"):
        return REGSYNC
    agent = HELM if repository.startswith("charts/") else BUILDERS[_PLATFORM.builder]
    return runner_of(_PLATFORM, agent, 0)
