"""The two registries of a plan, connected."""

from __future__ import annotations

import msgspec

from app.migration.plan import Plan
from app.registry import RegistryClient


class Sides(msgspec.Struct, frozen=True):
    """A plan, and a client of each of the registries that it leads from and to."""

    plan: Plan
    source: RegistryClient
    target: RegistryClient
