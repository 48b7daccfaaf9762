"""Usage by day: closed and open days give the figures of a recount, whatever comes when."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import mongomock
import msgspec
import pytest
from builders import IMAGE, INDEX, deliver, digest, envelope, rule, wire_event

from app import demo
from app.demo.company import parsed_history
from app.notifications.derivation import Derivation
from app.notifications.loading import load_events, load_lines, rebuild
from app.notifications.projector import Projector
from app.rules.events import parse_envelope
from app.rules.usage import COUNTED, Calendar, Row, Span, Sums
from app.store import Stores
from app.store.scope import Records, Scope
from app.store.usage import UsageQuery
from app.store.usage.days import OPEN
from app.store.usage.documents import FORM

START = datetime(2026, 11, 20, tzinfo=UTC)
CLOCKS_BACK = datetime(2026, 10, 25, tzinfo=UTC)  # in Berlin, an hour later
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Key = tuple[Any, ...]
ATTESTED = [{"mediaType": "application/vnd.in-toto+json", "digest": digest("note"), "size": 100}]


class History:
    """A random history: the events in the order in which they happened, and what they come to.

    Every other one goes on while the clocks of its zone are put back.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.start = CLOCKS_BACK - DAY if seed % 2 else START
        self.zone = "Europe/Berlin" if seed % 2 else "UTC"
        self.day_of = Calendar(self.zone).day_of
        self.events: list[tuple[datetime, dict[str, Any]]] = []
        self.expected: Counter[Key] = Counter()
        self.bytes: Counter[Key] = Counter()
        self.now = self.start + timedelta(hours=20)
        self.tags: dict[tuple[str, str], tuple[str, list[str]]] = {}
        for number in range(self.dice.randint(15, 40)):
            # Each is apart from the next by more than a pair's minute, and some cross midnight.
            self.now += timedelta(seconds=self.dice.choice([70, 300, 4000, 9000]))
            action = self.dice.choice(
                [self.push, self.push, self.pull, self.pull, self.check, self.supplement]
            )
            if number < 3:
                action = self.push
            action(number)

    def event(self, action: str, repository: str, seconds: float = 0, **fields: Any) -> None:
        self.now += timedelta(seconds=seconds)
        # A client in a hurry, or one whose clock another registry node keeps.
        self.events.append((self.now, wire_event(action, repository, at=self.now, **fields)))

    def count(
        self,
        action: str,
        repository: str,
        tag: str | None,
        who: dict[str, str],
        is_supplement: bool = False,
    ) -> None:
        key = (self.day_of(self.now), repository, tag, action, who["actor"], who["address"][:-5])
        self.expected[*key, is_supplement] += 1

    def supplement(self, number: int) -> None:
        """A signature or list of referrers by its tag, or an attestation that has none."""
        repository, tag = self.dice.choice(sorted(self.tags))
        about, who = digest(self.tags[repository, tag][0]).replace(":", "-"), self.who()
        named, is_list = f"{about}.sig", self.dice.random() < 0.3
        shape: dict[str, Any] = {"of": f"signature {number}", "tag": named, **who}
        if is_list:
            shape |= {"tag": about, "media_type": INDEX}
        elif self.dice.random() < 0.5:
            # Only the push tells what it is.
            shape |= {"of": f"attestation {number}", "tag": None}
            self.event("push", repository, **shape, references=ATTESTED)
            self.count("push", repository, None, who, True)
            self.bytes[self.day_of(self.now), True] += 600
            self.now += timedelta(seconds=100)
        action = self.dice.choice(["pull", "check"])
        self.event(action, repository, **shape)
        self.count(action, repository, shape["tag"], who, True)

    def who(self) -> dict[str, str]:
        number = self.dice.randrange(3)
        agents = ["docker/27", "containerd/1.7", "Trivy/0.5"]
        return {
            "actor": ["alice", "bob", ""][number],
            "address": f"10.0.0.{number}:1234",
            "user_agent": agents[number],
        }

    def push(self, number: int) -> None:
        repository, tag = self.dice.choice(["team/app", "team/db", "ops"]), f"v{number % 4}"
        who, of = self.who(), f"{repository} {number}"
        children = [f"{of} {n}" for n in range(self.dice.choice([0, 0, 2]))]
        for child in children:
            self.event("push", repository, 0.4, of=child, **who)
            self.bytes[self.day_of(self.now), False] += 500
        media_type = INDEX if children else IMAGE
        self.event(
            "push",
            repository,
            0.4,
            of=of,
            tag=tag,
            media_type=media_type,
            children=children or None,
            **who,
        )
        self.bytes[self.day_of(self.now), False] += 500
        self.tags[repository, tag] = (of, children)
        self.count("push", repository, tag, who)

    def pull(self, number: int) -> None:
        repository, tag = self.dice.choice(sorted(self.tags))
        of, children = self.tags[repository, tag]
        who, media_type = self.who(), INDEX if children else IMAGE
        shape = {"of": of, "media_type": media_type, "children": children or None, **who}
        if self.dice.random() < 0.7:
            self.event("check", repository, 0.2, tag=tag, **shape)
            self.event("pull", repository, 0.2, **shape)
        else:
            self.event("pull", repository, 0.2, tag=tag, **shape)
        self.count("pull", repository, tag, who)
        for child in children[:1]:
            self.event("pull", repository, 0.2, of=child, **who)

    def check(self, number: int) -> None:
        repository, tag = self.dice.choice(sorted(self.tags))
        of, children = self.tags[repository, tag]
        who, media_type = self.who(), INDEX if children else IMAGE
        self.event("check", repository, of=of, tag=tag, media_type=media_type, **who)
        self.count("check", repository, tag, who)

    def deliveries(self) -> list[tuple[datetime, dict[str, Any]]]:
        """When each event comes: mostly at once, some late, some twice, some after others."""
        found = []
        for moment, event in self.events:
            late = self.dice.choice([0, 0, 0, 1, 20, 600, 86_400, 200_000])
            found.append((moment + timedelta(seconds=late), event))
            if self.dice.random() < 0.2:
                again = self.dice.choice([1, 700, 100_000])
                found.append((moment + timedelta(seconds=late + again), event))
        return sorted(found, key=lambda pair: pair[0])


