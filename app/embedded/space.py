"""The disk must not fill up: WiredTiger panics on a full one."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.errors import StoreUnavailable
from app.settings import Settings

MIN_FREE_BYTES = 500 * 1000 * 1000


def refuse_without_space(settings: Settings) -> None:
    """Raise StoreUnavailable where a new event could fill the disk of the embedded database."""
    if not settings.is_embedded:
        return
    data_dir = settings.mongodb.data_dir
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError as error:
        raise StoreUnavailable(f"{data_dir}: {error.strerror}") from None
    if free < MIN_FREE_BYTES:
        raise StoreUnavailable(f"{data_dir}: only {free // 2**20} MB of disk are free")


def free_bytes(settings: Settings) -> int | None:
    """The free disk of the embedded database; None of another one, and where nobody can tell."""
    if not settings.is_embedded:
        return None
    try:
        return shutil.disk_usage(settings.mongodb.data_dir).free
    except OSError:
        return None


def shortage(data_dir: Path) -> str:
    """How short space is, or nothing if it is not; a disk that cannot be asked has none."""
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError:
        free = 0
    if free >= MIN_FREE_BYTES:
        return ""
    return (
        f"data_dir {data_dir} has {free // 10**6} MB of free space "
        f"and needs {MIN_FREE_BYTES // 10**6} MB"
    )
