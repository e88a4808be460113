"""Why a request is not answered: an HTTP status with one line for the client."""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.plugin import UserError

BAD, UNAUTHORIZED, NOT_FOUND, NOT_ALLOWED, TOO_SLOW, TOO_LARGE, UNREADABLE, TOO_MANY = (
    400, 401, 404, 405, 408, 413, 415, 429,
)  # fmt: skip
CLIENT_GONE = 499  # that no client sees: what the log calls a request whose client went away, as nginx does
FAULT, NOT_READY, TIMED_OUT = 500, 503, 504


class Refused(UserError):
    """A request that is answered with an error."""

    def __init__(self, status: int, cause: str, cure: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(cause, cure)
        self.status, self.headers = status, dict(headers or {})


class ClientGone(Exception):
    """Nobody waits for the answer any more."""
