"""Everything of one registry to another while pushes go on. Makes no Flask import.

The design: a job is level-triggered ("make this reference at the target what it is at the source
now"), events and crawls only say which references to look at, and bytes are never written anew.
"""

from app.migration.plan import Plan, load_plans

__all__ = ["Plan", "load_plans"]
