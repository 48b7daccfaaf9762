"""The edge at which pymongo's errors become ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bson.errors import InvalidBSON
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from app.errors import StoreUnavailable

DUPLICATE_KEY = 11000

Class = TypeVar("Class", bound=type)


def translate_errors(cls: Class) -> Class:
    """Make every public method of a class raise StoreUnavailable where pymongo raised its own.

    A document that pymongo cannot read is no answer either.
    """
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, _translated(method))
    return cls


def _translated(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def translated(*args: Any, **kwargs: Any) -> Any:
        try:
            result = method(*args, **kwargs)
        except (PyMongoError, InvalidBSON) as error:
            raise _unavailable(error) from error
        return _translated_iterator(result) if inspect.isgenerator(result) else result

    return translated


def _translated_iterator(iterator: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from iterator
    except (PyMongoError, InvalidBSON) as error:
        raise _unavailable(error) from error


def _unavailable(error: PyMongoError | InvalidBSON) -> StoreUnavailable:
    # Messages of pymongo name hosts, never credentials; the first line is what an operator needs,
    # without what pymongo adds: the whole answer, or its picture of all servers.
    reason = next(iter(str(error).splitlines()), "")
    for added in (", full error: ", ", Topology Description: "):
        reason = reason.partition(added)[0]
    is_answer = isinstance(error, OperationFailure) and not error.timeout
    what = "refuses" if is_answer else "does not answer"
    return StoreUnavailable(f"the database {what}: {type(error).__name__}: {reason[:200]}")


def only_duplicates(error: BulkWriteError) -> list[int]:
    """The indexes of the writes refused as duplicates; raises `error` again if any other failed."""
    failures = error.details.get("writeErrors", [])
    if error.details.get("writeConcernErrors"):
        raise error
    if any(failure.get("code") != DUPLICATE_KEY for failure in failures):
        raise error
    return [failure["index"] for failure in failures]
