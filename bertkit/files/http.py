"""Requests to one HTTP server over connections that stay open, from several threads at a time.

Python's own client: a request costs a third of what it costs through the usual libraries, and who measures a server's
latency would measure that too (docs/dependencies.md). No redirect is followed, no proxy is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from bertkit.errors import UserError

KEY = "BERTKIT_API_KEY"  # variable with what `bertkit serve` may ask for
LARGEST = 1 << 30  # bytes of a response; more is no answer to what is asked here
STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)  # of a connection that was kept


class Unanswered(UserError):
    """The server cannot be reached, or gives no response in time."""


@dataclass(frozen=True)
class Reply:
    """What a server sent."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    content: bytes
    send_seconds: float = 0.0  # until the request was written
    receive_seconds: float = 0.0  # from the response's head to its last byte

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    scheme: str
    host: str
    port: int
    path: str  # before every request's own; "" or with a slash at its start

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def server_at(text: str, timeout: float) -> RemoteServer:
    """The server at an address; its key is that of the environment. Raises UserError for what is no address."""
    key = os.environ.get(KEY, "")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the variable {KEY} holds characters that no key has", "correct it")
    return RemoteServer(read_address(text), timeout, key)


def read_address(text: str) -> Address:
    """``http://HOST:PORT`` or HOST:PORT. Raises UserError for anything else."""
    cure = "write it as http://127.0.0.1:8000"
    given = text if "://" in text else f"http://{text}"
    try:
        parts = urllib.parse.urlsplit(given)
        port = parts.port
    except ValueError:
        raise UserError(f"{text!r} is no address of a server", cure) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UserError(f"{text!r} is no address of a server", cure)
    usual = 443 if parts.scheme == "https" else 80
    return Address(parts.scheme, parts.hostname, port or usual, parts.path.rstrip("/"))


@dataclass
class RemoteServer:
    """A server, with the connections that are open and idle."""

    address: Address
    timeout: float = 60.0  # seconds for each wait on the network
    key: str = field(default="", repr=False)  # sent with every request where it is set
    _idle: queue.LifoQueue[http.client.HTTPConnection] = field(default_factory=queue.LifoQueue)

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """One request and the whole response to it. Raises Unanswered where there is none."""
        told = {**(headers or {}), **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        while True:
            kept = self._take()
            link = kept or self._connect()
            try:
                reply = _exchange(link, method, self.address.path + path, body, told)
            except STALE as error:
                link.close()
                if kept is None:
                    raise self._unanswered(error) from None
                continue  # the server had closed it meanwhile: the request was never read
            except (OSError, http.client.HTTPException) as error:
                link.close()
                raise self._unanswered(error) from None
            except BaseException:
                link.close()
                raise
            self._idle.put(link)
            return reply

    def close(self) -> None:
        """Close the idle connections."""
        while (link := self._take()) is not None:
            link.close()

    def _take(self) -> http.client.HTTPConnection | None:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        return None

    def _connect(self) -> http.client.HTTPConnection:
        where = self.address
        if where.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(where.host, where.port, timeout=self.timeout, context=context)
        return http.client.HTTPConnection(where.host, where.port, timeout=self.timeout)

    def _unanswered(self, error: Exception) -> Unanswered:
        if isinstance(error, TimeoutError):
            return Unanswered(f"{self.address} gave no response within {self.timeout:g} s", "raise --timeout")
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unanswered(f"{self.address} does not answer: {said}", "start the server, or check the address")


def _exchange(
    link: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> Reply:
    start = time.perf_counter()
    link.request(method, path, body=body or None, headers=dict(headers))
    sent = time.perf_counter()
    response = link.getresponse()
    head = time.perf_counter()
    content = response.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise http.client.HTTPException(f"its response has over {LARGEST:,} bytes")
    names = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, names, content, sent - start, time.perf_counter() - head)