def everything(stores: Stores) -> Scope:
    return stores.catalogue.find_scope(rule())


def figures(stores: Stores, now: datetime, supplements: bool) -> tuple[Counter[Key], Counter[Key]]:
    """What the store says, in the shape of a History's expectation."""
    query = UsageQuery(first=date(2026, 1, 1), last=date(2027, 1, 1), supplements=supplements)
    usage = stores.usage.read(query, everything(stores), now)
    assert not usage.missing
    counts: Counter[Key] = Counter()
    sizes: Counter[Key] = Counter()
    for row in usage.rows:
        if row.action in COUNTED:
            key = (row.day, row.repository, row.tag, row.action, row.actor, row.address)
            counts[*key, row.is_supplement] += row.number
        sizes[row.day, row.is_supplement] += row.bytes
    return counts, sizes


def without_supplements(counts: Counter[Key]) -> Counter[Key]:
    return Counter({key: number for key, number in counts.items() if not key[-1]})


def check_sums(stores: Stores, dice: random.Random, start: date, now: datetime) -> None:
    """The sums of everything, a namespace, a client, an account are those of the rows.

    Whatever bob may see of other people.
    """
    supplements = dice.random() < 0.5
    query = UsageQuery(first=start, last=start + 6 * DAY, supplements=supplements)
    rows = stores.usage.read(query, everything(stores), now).rows
    shown: Records = dice.choice(["all", "without_addresses", "own"])
    compiled = dice.choice([rule(), rule("bob", TEAM_ACL)])
    scope = stores.catalogue.find_scope(compiled, "bob", shown)
    filters: dict[str, Any] = dice.choice(
        [
            {},
            {},
            {"namespace": "team"},
            {"actor": "bob"},
            {"actor": "alice"},
            {"clients": frozenset({"docker"})},
            {"clients": frozenset({"docker"}), "actor": "alice"},
        ]
    )
    hides_all = (shown == "own" and "actor" in filters) or (shown != "all" and "clients" in filters)
    expected, own = Sums(), Sums()
    for row in rows:
        if matches(row, filters) and scope.may_see(row.repository):
            if row.actor == "bob":
                own.add(row)
            if row.actor == "bob" or not hides_all:
                expected.add(row)
    if shown != "all":
        hidden = ("clients", "addresses", *(("accounts",) if shown == "own" else ()))
        expected.tops |= {name: own.tops[name] for name in hidden}

    narrow = msgspec.structs.replace(query, **filters)
    found = stores.usage.read_sums(narrow, scope, now)

    assert found.counts == expected.counts
    assert found.tops == expected.tops
    assert found.bytes_pushed == expected.bytes_pushed
    by_day = {day: Counter(counts) for day, counts in found.days.items()}
    assert by_day == {day: Counter(counts) for day, counts in expected.days.items()}
    day = dice.choice(sorted(found.days or {start: {}}))
    of_hours: Counter[str] = Counter()
    of_day = msgspec.structs.replace(narrow, first=day, last=day)
    for counts in (stores.usage.read_hours(of_day, scope, now) or {}).values():
        of_hours.update(counts)
    assert of_hours == by_day.get(day, Counter())


