"""Registry Notification Server: the application factory, the only composition root."""

from __future__ import annotations

import os
import secrets
import tempfile
from datetime import timedelta
from pathlib import Path

from flask import Flask

from app.errors import ConfigError
from app.settings import Settings, load_settings
from app.store import Stores, connect

SESSION_IDLE = timedelta(hours=8)
MAX_FORM_BYTES = 64 * 1024  # anybody may send one, and of 4 MB it takes seconds to read


def create_app(settings: Settings | None = None, stores: Stores | None = None) -> Flask:
    """Build the application; without arguments from config.yml and the environment.

    Raises:
        ConfigError, StartupError: the configuration cannot work.
    """
    from app import web

    settings = settings or load_settings()
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=settings.server.secret_key or kept_secret_key(Path(settings.mongodb.data_dir)),
        MAX_CONTENT_LENGTH=MAX_FORM_BYTES,  # of POST /events: notifications.max_body_bytes
        PERMANENT_SESSION_LIFETIME=SESSION_IDLE,
        SESSION_COOKIE_NAME="rns_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_TIME_LIMIT=None,
    )
    web.init_app(app, settings, stores or connect(settings))
    return app


def kept_secret_key(data_dir: Path) -> str:
    """The key in `data_dir`, made by the first process that asks; mode 0600.

    Raises:
        ConfigError: it cannot be made or read, or is empty.
    """
    file = data_dir / "secret_key"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            descriptor, name = tempfile.mkstemp(dir=data_dir)  # mode 0600
            with os.fdopen(descriptor, "w") as handle:
                handle.write(secrets.token_urlsafe(32))
                handle.flush()
                os.fsync(descriptor)  # or a power cut could leave an empty file of that name
            try:
                os.link(name, file)  # unlike a rename, never replaces another process's key
            except FileExistsError:
                pass
            finally:
                os.unlink(name)
        key = file.read_text()
    except OSError as error:
        raise ConfigError(
            f"server.secret_key: none is set, and none can be kept in {data_dir}: {error.strerror}"
        ) from None
    if not key.strip():
        raise ConfigError(f"server.secret_key: {file} is empty; remove it to have one made anew")
    return key
