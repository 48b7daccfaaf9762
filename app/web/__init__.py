"""Everything HTTP: blueprints, error pages, security headers."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from flask import Flask, Response, current_app, redirect, render_template, request, url_for
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_wtf.csrf import CSRFProtect
from itsdangerous import SignatureExpired, TimestampSigner, URLSafeTimedSerializer
from werkzeug.exceptions import BadHost, BadRequest, HTTPException, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from app.errors import (
    AccountsUnavailable,
    AppError,
    InvalidQuery,
    NotAuthenticated,
    NotFound,
    NotReady,
    StoreUnavailable,
    Throttled,
)
from app.logs import Complaints, request_id
from app.migration import load_plans
from app.notifications.intake import Intake
from app.notifications.meter import Meter
from app.notifications.watch import Watch
from app.registry.token_server import TokenServer
from app.settings import Settings
from app.store import Stores
from app.web import (
    access,
    account,
    analysis,
    api,
    details,
    display,
    find,
    health,
    languages,
    lists,
    metrics,
    migration,
    notifications,
    preferences,
    registries,
    search,
    signin,
    wiring,
)
from app.web.base_path import BasePath
from app.web.client import ClientAddress
from app.web.credentials import Request, has_authorization
from app.web.runtime import Runtime, json_response, runtime, wants_json

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
CLOCKS_APART = timedelta(minutes=1)  # of servers that take each other's sessions
SIGN_IN_SHARE = 4  # one thread in so many may look at a password: that is what costs the most
STATIC_MAX_AGE_S = 365 * 24 * 3600  # of a file whose address changes with it

OPEN = (notifications.bp.name, health.bp.name, metrics.bp.name)  # to programs, at any time

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


class _Signer(TimestampSigner):
    """Takes what a server signed whose clock is a little ahead, too."""

    def unsign(self, signed_value: Any, max_age: Any = None, return_timestamp: Any = False) -> Any:
        try:
            return super().unsign(signed_value, max_age, return_timestamp)
        except SignatureExpired as error:
            now = datetime.now(UTC)
            if not error.date_signed or not now < error.date_signed <= now + CLOCKS_APART:
                raise
            return super().unsign(signed_value, None, return_timestamp)


class _Sessions(SecureCookieSessionInterface):
    """Cookies that are Secure exactly when the request came over https; none with static files."""

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        """As Flask's, for several servers: each answer has a new cookie, signed by their clocks."""
        found = super().get_signing_serializer(app)
        if found:
            found.signer = _Signer
        return found

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root or "/"

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Renew the cookie, which also says that the answer depends on it."""
        if request.endpoint != "static":
            super().save_session(app, session, response)


def init_app(app: Flask, settings: Settings, stores: Stores) -> None:
    """Put the web layer on an application."""
    plans = load_plans(settings)
    intake = Intake(stores, settings.notifications.max_inbox_bytes)
    there = settings.docker_auth
    token_server = (
        TokenServer(there.token_url, there.service, there.ca_file) if there.token_url else None
    )
    places = BoundedSemaphore(max(1, settings.server.threads // SIGN_IN_SHARE))
    app.extensions["rns"] = Runtime(
        settings,
        stores,
        intake,
        Watch(stores.wiring),
        plans,
        Meter([registry.name for registry in settings.registries]),
        places,
        Complaints(),
        token_server,
    )
    app.request_class = Request
    app.session_interface = _Sessions()
    proxies = settings.server.trusted_proxies
    if proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=0, x_proto=proxies, x_host=proxies
        )
    app.wsgi_app = BasePath(  # type: ignore[method-assign]
        app.wsgi_app, settings.server.base_path, proxies
    )
    app.wsgi_app = ClientAddress(app.wsgi_app, proxies)  # type: ignore[method-assign]
    app.before_request(_name_request)
    app.before_request(_refuse_host)
    app.before_request(notifications.refuse_elsewhere)
    csrf = CSRFProtect(app)
    csrf.exempt(notifications.bp)
    csrf.exempt(api.bp)  # it refuses forgery itself, and lets programs in
    for blueprint in (
        notifications.bp,
        health.bp,
        metrics.bp,
        signin.bp,
        search.bp,
        find.bp,
        analysis.bp,
        details.bp,
        migration.bp,
        access.bp,
        account.bp,
        preferences.bp,
        registries.bp,
        wiring.bp,
        api.bp,
        api.page_bp,
    ):
        app.register_blueprint(blueprint)
    languages.init_app(app)
    display.init_app(app)
    app.jinja_env.globals["empty_case"] = wiring.empty_case
    app.config["ASSETS"] = _fingerprint(Path(app.static_folder or ""))
    app.url_defaults(_name_version)
    app.register_error_handler(AppError, _app_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)
    app.before_request(_check_host)
    app.before_request(_check_schema)
    app.after_request(_secure)
    app.teardown_request(_forget_request)


@cache
def _fingerprint(folder: Path) -> str:
    """A word that changes with any file of the folder."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def _name_version(endpoint: str, values: dict[str, Any]) -> None:
    """Put the fingerprint into the addresses of static files, so that they can be kept for long."""
    if endpoint == "static":
        values["v"] = current_app.config["ASSETS"]


