"""uvicorn's connections, with a limit of time for a request's headers, which uvicorn has not: it closes what is idle
after an answer alone."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from bertkit_serve.logs import logger


class TimedConnection(H11Protocol):
    """Closed where a request's headers are not complete in time, however slowly they come."""

    seconds = 30.0
    until: asyncio.TimerHandle | None = None
    begun = False  # whether some of a request's headers have come

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.until = self.loop.call_later(self.seconds, self._too_slow)

    def data_received(self, data: bytes) -> None:
        self.begun = True
        if self.until is None and self.conn.their_state is h11.IDLE:  # the next request of this connection
            self.until = self.loop.call_later(self.seconds, self._too_slow)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        self.begun = False
        if self.until is not None:
            self.until.cancel()
            self.until = None

    def _too_slow(self) -> None:
        if self.begun:
            logger.info("a connection was closed: its headers were not complete after %g s", self.seconds)
        self.transport.close()


def timed(seconds: float) -> type[H11Protocol]:
    """The class of connections with this limit."""
    return type("TimedConnection", (TimedConnection,), {"seconds": seconds})
