"""Who is one client, how much room there is, and the counts of those who were cut off."""

from __future__ import annotations

import logging
import multiprocessing
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from app.server.cut_off import TELL_EVERY_S, CutOffs
from app.server.hooks import room_for
from app.server.worker import UNLIMITED, source_of
from app.settings import Notifications, Settings

WORKERS = (1, 2, 258)  # the last one has the row of the second


@pytest.fixture
def cut_offs() -> CutOffs:
    return CutOffs()


def test_workers_count_together_and_the_counts_outlive_them(cut_offs: CutOffs) -> None:
    def count(worker: int) -> None:
        for _ in range(100):
            cut_offs.add(worker, "silent", "10.0.0.1")
        cut_offs.add(worker, "full", "10.0.0.1")

    for worker in WORKERS:
        process = multiprocessing.get_context("fork").Process(target=count, args=(worker,))
        process.start()
        process.join()

    totals = cut_offs.totals()
    assert (totals["silent"], totals["full"], totals["body"]) == (300, 3, 0)


def test_the_log_is_told_once_a_minute_what_is_new(
    cut_offs: CutOffs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("app.server.cut_off.time", Mock(monotonic=lambda: now))
    caplog.set_level(logging.WARNING)

    cut_offs.tell()
    cut_offs.add(1, "silent", "10.0.0.1")
    cut_offs.tell()
    cut_offs.add(2, "silent", "2001:db8::/64")
    cut_offs.add(1, "body", "10.0.0.2\n")
    cut_offs.tell()
    now += TELL_EVERY_S
    cut_offs.tell()
    now += TELL_EVERY_S
    cut_offs.tell()
    cut_offs.add(1, "header", "")
    cut_offs.tell()

    assert [record.getMessage() for record in caplog.records] == [
        "connections cut off: 1 silent; the last one from 10.0.0.1",
        "connections cut off: 1 silent, 1 body; the last one from 10.0.0.2\n",
        "connections cut off: 1 header; the last one from a Unix socket",
    ]


@pytest.mark.parametrize(
    ("client", "source"),
    [
        (("192.0.2.7", 4711), "192.0.2.7"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3::4", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        (("127.0.0.1", 4711), "127.0.0.1"),
        (("::ffff:127.0.0.1", 4711, 0, 0), "127.0.0.1"),
        (("::1", 4711, 0, 0), "::1"),
        ("", ""),
    ],
    ids=str,
)
def test_what_counts_as_one_address(client: Any, source: str) -> None:
    assert source_of(client) == source
    assert (source in UNLIMITED) == (source in ("127.0.0.1", "::1", ""))


def test_behind_proxies_no_address_has_a_limit_for_all_have_the_same(settings: Settings) -> None:
    server = msgspec.structs.replace(settings.server, trusted_proxies=1)

    assert room_for(settings).of_address == 200
    assert room_for(msgspec.structs.replace(settings, server=server)).of_address is None


def test_the_largest_body_that_is_allowed_fits_into_memory(settings: Settings) -> None:
    large = Notifications(max_body_bytes=256 * 1024 * 1024)
    room = room_for(msgspec.structs.replace(settings, notifications=large))

    assert room.limits.max_body_bytes == large.max_body_bytes
    assert room.held_bytes >= 2 * large.max_body_bytes
