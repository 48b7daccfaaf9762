"""Everything of one registry to another while pushes go on.

A job is level-triggered: "make this reference at the target what it is at the source now". Events
and crawls only say which references to look at. Bytes are never written anew.
"""

from app.migration.plan import Plan, load_plans

__all__ = ["Plan", "load_plans"]