def check_lines(stores: Stores, dice: random.Random, start: date, now: datetime) -> None:
    """Pulls by day, who pulled, and what came from an address are those of the rows one may see."""
    query = UsageQuery(first=start, last=start + 6 * DAY)
    rows = stores.usage.read(
        msgspec.structs.replace(query, supplements=True), everything(stores), now
    ).rows
    shown: Records = dice.choice(["all", "without_addresses", "own"])
    compiled = dice.choice([rule(), rule("bob", TEAM_ACL), rule("bob", ONE_ACL)])
    scope = stores.catalogue.find_scope(compiled, "bob", shown)
    rows = [row for row in rows if scope.may_see(row.repository)]
    names = sorted({row.repository for row in rows})[: dice.randint(1, 3)] or ["team/app"]
    wanted = {("default", name) for name in names}

    days: Counter[Key] = Counter()
    pulled: Counter[Key] = Counter()
    for row in rows:
        if row.repository in names and not row.is_supplement:
            days[row.repository, row.day, row.action] += row.number
        if row.repository == names[0] and not row.is_supplement and scope.may_name(row.actor):
            place = (row.client, row.address) if scope.may_locate(row.actor) else ("", "")
            pulled[row.actor, *place, row.action] += row.number

    lines = stores.usage.read_lines("repositories", wanted, query, scope.near(names), now)
    found: Counter[Key] = Counter()
    for (_, name), of_days in lines.days.items():
        for day, (pulls, pushes) in of_days.items():
            found[name, day, "pull"] += pulls
            found[name, day, "push"] += pushes
    assert +found == Counter({key: n for key, n in days.items() if key[2] in ("pull", "push")})

    of_one = msgspec.structs.replace(query, repository=names[0])
    use = stores.usage.read_use(of_one, scope, now)
    found = Counter()
    for who, (pulls, checks, _) in use.pullers.items():
        found[*who, "pull"] += pulls
        found[*who, "check"] += checks
    assert +found == Counter({key: n for key, n in pulled.items() if key[3] in ("pull", "check")})

    address = dice.choice([row.address for row in rows] or ["10.0.0.1"])
    of_days = sorted({row.day for row in rows})
    expected = [r for r in rows if r.address == address and scope.may_locate(r.actor)]
    came = stores.usage.read_address(address, of_days, scope, now)
    assert summed(came) == summed(expected)


def summed(rows: list[Row]) -> Counter[Key]:
    counts: Counter[Key] = Counter()
    for row in rows:
        counts[row[:9]] += row.number
    return counts


TEAM_ACL = [{"seq": 1, "match": {"name": "team/*"}, "actions": ["pull"]}]
ONE_ACL = [{"seq": 1, "match": {"name": "team/app"}, "actions": ["pull"]}]


def matches(row: Row, filters: Mapping[str, Any]) -> bool:
    return (
        filters.get("namespace") in (None, row.repository.rpartition("/")[0])
        and filters.get("actor") in (None, row.actor)
        and row.client in filters.get("clients", {row.client})
    )


def close_days(stores: Stores, now: datetime) -> list[date]:
    """Close what may be closed, hours too; returns the days."""
    days = stores.days.find_open_days(now)
    for day in days:
        stores.days.close_day(day)
    for hour in stores.days.find_open_hours(now):
        stores.days.close(hour)
    return days


def check_history(database: Any, seed: int) -> None:
    history = History(seed)
    stores = Stores(database, time_zone=history.zone)
    stores.ensure_indexes()
    now = history.start
    for now, event in history.deliveries():
        deliver(stores, envelope(event), "default", now)
        if history.dice.random() < 0.2:
            close_days(stores, now)

    for later in (timedelta(), OPEN, 2 * DAY, 3 * DAY):
        counts, sizes = figures(stores, now + later, supplements=True)
        assert counts == history.expected, (seed, later)
        assert +sizes == +history.bytes, (seed, later)
        counts, sizes = figures(stores, now + later, supplements=False)
        assert counts == without_supplements(history.expected), (seed, later)
        assert +sizes == +without_supplements(history.bytes), (seed, later)
        check_sums(stores, history.dice, history.start.date(), now + later)
        check_lines(stores, history.dice, history.start.date(), now + later)
        close_days(stores, now + later)


@pytest.mark.parametrize("seed", range(30))
def test_figures_equal_a_recount_of_any_history(seed: int) -> None:
    check_history(mongomock.MongoClient(tz_aware=True)["registry"], seed)


@pytest.mark.wire
@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_a_recount_on_the_server(wire_database: Any, seed: int) -> None:
    check_history(wire_database, seed)


# Days


def push(stores: Stores, at: datetime, now: datetime | None = None, **fields: Any) -> None:
    event = wire_event("push", tag="v1", at=at, **fields)
    deliver(stores, envelope(event), "default", now or at)


def pushes(stores: Stores, now: datetime, **query: Any) -> int:
    bounds = {"first": date(2026, 1, 1), "last": date(2027, 1, 1)} | query
    usage = stores.usage.read(UsageQuery(**bounds), everything(stores), now)
    return sum(row.number for row in usage.rows if row.action == "push")


NOON = START + timedelta(hours=12)


def test_a_day_is_closed_when_no_push_can_change_it_any_more(stores: Stores) -> None:
    push(stores, NOON)
    one = START + DAY + timedelta(hours=1)

    assert stores.days.find_open_days(NOON) == []
    assert stores.days.find_open_days(one + OPEN - SECOND) == []
    assert stores.days.find_open_days(one + OPEN) == [START.date()]


