"""Every error this program raises on purpose.

AppError                        never raised directly
├─ ConfigError                  start-up only; the message begins with the key's path
├─ StartupError                 port taken, data directory in use, no space, a newer database
├─ InvalidReference             400
├─ InvalidEvent                 one event is not understood: quarantined, never an HTTP error
├─ InvalidEnvelope              400
├─ InvalidQuery                 400; names the field and the fix
│  ├─ UnknownParameter
│  └─ InvalidCursor
├─ NotAuthenticated             401
├─ NotAuthorized                403
├─ NotFound                     404
├─ IllegalState                 409; names the state and what would have to come first
├─ Throttled                    429; says when to try again
├─ StoreUnavailable             503; transient; raised by app.store, and app.embedded for space
│  ├─ NotReady                  503; the database is brought to this program's schema
│  └─ AccountsUnavailable       503; whoever knows the accounts does not tell
└─ RegistryError                raised by app.registry; `error_class` tells what happened there

Lower layers raise; only the web layer's handlers and the command line catch.
"""

from __future__ import annotations

import re


class AppError(Exception):
    """Base of all errors; `status` is the HTTP status and `transient` says whether to try again.

    `code` is a word for each kind of error, for programs.
    """

    status = 500
    transient = False
    code = "internal"


class ConfigError(AppError):
    """A setting is wrong; the message names its path, as in `server.workers: …`."""


class StartupError(AppError):
    """The server cannot start for a reason outside its configuration."""


class InvalidReference(AppError):
    """A repository name, tag or digest that the OCI grammar does not allow."""

    status = 400
    code = "invalid_reference"


class InvalidEvent(AppError):
    """One event cannot be understood; the message is the reason kept with the rejected event."""

    status = 400
    code = "invalid_event"


class InvalidEnvelope(AppError):
    """A request body that is not a JSON notification envelope."""

    status = 400
    code = "invalid_envelope"


class InvalidQuery(AppError):
    """A filter, cursor or page size that cannot be used; the message begins with the field."""

    status = 400
    code = "invalid_value"

    @property
    def field(self) -> str | None:
        """The parameter that is wrong, if the message names one."""
        match = re.match(r"([A-Za-z_-]{1,40}): ", str(self))
        return match[1] if match else None


class UnknownParameter(InvalidQuery):
    """A parameter that does not exist; the message names those that do."""

    code = "unknown_parameter"


class InvalidCursor(InvalidQuery):
    """A cursor that no page of this list gave."""

    code = "invalid_cursor"


class NotAuthenticated(AppError):
    """No or wrong credentials."""

    status = 401
    code = "not_authenticated"


class NotAuthorized(AppError):
    """Signed in, but not allowed to do this."""

    status = 403
    code = "not_authorized"


class NotFound(AppError):
    """Does not exist, or may not be seen: the two are never told apart."""

    status = 404
    code = "not_found"


class IllegalState(AppError):
    """Not possible in the state that things are in; the message says what would be first."""

    status = 409
    code = "illegal_state"


class Throttled(AppError):
    """Too many attempts; `retry_after_s` seconds from now there is another one."""

    status = 429
    code = "throttled"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreUnavailable(AppError):
    """The database is away, too slow or refuses writes; the sender should try again."""

    status = 503
    code = "unavailable"
    transient = True


class InboxFull(StoreUnavailable):
    """More waits to be worked in than notifications.max_inbox_bytes; what comes is refused."""


class NotReady(StoreUnavailable):
    """The database is brought to this program's schema; the message says how far that is."""

    code = "not_ready"


class AccountsUnavailable(StoreUnavailable):
    """Nobody can sign in: the file with the accounts, or docker_auth's token server, does not tell.

    Names it, for the log only.
    """
