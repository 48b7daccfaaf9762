"""What of the server itself is said to be wrong, by `rns check` and the page Wiring."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from app.notifications.wiring import find_wiring
from app.settings import Notifications, Registry, Server, Settings
from app.store import Stores
from app.store.inbox import Progress


def test_a_full_inbox_is_told_as_what_refuses_events(
    mock_stores: Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    mock_stores.inbox.note_progress(Progress(until=now - timedelta(minutes=1)))
    monkeypatch.setattr(type(mock_stores.inbox), "size", lambda _: 2**40)

    [problem] = find_wiring(mock_stores, settings, now).problems

    assert problem.startswith("events are refused: the inbox is full")


def test_a_registry_without_a_token_behind_a_proxy_is_told_as_open_to_whoever_reaches_that(
    mock_stores: Stores, settings: Settings
) -> None:
    def problems(**changes: Any) -> list[str]:
        changed = msgspec.structs.replace(settings, **changes)
        return find_wiring(mock_stores, changed, datetime.now(UTC)).problems

    proxied, without = Server(trusted_proxies=1), [Registry(name="dc1"), Registry(name="dc2")]

    assert problems(server=proxied) == []
    assert problems(registries=without) == []
    meant = Notifications(allow_anonymous=True)
    assert problems(server=proxied, registries=without, notifications=meant) == []
    assert problems(server=proxied, registries=without) == [
        "whoever reaches the proxy in front can send events as dc1, which has no token"
    ]