def _name_request() -> None:
    """Give what is logged of this request its id: the one that came with it, or a new one."""
    given = request.headers.get("X-Request-Id", "")
    request_id.set(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))


def _forget_request(error: BaseException | None = None) -> None:
    """The thread may do something else next."""
    request_id.set("")


_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _refuse_host() -> Response | None:
    """Answer a Host that can be no name of one: under it, a page has no address of anything."""
    if isinstance(request.routing_exception, BadHost):
        return Response("Host: this is no name of a host.\n", 400, mimetype="text/plain")
    return None


def _check_host() -> None:
    """Refuse a Host that is not in `server.hosts`.

    Registries and probes name this server as they like: an event that is refused would block all
    later ones, and a token is what lets them in.
    """
    hosts = [host.lower() for host in runtime().settings.server.hosts]
    if hosts and request.blueprint not in OPEN and not host_is_trusted(request.host.lower(), hosts):
        raise BadRequest("Host: not one of server.hosts in config.yml.")


def _check_schema() -> None:
    """Show nothing of a database that is still brought forward: a list would be a part of it."""
    if request.blueprint in OPEN or request.endpoint == "static":
        return
    try:
        wait = runtime().stores.schema.find_wait()
    except StoreUnavailable:
        return  # what asks the database says so itself
    if wait:
        raise NotReady(f"Not ready: {wait}. Events are taken in meanwhile; nothing is lost.")


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = request_id.get()
    languages.name_language(response)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if request.endpoint != "static" or response.status_code >= 400:
        response.headers.setdefault("Cache-Control", "no-store")
    elif request.args.get("v") == current_app.config["ASSETS"]:
        response.headers["Cache-Control"] = f"public, max-age={STATIC_MAX_AGE_S}, immutable"
    return response


def _app_error(error: AppError) -> Response:
    if isinstance(error, StoreUnavailable):
        if not isinstance(error, NotReady):
            runtime().complaints.tell(logger, f"{request.method} {request.path}", error)
        told = {"code": error.code}
        return _failure(503, _say_unavailable(error), {"Retry-After": str(RETRY_AFTER_S)}, told)
    if isinstance(error, NotFound) and signin.is_anonymous():
        error = NotAuthenticated(signin.SIGN_IN)  # the account may see it, if it exists
    is_program = wants_json() or lists.asks_for_file() or has_authorization()
    is_browser = request.method in ("GET", "HEAD") and not is_program
    if isinstance(error, NotAuthenticated) and is_browser:
        return redirect(url_for("signin.login", next=_this_path()))  # type: ignore[return-value]
    headers: dict[str, str] = {}
    if isinstance(error, NotAuthenticated) and is_program:
        headers["WWW-Authenticate"] = 'Basic realm="registry account", charset="UTF-8"'
    if isinstance(error, Throttled):
        headers["Retry-After"] = str(error.retry_after_s)
    told = {"code": error.code}
    if isinstance(error, InvalidQuery) and error.field:
        told["field"] = error.field
    return _failure(error.status, str(error), headers, told)


def _this_path() -> str:
    return f"{request.script_root}{request.full_path}".rstrip("?")


def _say_unavailable(error: StoreUnavailable) -> str:
    """What went wrong, for somebody who may be anybody."""
    if isinstance(error, AccountsUnavailable):
        return "Nobody can sign in just now; the log of the server says why."
    if isinstance(error, NotReady):
        return str(error)
    return "Nothing can be stored or read just now. Nothing was lost; try again in a moment."


def _http_error(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:
        return error.get_response()  # type: ignore[return-value]
    headers = {
        name: value
        for name, value in error.get_headers()
        if name in ("Allow", "Retry-After", "WWW-Authenticate")
    }
    if request.endpoint is None and not wants_json():
        with suppress(AppError):
            signin.visitor()  # no view has asked yet who it is, and the head of the page says so
    message = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        message = "The body is larger than it may be."
        if request.blueprint == notifications.bp.name:
            message = "The body is larger than notifications.max_body_bytes."
    return _failure(error.code, message, headers, {"code": error.name.lower().replace(" ", "_")})


def _unexpected_error(error: Exception) -> Response:
    logger.exception("%s %s failed", request.method, request.path, exc_info=error)
    return _failure(
        500,
        "Something went wrong here; the log of the server says what.",
        {},
        {"code": AppError.code},
    )


def _failure(status: int, message: str, headers: dict[str, Any], told: dict[str, str]) -> Response:
    """The page of an error, or to programs a problem (RFC 9457) with what is `told` besides."""
    if wants_json():
        title = HTTP_STATUS_CODES.get(status, "Error")
        problem = {"type": "about:blank", "title": title, "status": status, "detail": message}
        response = json_response({**problem, **told}, status)
        response.mimetype = "application/problem+json"
    else:
        page = render_template("error.html", status=status, message=message)
        response = Response(page, status)
    response.headers.update(headers)
    return response
