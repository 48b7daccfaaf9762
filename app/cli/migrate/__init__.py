"""`rns migrate`: a module per subject; each adds its commands to the group."""

from app.cli.migrate import attended, compare, show, steer, work
from app.cli.migrate.shared import migrate

__all__ = ["attended", "compare", "migrate", "show", "steer", "work"]
