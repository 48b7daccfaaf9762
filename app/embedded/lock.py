"""The lock that says whose a data directory is."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from threading import Event

from app.errors import StartupError

LOCK_WAIT_S = 6.0  # a server that is just stopping needs up to 4 s
LOCK_SERVED_S = 0.5  # where a database answers: its server is not stopping

_locks: set[int] = set()  # descriptors


def _close_locks_in_fork() -> None:
    """A gunicorn worker that outlives its master must not keep the directory locked."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_close_locks_in_fork)


def take_lock(data_dir: Path, stopping: Event, *, is_served: bool = False) -> int:
    """Lock the directory until this process and the child, which inherits it, are gone.

    `is_served` is whether a database answers there.
    """
    lock = os.open(data_dir / "embedded.lock", os.O_RDWR | os.O_CREAT, 0o600)
    _locks.add(lock)
    deadline = time.monotonic() + (LOCK_SERVED_S if is_served else LOCK_WAIT_S)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if isinstance(error, BlockingIOError) and time.monotonic() < deadline:
                stopping.wait(0.1)
                continue
            holder = os.pread(lock, 100, 0).decode("ascii", "replace")
            _locks.discard(lock)
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            raise in_use(data_dir, holder) from None


def release_lock(lock: int) -> None:
    """Leave the directory to others, once the child is gone too."""
    _locks.discard(lock)
    os.close(lock)


def in_use(data_dir: Path, holder: str) -> StartupError:
    """What a start is refused with; `holder` is what is written in the lock, if anything."""
    who = f" ({holder.splitlines()[0]})" if holder else ""
    return StartupError(f"data_dir {data_dir} is in use by another server or rns command{who}")
