"""Connections of the server: a client that never ends its headers is closed; one that does is answered."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from bertkit_serve.connections import timed  # noqa: E402

SECONDS = 0.4
WHOLE = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(hello, http=timed(SECONDS), log_config=None, lifespan="off", timeout_keep_alive=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listener.close()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    end = time.monotonic() + 10
    while True:
        try:
            found = socket.create_connection(("127.0.0.1", port), timeout=5)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.02)
    with found:
        yield found


def closed_after(one: socket.socket, drip: bytes) -> float:
    """Seconds until the server closes, while a byte is sent every now and then."""
    began = time.monotonic()
    one.settimeout(0.05)
    while time.monotonic() - began < 5:
        try:
            one.sendall(drip)
            if one.recv(100) == b"":
                return time.monotonic() - began
        except TimeoutError:
            continue
        except ConnectionError:
            return time.monotonic() - began
    return float("inf")


@pytest.mark.parametrize("drip", [b"", b"x"])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: he"])
def test_headers_that_do_not_end_are_not_waited_for(port: int, sent: bytes, drip: bytes) -> None:
    with connected(port) as one:
        one.sendall(sent)
        assert SECONDS * 0.5 < closed_after(one, drip) < SECONDS + 2


def test_a_second_request_has_as_long(port: int) -> None:
    with connected(port) as one:
        for _ in range(2):
            time.sleep(0.3 * SECONDS)
            one.sendall(WHOLE[:9])
            time.sleep(0.3 * SECONDS)
            one.sendall(WHOLE[9:])
            answer = b""
            while not answer.endswith(b"hello"):
                answer += one.recv(1000)
            time.sleep(1.2 * SECONDS)  # idle between requests, which is another limit's matter
        one.sendall(WHOLE[:9])
        assert SECONDS * 0.5 < closed_after(one, b"x") < SECONDS + 2
