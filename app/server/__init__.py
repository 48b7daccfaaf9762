"""gunicorn's configuration: `rns serve` and plain `gunicorn wsgi:app` both read this.

With `mongodb.uri: embedded` the master starts the database before the workers and stops it after
them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.logs import logging_config
from app.server.connection import Limits
from app.server.hooks import Hooks
from app.server.listening import check_port
from app.settings import Settings, load_settings

CONNECTIONS = 800  # of a process, which may open 1,024 files where nobody raised that

__all__ = ["check_port", "configure", "gunicorn_settings"]


def configure(namespace: dict[str, Any]) -> None:
    """Fill the namespace of a gunicorn configuration file; exits with one line if it cannot."""
    try:
        settings = load_settings()
    except ConfigError as error:
        print(f"rns: {error}", file=sys.stderr)
        sys.exit(1)
    hooks = Hooks(settings)
    namespace.update(gunicorn_settings(settings))
    namespace.update(
        on_starting=hooks.on_starting,
        when_ready=hooks.when_ready,
        post_fork=hooks.post_fork,
        post_worker_init=hooks.post_worker_init,
        worker_exit=hooks.worker_exit,
        on_exit=hooks.on_exit,
    )


def gunicorn_settings(settings: Settings) -> dict[str, Any]:
    """What gunicorn needs to know, by its own setting names."""
    return {
        "bind": [settings.server.bind],
        "worker_class": "app.server.worker.Worker",
        "workers": settings.server.workers,
        "threads": settings.server.threads,
        "worker_connections": CONNECTIONS,
        "keepalive": int(Limits.idle_s),
        "sendfile": False,  # an answer is sent by the poller, not by the kernel at one go
        "timeout": 60,
        "graceful_timeout": 20,
        "certfile": settings.server.tls.certificate or None,
        "keyfile": settings.server.tls.private_key or None,
        "control_socket_disable": True,
        "preload_app": False,  # a MongoClient must not cross the fork
        "forwarded_allow_ips": "",  # X-Forwarded-* is read by the application alone
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - in memory
        "logconfig_dict": logging_config(settings.log.format, settings.log.level),
    }
