"""Fixtures that several files of tests of the registry client share."""

from test_registry_client import fake, make_client, make_fake

__all__ = ["fake", "make_client", "make_fake"]