def test_the_hours_of_today_are_closed_as_they_settle(stores: Stores) -> None:
    push(stores, NOON)
    push(stores, NOON + 90 * MINUTE)
    now = NOON + 3 * HOUR

    close_days(stores, now)
    stores.events._collection.delete_many({"timestamp": {"$lt": NOON + HOUR}})

    assert stores.days.find_open_hours(now) == []
    assert pushes(stores, now) == 2, "the first is in the summary of its hour"


def test_an_event_that_comes_late_opens_its_hour(stores: Stores) -> None:
    push(stores, NOON)
    now = NOON + 5 * HOUR
    close_days(stores, now)

    push(stores, NOON + MINUTE, now)

    assert pushes(stores, now) == 2
    assert stores.days.find_open_hours(now) == [], "it may still be on its way"
    close_days(stores, now + OPEN)
    assert pushes(stores, now + OPEN) == 2


def test_an_event_that_comes_late_counts_before_its_day_is_closed(stores: Stores) -> None:
    push(stores, NOON)
    close_days(stores, START + DAY)
    now = START + DAY + HOUR

    push(stores, NOON + MINUTE, now)

    assert pushes(stores, now) == 2
    close_days(stores, now + OPEN)
    assert pushes(stores, now + OPEN) == 2


def test_hours_are_forgotten_when_their_day_is_closed(stores: Stores) -> None:
    push(stores, NOON)
    close_days(stores, START + DAY)
    assert stores.days._days.count_documents({}) > 20

    close_days(stores, START + 2 * DAY + HOUR + OPEN)

    keys = [row["_id"] for row in stores.days._days.find()]
    assert sorted(keys)[:1] == ["2026-11-20"]
    assert not [key for key in keys if key.startswith("2026-11-20T")]
    assert pushes(stores, START + 2 * DAY) == 1
    of_hours = {"day": {"$gt": "2026-11-20", "$lt": "2026-11-21"}}
    assert stores.days._usage.count_documents(of_hours) == 0
    assert stores.days._sums.count_documents(of_hours) == 0


def test_every_day_that_has_events_is_closed_once_the_newest_first(stores: Stores) -> None:
    push(stores, NOON)
    push(stores, NOON + 3 * DAY)
    now = NOON + 5 * DAY

    assert close_days(stores, now) == [(NOON + 3 * DAY).date(), NOON.date()]
    assert close_days(stores, now) == []
    assert pushes(stores, now) == 2


def test_closing_a_day_twice_changes_nothing(stores: Stores) -> None:
    push(stores, NOON)
    now = NOON + 2 * DAY
    for _ in range(3):
        stores.days.close_day(START.date())

    assert pushes(stores, now) == 1


def test_an_event_that_comes_late_opens_its_day(stores: Stores) -> None:
    push(stores, NOON)
    now = NOON + 3 * DAY
    close_days(stores, now)

    push(stores, NOON + MINUTE, now)

    assert pushes(stores, now) == 2
    assert stores.days.find_open_days(now) == [], "it may still be on its way"
    assert close_days(stores, now + OPEN) == [START.date()]
    assert pushes(stores, now + OPEN) == 2


