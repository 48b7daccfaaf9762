"""Fixtures that several files of tests of migrations share."""

from test_migration_jobs import make

__all__ = ["make"]
