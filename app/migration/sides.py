"""The two registries of a plan, connected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from app.migration.plan import Plan
from app.migration.platforms import PlatformSource
from app.registry import Endpoint, OciFolder, RegistryClient
from app.registry.folder import SCHEME

Connect = Callable[..., RegistryClient]


class Sides(msgspec.Struct, frozen=True):
    """A plan, and a client of each of the registries that it leads from and to."""

    plan: Plan
    source: RegistryClient
    target: RegistryClient


def connect_source(plan: Plan, connect: Connect = RegistryClient, **hooks: Any) -> RegistryClient:
    """A client of a plan's source, as far as the plan takes what is there."""
    source = _connect(plan.source, connect, hooks)
    return PlatformSource(source, plan.platforms) if plan.platforms else source


def connect_target(plan: Plan, connect: Connect = RegistryClient, **hooks: Any) -> RegistryClient:
    """A client of a plan's target."""
    return _connect(plan.target, connect, hooks)


def _connect(endpoint: Endpoint, connect: Connect, hooks: dict[str, Any]) -> RegistryClient:
    if endpoint.url.startswith(SCHEME):
        return OciFolder(Path(endpoint.url.removeprefix(SCHEME)))
    return connect(endpoint, **hooks)
