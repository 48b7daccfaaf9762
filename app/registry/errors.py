"""What can go wrong between us and a registry: one exception, told apart by `error_class`.

Source: distribution's docs "HTTP API V2", "Errors"; the codes of other registries where noted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec

from app.errors import AppError
from app.rules.text import clean_text

ErrorClass = Literal[
    "gone",  # no such manifest or repository
    "blob_unknown",  # no such blob, or a manifest that names one which is not there
    "auth",  # credentials are missing or wrong
    "realm",  # the registry sends us for a token to where our credentials may not go
    "forbidden",  # the account may not do this
    "rate_limited",
    "down",  # no connection, no answer in time, or a gateway that says so
    "tls",
    "server",  # the registry failed, or lost an upload
    "disk_full",
    "readonly",
    "too_large",
    "immutable",  # the tag exists and may not be moved
    "digest_mismatch",  # content is not what its digest or size says
    "unsupported",  # the registry does not know this request or this content
]
TRANSIENT: set[ErrorClass] = {"rate_limited", "down", "server", "disk_full", "blob_unknown"}
# What ails the endpoint and not this one image or repository.
OF_ENDPOINT: set[ErrorClass] = {"down", "auth", "realm", "tls", "disk_full", "readonly"}

Subject = Literal["manifest", "blob", "upload", "api"]  # what a request was about

MAX_RETRY_AFTER_S = 86_400.0
MAX_MESSAGE_LENGTH = 300  # characters taken over from a registry's answer
MAX_NAMED = 3  # blobs that are missing, beside the first
WRITES = ("POST", "PUT", "PATCH")

# distribution hands through what the file system said: its words, or its number (ENOSPC, EDQUOT).
_DISK_FULL = re.compile(rb'no space left|quota exceeded|"Err":(?:28|122)\b')
# Go, nginx, Apache.
_SPEAKS_TLS = re.compile(
    rb"HTTP request to an HTTPS server|HTTP request was sent to HTTPS|plain HTTP to an SSL-enabled"
)
DAMAGED = "the registry lost it or keeps something else: push it anew"
_ADVICE: Mapping[ErrorClass, str] = {
    "blob_unknown": DAMAGED,
    "digest_mismatch": DAMAGED,
    "auth": "check user name and password",
    "tls": "it speaks TLS: write https:// and leave out plain_http",
    "forbidden": "give the account the right to do this",
    "rate_limited": "lower limits.requests_per_s or wait",
    "disk_full": "free space at the registry",
    "readonly": "the registry is read-only: switch that off",
    "too_large": "raise the body size limit of the registry's proxy",
    "immutable": "the registry does not let this tag move",
}
_BY_CODE: Mapping[str, ErrorClass] = {
    "TOOMANYREQUESTS": "rate_limited",
    "MANIFEST_BLOB_UNKNOWN": "blob_unknown",
    "BLOB_UNKNOWN": "blob_unknown",
    "DIGEST_INVALID": "digest_mismatch",
    "SIZE_INVALID": "digest_mismatch",
    "BLOB_UPLOAD_UNKNOWN": "server",
    "BLOB_UPLOAD_INVALID": "server",
}
_BY_STATUS: Mapping[int, ErrorClass] = {
    401: "auth",
    403: "forbidden",
    408: "down",
    409: "immutable",
    410: "gone",
    412: "immutable",  # Harbor's immutable tags
    413: "too_large",
    416: "server",  # the upload is at another offset than we are
    429: "rate_limited",
    502: "down",
    503: "down",
    504: "down",
    507: "disk_full",
}


class RegistryError(AppError):
    """A request to a registry failed; the message says which, why, and what to do.

    `registry` is the endpoint's URL. `status` is the one that the registry answered with, 0 when
    there was no answer, and `code` the first error code of its body, or "". `retry_after` is the
    seconds that it asks to wait, if it does. No credential is ever in here.
    """

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        registry: str = "",
        status: int = 0,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.registry = registry
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.transient = error_class in TRANSIENT


class _Entry(msgspec.Struct):
    code: str = ""
    message: str = ""
    detail: Any = None


class _Body(msgspec.Struct):
    errors: list[_Entry]


def error_from_answer(
    registry: str,
    method: str,
    path: str,
    subject: Subject,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    is_known: bool = False,
) -> RegistryError:
    """The error that an answer of the registry stands for. `path` is shown: no query in it.

    `is_known`: the registry knows who we are, and a 401 only says that we may not do this.
    """
    entry, *more = _entries(body)
    error_class = _classify(method, subject, status, entry.code, body)
    if status == 503 and "Retry-After" in headers:
        error_class = "rate_limited"
    if error_class == "auth" and is_known:
        error_class = "forbidden"
    named = [digest for each in (entry, *more[:MAX_NAMED]) if (digest := _digest_in(each))]
    what = " ".join(part for part in (entry.code, entry.message, ", ".join(named)) if part)
    message = (
        f"{registry}: {method} {path}: {status} {clean_text(what, MAX_MESSAGE_LENGTH)}".strip()
    )
    advice = _ADVICE.get(error_class)
    return RegistryError(
        error_class,
        f"{message}; {advice}" if advice else message,
        registry=registry,
        status=status,
        code=clean_text(entry.code, MAX_MESSAGE_LENGTH),
        retry_after=parse_retry_after(headers.get("Retry-After", "")),
    )


def _entries(body: bytes) -> list[_Entry]:
    """The errors of an answer, at least one."""
    try:
        errors = msgspec.json.decode(body, type=_Body).errors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [_Entry(message=body.decode("utf-8", "replace"))]
    return errors or [_Entry()]


def _digest_in(entry: _Entry) -> str:
    """The blob that an error is about: distribution says it for each that a manifest lacks."""
    if entry.code not in ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"):
        return ""
    detail = entry.detail.get("digest") if isinstance(entry.detail, dict) else entry.detail
    return str(detail) if ":" in str(detail) and len(str(detail)) < 200 else ""


def _classify(method: str, subject: Subject, status: int, code: str, body: bytes) -> ErrorClass:
    if status == 500 and _DISK_FULL.search(body):
        return "disk_full"
    if status == 400 and _SPEAKS_TLS.search(body):
        return "tls"
    if b"ImageTagAlreadyExists" in body:  # ECR
        return "immutable"
    if status == 404:
        return _classify_404(method, subject, code)
    if status == 405:
        is_closed = method in WRITES or (method == "DELETE" and code != "UNSUPPORTED")
        return "readonly" if is_closed else "unsupported"
    by_code = _BY_CODE.get(code) if status < 500 or code == "TOOMANYREQUESTS" else None
    default: ErrorClass = "server" if status >= 500 else "unsupported"
    return by_code or _BY_STATUS.get(status, default)


def _classify_404(method: str, subject: Subject, code: str) -> ErrorClass:
    """Never "gone" where a 404 is no proof that the manifest or repository is not there."""
    if subject == "manifest" and method in WRITES:
        return "unsupported" if code == "NAME_UNKNOWN" else "blob_unknown"
    if subject == "upload":  # ECR wants a repository to be created first
        return "unsupported" if code == "NAME_UNKNOWN" else "server"
    if subject == "blob":
        return "blob_unknown"
    return "gone" if subject == "manifest" or code == "NAME_UNKNOWN" else "unsupported"


def parse_retry_after(text: str, now: datetime | None = None) -> float | None:
    """Seconds to wait, a day at most, out of a Retry-After header; None if it says nothing.

    Source: RFC 9110 section 10.2.3.
    """
    if text.strip().isdecimal():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)
