"""Everything HTTP: blueprints, error pages, security headers."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, redirect, render_template, request, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from app.errors import AppError, NotAuthenticated, NotFound, StoreUnavailable, Throttled
from app.migration import load_plans
from app.notifications.intake import Intake
from app.settings import Settings
from app.store import Stores
from app.web import (
    access,
    analysis,
    api,
    display,
    health,
    lists,
    metrics,
    migration,
    notifications,
    search,
    signin,
)
from app.web.runtime import Runtime, json_response, runtime

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Flask-WTF wants a referrer over https.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class _Sessions(SecureCookieSessionInterface):
    """Cookies that are Secure exactly when the request came over https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def init_app(app: Flask, settings: Settings, stores: Stores) -> None:
    """Put the web layer on an application."""
    plans = load_plans(settings)
    intake = Intake(stores, settings.notifications.max_inbox_bytes)
    app.extensions["rns"] = Runtime(settings, stores, intake, plans)
    app.session_interface = _Sessions()
    if proxies := settings.server.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )
    csrf = CSRFProtect(app)
    csrf.exempt(notifications.bp)
    csrf.exempt(api.bp)  # it refuses forgery itself, and lets programs in
    for blueprint in (
        notifications.bp,
        health.bp,
        metrics.bp,
        signin.bp,
        search.bp,
        analysis.bp,
        migration.bp,
        access.bp,
        api.bp,
    ):
        app.register_blueprint(blueprint)
    display.init_app(app)
    app.register_error_handler(AppError, _app_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)
    app.before_request(_check_host)
    app.after_request(_secure)


def _check_host() -> None:
    """Refuse a Host that is not in `server.hosts`.

    Registries and probes name this server as they like: an event that is refused would block all
    later ones, and a token is what lets them in.
    """
    hosts = runtime().settings.server.hosts
    is_open = request.blueprint in (notifications.bp.name, health.bp.name, metrics.bp.name)
    if hosts and not is_open and not host_is_trusted(request.host, hosts):
        raise BadRequest("Host: not one of server.hosts in config.yml.")


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _app_error(error: AppError) -> Response:
    if isinstance(error, StoreUnavailable):
        logger.error("%s %s: %s", request.method, request.path, error)
        message = "Nothing can be stored or read just now. Nothing was lost; try again in a moment."
        return _failure(503, message, {"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, NotFound) and signin.is_anonymous():
        error = NotAuthenticated(signin.SIGN_IN)  # the account may see it, if it exists
    is_program = _wants_json() or lists.asks_for_file()
    is_browser = request.method == "GET" and not is_program and not request.authorization
    if isinstance(error, NotAuthenticated) and is_browser:
        return redirect(url_for("signin.login", next=request.full_path.rstrip("?")))  # type: ignore[return-value]
    headers: dict[str, str] = {}
    if isinstance(error, NotAuthenticated) and is_program:
        headers["WWW-Authenticate"] = 'Basic realm="registry account", charset="UTF-8"'
    if isinstance(error, Throttled):
        headers["Retry-After"] = str(error.retry_after_s)
    return _failure(error.status, str(error), headers)


def _http_error(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:
        return error.get_response()  # type: ignore[return-value]
    headers = {
        name: value
        for name, value in error.get_headers()
        if name in ("Allow", "Retry-After", "WWW-Authenticate")
    }
    message = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        message = "The body is larger than notifications.max_body_bytes."
    return _failure(error.code, message, headers)


def _unexpected_error(error: Exception) -> Response:
    logger.exception("%s %s failed", request.method, request.path, exc_info=error)
    return _failure(500, "Something went wrong here; the log of the server says what.", {})


def _wants_json() -> bool:
    return request.path.startswith(("/events", "/api/", "/healthz", "/readyz"))


def _failure(status: int, message: str, headers: dict[str, Any]) -> Response:
    if _wants_json():
        response = json_response({"error": message}, status)
    else:
        page = render_template("error.html", status=status, message=message)
        response = Response(page, status)
    response.headers.update(headers)
    return response
