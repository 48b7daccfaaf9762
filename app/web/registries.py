"""The registries, for administrators: what the last check of each found, and lost events."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, render_template

from app.settings import Registry
from app.store.checks import Check, Difference, Gap
from app.web.runtime import runtime
from app.web.signin import administrator

bp = Blueprint("registries", __name__, url_prefix="/registries")

SHOWN = 100  # differences of a registry


class Checked(msgspec.Struct, frozen=True):
    """One registry as the page shows it; `open_gaps` are those behind which no check looked."""

    registry: Registry
    check: Check | None
    differences: list[Difference]
    gaps: list[Gap]
    open_gaps: list[Gap]


@bp.get("/")
def home() -> Any:
    """Every registry of the configuration. 403 to others."""
    administrator()
    here = runtime()
    checks = here.stores.checks
    found = [
        Checked(
            registry,
            checks.get(registry.name),
            checks.find_differences(registry.name, SHOWN),
            checks.find_gaps(registry.name),
            checks.find_open_gaps(registry.name),
        )
        for registry in here.settings.registries
    ]
    return render_template("registries/home.html", found=found, shown=SHOWN)
