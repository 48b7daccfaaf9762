"""`rns migrate`: a module per subject; each adds its commands to the group."""

from app.cli.migrate import compare, show, steer, work
from app.cli.migrate.shared import migrate

__all__ = ["compare", "migrate", "show", "steer", "work"]