def test_an_event_that_comes_while_its_day_is_being_closed_leaves_it_open(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(stores, NOON)
    now = NOON + 3 * DAY
    write: Callable[..., Any] = stores.days._write

    def slow_write(span: Span, run: str) -> Any:
        written = write(span, run)
        push(stores, NOON + MINUTE, now)
        return written

    monkeypatch.setattr(stores.days, "_write", slow_write)
    stores.days.close_day(START.date())
    monkeypatch.undo()

    assert pushes(stores, now) == 2
    assert START.date() in close_days(stores, now + OPEN)
    assert pushes(stores, now + OPEN) == 2


def test_a_crash_while_closing_leaves_the_old_figures(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(stores, NOON)
    now = NOON + 3 * DAY
    close_days(stores, now)

    class Crash(Exception):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    monkeypatch.setattr(stores.days._days, "update_one", crash)
    with pytest.raises(Crash):
        stores.days.close_day(START.date())
    monkeypatch.undo()

    assert pushes(stores, now) == 1
    stores.days.close_day(START.date())
    assert pushes(stores, now) == 1
    assert stores.days._usage.count_documents({}) == 1


def test_closed_days_need_no_events(stores: Stores) -> None:
    push(stores, NOON)
    now = NOON + 3 * DAY
    close_days(stores, now)

    stores.events._collection.delete_many({})

    assert pushes(stores, now) == 1


def test_days_begin_in_the_zone_of_the_configuration(mock_database: Any) -> None:
    evening = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    utc, berlin = Stores(mock_database), Stores(mock_database, time_zone="Europe/Berlin")
    push(utc, evening)
    now = evening + 3 * DAY

    assert pushes(utc, now, last=date(2026, 11, 20)) == 1
    assert pushes(berlin, now, last=date(2026, 11, 20)) == 0
    assert pushes(berlin, now, first=date(2026, 11, 21), last=date(2026, 11, 21)) == 1


def hourly(stores: Stores, now: datetime, day: date, **query: Any) -> list[int] | None:
    """The number of pushes in each hour of a day."""
    bounds = UsageQuery(first=day, last=day, **query)
    hours = stores.usage.read_hours(bounds, everything(stores), now)
    return None if hours is None else [counts.get("push", 0) for counts in hours.values()]


@pytest.mark.parametrize("is_closed", [False, True])
def test_the_hour_that_is_there_twice_when_clocks_go_back_is_two_hours(
    mock_database: Any, is_closed: bool
) -> None:
    stores = Stores(mock_database, time_zone="Europe/Berlin")
    for hour in range(-1, 4):
        push(stores, CLOCKS_BACK + hour * HOUR)
    now = CLOCKS_BACK + 3 * DAY
    if is_closed:
        close_days(stores, now)

    assert hourly(stores, now, CLOCKS_BACK.date()) == [0, 1, 1, 1, 1, 1] + 19 * [0]


def test_the_25th_hour_of_a_day_of_another_zone_is_left_out(mock_database: Any) -> None:
    berlin = Stores(mock_database, time_zone="Europe/Berlin", retention_days=1)
    push(berlin, CLOCKS_BACK + 12 * HOUR)
    push(berlin, CLOCKS_BACK + 22.5 * HOUR)
    now = CLOCKS_BACK + 3 * DAY
    close_days(berlin, now)
    assert berlin.days.remove_events(now) == 2

    utc = Stores(mock_database, retention_days=1)

    assert sum(hourly(utc, now, CLOCKS_BACK.date()) or []) == 1


@pytest.mark.parametrize("filters", [{"repository": "team/app"}, {"namespace": "team"}])
def test_hours_of_removed_events_are_known_where_they_were_summed_up_and_else_not(
    mock_database: Any, filters: dict[str, str]
) -> None:
    now = NOON + 5 * DAY
    stores = removed_days(mock_database, now)
    is_summed_up = "namespace" in filters

    removed = hourly(stores, now, START.date(), **filters)
    kept = hourly(stores, now, START.date() + 3 * DAY, **filters)

    assert kept == [0] * 12 + [1] + [0] * 11
    assert removed == (kept if is_summed_up else None)


def test_hours_are_not_counted_when_there_are_too_many_events_for_a_page(stores: Stores) -> None:
    for number in range(4):
        push(stores, NOON + number * MINUTE, repository=f"team/app{number}")
    stores.usage.max_live_rows = 4

    assert hourly(stores, NOON + HOUR, START.date()) is None


def test_another_zone_makes_every_day_anew(mock_database: Any) -> None:
    evening = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    utc, berlin = Stores(mock_database), Stores(mock_database, time_zone="Europe/Berlin")
    push(utc, evening)
    now = evening + 3 * DAY
    close_days(utc, now)

    close_days(berlin, now)

    assert pushes(berlin, now, last=date(2026, 11, 20)) == 0
    assert pushes(berlin, now) == 1


def test_a_page_counts_the_newest_days_and_says_which_are_missing(stores: Stores) -> None:
    for day in range(12):
        push(stores, NOON + day * DAY)
    query = UsageQuery(first=date(2026, 1, 1), last=date(2027, 1, 1))
    stores.usage.max_live_rows = 8

    usage = stores.usage.read(query, everything(stores), NOON + 11 * DAY)

    assert sum(row.number for row in usage.rows) == 8
    assert list(usage.missing) == [START.date() + day * DAY for day in range(4)]


def test_retention_removes_events_of_closed_days_and_keeps_their_figures(
    mock_database: Any,
) -> None:
    stores = Stores(mock_database, retention_days=2)
    for day in range(6):
        push(stores, NOON + day * DAY)
    now = NOON + 5 * DAY

    assert stores.days.remove_events(now) == 0, "no day is closed"
    close_days(stores, now)

    assert stores.days.remove_events(now) == 3
    assert stores.days.remove_events(now) == 0
    assert pushes(stores, now) == 6


def test_retention_waits_for_no_day_that_is_not_closed_yet(mock_database: Any) -> None:
    stores = Stores(mock_database, retention_days=2)
    for day in range(6):
        push(stores, NOON + day * DAY)
    push(stores, LONG_AGO, NOON + 5 * DAY)
    now = NOON + 5 * DAY
    assert LONG_AGO.date() not in close_days(stores, now)

    assert stores.days.remove_events(now) == 3
    assert close_days(stores, now + OPEN) == [LONG_AGO.date()]
    assert stores.days.remove_events(now + OPEN) == 1

    assert pushes(stores, now + OPEN, first=date(2000, 1, 1)) == 7
    assert stores.days.find_settled_days(now + OPEN, last=START.date()) == []


def test_what_comes_after_its_day_was_removed_does_not_touch_the_figures(
    mock_database: Any,
) -> None:
    stores = Stores(mock_database, retention_days=2)
    for day in range(6):
        push(stores, NOON + day * DAY)
    now = NOON + 5 * DAY
    close_days(stores, now)
    stores.days.remove_events(now)

    push(stores, NOON + MINUTE, now)
    close_days(stores, now + OPEN)

    assert pushes(stores, now + OPEN) == 6


def test_another_zone_keeps_the_figures_of_removed_days(mock_database: Any) -> None:
    utc = Stores(mock_database, retention_days=2)
    berlin = Stores(mock_database, retention_days=2, time_zone="Europe/Berlin")
    for day in range(6):
        push(utc, NOON + day * DAY)
    now = NOON + 5 * DAY
    close_days(utc, now)
    utc.days.remove_events(now)

    close_days(berlin, now)

    assert pushes(berlin, now) == 6


def removed_days(database: Any, now: datetime) -> Stores:
    """Stores that removed the events of three days of six, on each of which there was a push."""
    stores = Stores(database, retention_days=2)
    for day in range(6):
        push(stores, NOON + day * DAY)
    close_days(stores, now)
    assert stores.days.remove_events(now) == 3
    return stores


@pytest.mark.parametrize("retention_days", [0, 30])
@pytest.mark.parametrize("form", [FORM, FORM + 1])
@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin"])
def test_a_longer_retention_keeps_the_figures_of_removed_days(
    mock_database: Any,
    monkeypatch: pytest.MonkeyPatch,
    retention_days: int,
    form: int,
    time_zone: str,
) -> None:
    now = NOON + 5 * DAY
    removed_days(mock_database, now)
    monkeypatch.setattr("app.store.usage.days.FORM", form)
    stores = Stores(mock_database, retention_days=retention_days, time_zone=time_zone)

    push(stores, NOON + MINUTE, now)
    close_days(stores, now + OPEN)
    for day in stores.days.find_settled_days(now, START.date()):
        stores.days.close_day(day)

    assert pushes(stores, now + OPEN) == 6


def test_a_day_whose_events_are_removed_stays_closed_when_one_comes_late(
    stores: Stores,
) -> None:
    stores.days.retention_days = 2
    push(stores, NOON)
    now = NOON + 5 * DAY
    close_days(stores, now)
    assert stores.days.remove_events(now) == 1

    push(stores, NOON + MINUTE, now)

    assert pushes(stores, now) == 1
    assert START.date() not in stores.days.find_settled_days(now)
    assert stores.days.close_day(START.date()) == 0
    assert pushes(stores, now) == 1
    assert stores.days.remove_events(now) == 1


def test_events_removed_while_their_day_is_closed_anew_stay_in_its_figures(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.days.retention_days = 2
    push(stores, NOON)
    now = NOON + 5 * DAY
    close_days(stores, now)
    write: Callable[..., Any] = stores.days._write

    def slow_write(span: Span, run: str) -> Any:
        assert stores.days.remove_events(now) == 1
        return write(span, run)

    monkeypatch.setattr(stores.days, "_write", slow_write)
    stores.days.close_day(START.date())

    assert pushes(stores, now) == 1


def test_retention_deletes_nothing_where_nothing_is_left(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = NOON + 5 * DAY
    stores = removed_days(mock_database, now)
    deletes: list[Any] = []
    delete: Callable[..., Any] = stores.days._events.delete_many

    def delete_many(query: Any) -> Any:
        deletes.append(query)
        return delete(query)

    monkeypatch.setattr(stores.days._events, "delete_many", delete_many)

    assert stores.days.remove_events(now) == 0
    assert deletes == []
    assert stores.days.remove_events(now + DAY) == 1
    assert len(deletes) == 24, "of that day alone"


def test_a_day_is_closed_anew_only_when_it_is_settled_and_its_events_are_there(
    mock_database: Any,
) -> None:
    now = NOON + 5 * DAY
    stores = removed_days(mock_database, now)
    days = [START.date() + number * DAY for number in range(6)]
    over = START + 6 * DAY + HOUR

    assert stores.days.find_settled_days(over + OPEN - SECOND) == days[4:2:-1]
    assert stores.days.find_settled_days(over + OPEN) == days[:2:-1]
    assert stores.days.find_settled_days(over + OPEN, days[4], days[4]) == [days[4]]


def test_an_imported_event_is_in_the_figures_of_its_day(stores: Stores) -> None:
    push(stores, NOON)
    now = NOON + 3 * DAY
    close_days(stores, now)
    elsewhere = Stores(mongomock.MongoClient(tz_aware=True)["elsewhere"])
    push(elsewhere, NOON + MINUTE)
    close_days(elsewhere, now)

    for _ in range(2):
        lines = [line.encode() for line in elsewhere.transfer.dump()]
        list(load_lines(stores, Projector(stores), lines, "default"))

    assert pushes(stores, now) == 2
    close_days(stores, datetime.now(UTC) + OPEN)
    assert pushes(stores, now) == 2


def test_demonstration_data_counts_though_its_days_are_closed_and_leaves_nothing_behind(
    stores: Stores,
) -> None:
    now, projector = datetime.now(UTC), Projector(stores)
    events = list(islice(parsed_history(now), 400))
    for half in (events[::2], events[1::2]):
        list(load_events(stores, projector, half))
        close_days(stores, datetime.now(UTC) + OPEN)
    recorded = list(stores.events.iterate())
    expected = sum(e.action == "push" and not e.part_of for e in recorded)

    found = pushes(stores, now, supplements=True)
    demo.remove(stores, projector)

    assert (len(recorded), found) == (400, expected)
    assert pushes(stores, now, supplements=True) == 0


LONG_AGO = datetime(2013, 5, 5, 12, tzinfo=UTC)


def test_an_event_of_2013_costs_one_day(stores: Stores) -> None:
    push(stores, NOON - DAY)
    push(stores, LONG_AGO, NOON)
    now = NOON + OPEN
    days = [(NOON - DAY).date(), LONG_AGO.date()]

    assert stores.days.find_open_days(now) == days
    assert stores.days.find_settled_days(now) == days
    assert pushes(stores, now, first=date(2000, 1, 1)) == 2
    assert close_days(stores, now) == days
    assert stores.days.find_open_days(now) == []
    assert pushes(stores, now, first=date(2000, 1, 1)) == 2
    listed = [row["_id"] for row in stores.days._days.find() if "T" not in row["_id"]]
    assert sorted(listed) == [str(day) for day in sorted(days)]


def test_a_day_without_events_is_read_as_one_without(stores: Stores) -> None:
    push(stores, NOON)
    push(stores, NOON + 2 * DAY)
    now = NOON + 5 * DAY
    between = START.date() + DAY

    assert pushes(stores, now, first=between, last=between) == 0
    assert hourly(stores, now, between) == [0] * 24
    assert between not in close_days(stores, now)


def test_days_that_are_not_listed_count_after_everything_is_derived_anew(stores: Stores) -> None:
    # As an older version left them.
    for day in range(3):
        push(stores, NOON + day * DAY)
    now = NOON + 4 * DAY
    close_days(stores, now)
    stores.days._days.delete_many({})
    again = Stores(stores._database)
    assert pushes(again, now) == 0

    assert sum(map(len, rebuild(again, Projector(again), None))) == 3

    assert pushes(again, now) == 3
    assert len(close_days(again, datetime.now(UTC) + OPEN)) == 3
    assert pushes(again, now) == 3


def test_a_process_remembers_which_days_are_listed_but_not_without_bound(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.usage.days.MAX_LISTED", 3)
    updates: list[Any] = []
    update: Callable[..., Any] = stores.days._days.update_one
    monkeypatch.setattr(
        stores.days._days, "update_one", lambda *a, **k: updates.append(a) or update(*a, **k)
    )
    for _ in range(2):
        stores.days.open_days([NOON, NOON + MINUTE], NOON + MINUTE)
    assert len(updates) == 1

    for day in range(1, 9):
        stores.days.open_days([NOON + day * DAY], NOON + day * DAY)

    assert len(stores.days._listed) <= 3
    assert len(stores.days._days.distinct("_id")) == 9


@pytest.mark.parametrize("zones", [("Pacific/Kiritimati", "Etc/GMT+12"), ("Etc/GMT+12", "UTC")])
@pytest.mark.parametrize("hour", [0, 9, 11, 13, 23])
def test_a_day_that_was_listed_in_another_zone_loses_no_event(
    mock_database: Any, zones: tuple[str, str], hour: int
) -> None:
    there, here = (Stores(mock_database, time_zone=zone) for zone in zones)
    at = START + timedelta(hours=hour, minutes=30)
    push(there, at)
    push(there, at + 3 * DAY)
    now = at + 6 * DAY
    local = here.days.calendar.day_of(at)

    for _ in range(2):
        assert pushes(here, now, first=local, last=local) == 1
        assert pushes(here, now) == 2
        close_days(here, now)
    assert pushes(there, now) == 2, "one who has not restarted yet"


def test_closing_a_day_of_another_zone_keeps_its_neighbour_listed(mock_database: Any) -> None:
    utc, berlin = Stores(mock_database), Stores(mock_database, time_zone="Europe/Berlin")
    push(utc, START + 23.5 * HOUR)
    now = NOON + 5 * DAY

    assert berlin.days.close_day(START.date()) == 0

    assert pushes(berlin, now) == 1
    assert close_days(berlin, now) == [START.date() + DAY]
    assert pushes(berlin, now) == 1


def test_a_day_that_has_the_name_of_one_listed_in_a_far_zone_counts(mock_database: Any) -> None:
    east = Stores(mock_database, time_zone="Pacific/Kiritimati")
    west = Stores(mock_database, time_zone="Etc/GMT+12")
    at = START + 5 * HOUR, START + 20 * HOUR  # of one name, and no moment is in both days
    assert east.days.calendar.day_of(at[0]) == west.days.calendar.day_of(at[1]) == START.date()
    push(east, at[0])
    push(west, at[1])
    now = NOON + 5 * DAY

    for _ in range(2):
        assert pushes(west, now) == 2
        close_days(west, now)


def test_a_day_that_is_listed_while_it_is_closed_stays_open(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = NOON + 3 * DAY
    write: Callable[..., Any] = stores.days._write

    def slow_write(span: Span, run: str) -> Any:
        written = write(span, run)
        push(stores, NOON, now)
        return written

    monkeypatch.setattr(stores.days, "_write", slow_write)
    stores.days.close_day(START.date())
    monkeypatch.undo()

    assert pushes(stores, now) == 1
    assert close_days(stores, now + OPEN) == [START.date()]
    assert pushes(stores, now + OPEN) == 1


def test_an_event_that_was_long_in_the_inbox_opens_its_day_when_it_is_worked_in(
    stores: Stores,
) -> None:
    # It came before the day was closed, and is worked in hours after that.
    late = wire_event("push", tag="v1", at=NOON)
    push(stores, NOON - MINUTE)
    now = NOON + 3 * DAY
    close_days(stores, now)

    received = parse_envelope(envelope(late), "default", NOON)
    Derivation(stores).work_in(received.events, now)

    assert pushes(stores, now) == 2
    assert close_days(stores, now + OPEN - SECOND) == [], "it may still be on its way"
    assert close_days(stores, now + OPEN) == [START.date()]
    assert pushes(stores, now + OPEN) == 2


def test_an_event_is_noted_before_it_is_stored(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(stores, NOON)
    now = NOON + 3 * DAY
    close_days(stores, now)
    add: Callable[..., Any] = stores.events.add

    class Crash(Exception):
        pass

    def crash(events: Any) -> None:
        add(events)
        raise Crash

    late = envelope(wire_event("push", tag="v1", at=NOON + MINUTE))
    monkeypatch.setattr(stores.events, "add", crash)
    with pytest.raises(Crash):
        deliver(stores, late, "default", now)
    monkeypatch.undo()
    close_days(stores, now + OPEN)
    deliver(stores, late, "default", now + 2 * OPEN)

    assert pushes(stores, now + 2 * OPEN) == 2


QUERIES: list[tuple[dict[str, Any], int]] = [
    ({}, 3),
    ({"registry": "default"}, 3),
    ({"registry": "other"}, 0),
    ({"namespace": "team"}, 2),
    ({"namespace": ""}, 1),
    ({"repository": "team/app"}, 2),
    ({"repository": "team"}, 0),
    ({"repository": "team/app", "namespace": "team"}, 2),
    ({"repository": "team/app", "namespace": "ops"}, 0),
    ({"actor": "alice"}, 2),
    ({"actor": ""}, 1),
    ({"tag": "v1"}, 3),
    ({"tag": "v2"}, 0),
    ({"digest": digest("image")}, 3),
    ({"clients": frozenset({"docker"})}, 2),
    ({"clients": frozenset({"docker", "helm"})}, 3),
    ({"first": date(2026, 11, 21)}, 1),
    ({"last": date(2026, 11, 20)}, 2),
]


@pytest.mark.parametrize("is_closed", [False, True])
def test_figures_are_filtered_alike_on_open_and_closed_days(
    stores: Stores, is_closed: bool
) -> None:
    push(stores, NOON)
    push(stores, NOON + MINUTE, repository="team/app", actor="", user_agent="Helm/3")
    push(stores, NOON + DAY, repository="ubuntu")
    now = NOON + 3 * DAY
    if is_closed:
        close_days(stores, now)

    assert [(query, pushes(stores, now, **query)) for query, _ in QUERIES] == QUERIES


def test_an_account_counts_only_what_it_may_see(stores: Stores) -> None:
    push(stores, NOON)
    push(stores, NOON, repository="ops/app")
    now = NOON + 3 * DAY
    acl = [{"seq": 1, "match": {"name": "ops/*", "account": "bob"}, "actions": ["pull"]}]
    query = UsageQuery(first=date(2026, 1, 1), last=date(2027, 1, 1))

    for _ in range(2):
        seen = {
            name: {
                row.repository
                for row in stores.usage.read(
                    query, stores.catalogue.find_scope(rule(name, acl)), now
                ).rows
            }
            for name in ("admin", "bob", "mallory")
        }
        assert seen == {"admin": {"team/app", "ops/app"}, "bob": {"ops/app"}, "mallory": set()}
        close_days(stores, now)


def test_only_one_holds_a_lease_until_it_is_over_or_given_back(stores: Stores) -> None:
    now = NOON
    take = stores.leases.take

    assert take("usage", "a", now)
    assert not take("usage", "b", now)
    assert take("usage", "a", now + MINUTE)
    assert not take("usage", "b", now + 5 * MINUTE)
    assert take("usage", "b", now + 7 * MINUTE)
    stores.leases.give_back("usage", "b")
    assert take("usage", "a", now + 7 * MINUTE)
