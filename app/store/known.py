"""What the one process that writes remembers of what it wrote."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

MAX_KNOWN = 20_000


class Known(Generic[Key, Value]):
    """The values used last, at most MAX_KNOWN of them."""

    def __init__(self) -> None:
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value, or None where it is not remembered."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Remember a value, in place of the one that was used longest ago."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > MAX_KNOWN:
            self._values.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Remember this one no longer."""
        self._values.pop(key, None)

    def forget(self) -> None:
        """Remember nothing."""
        self._values.clear()
