"""One process that serves: uvicorn around the routes, from the socket to the end by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from bertkit.plugin import ServeOptions, UserError
from bertkit_serve import logs
from bertkit_serve.app import app_of
from bertkit_serve.connections import timed
from bertkit_serve.logs import logger
from bertkit_serve.service import Service, raise_if_failed

API_KEY = "BERTKIT_API_KEY"
POLL = 0.05  # seconds
CLOSING = 5.0  # seconds for the models' threads to end
LOADING = 60.0  # seconds for the others to be loaded, where one could not be
KEEP_ALIVE = 75  # seconds of an idle connection, as nginx has it
STOPPED = 130  # exit code after a second Ctrl-C
Ready = Callable[[Service], None]  # called when every model answers


def serve_alone(options: ServeOptions) -> int:
    """Serve in this process."""
    listener = bound(options.host, options.port)
    logs.prepare(options.quiet)
    warn_of(options)
    return serve_on(listener, options, lambda service: say_ready(service, address_of(options, listener)))


def bound(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket at this address, which uvicorn listens on. `shared`: several processes have one at it, and the system
    deals connections out to those that listen.

    Raises UserError where the address is taken, or none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except PermissionError:
        raise UserError(f"port {port} is not for users", "take one above 1023 with --port") from None
    except OSError as error:
        raise UserError(f"{host}:{port}: {error.strerror or error}", "take another --port, or check --host") from None
    return listener


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def warn_of(options: ServeOptions) -> None:
    """What whoever starts the server should know."""
    if not is_loopback(options.host) and not os.environ.get(API_KEY):
        logger.warning(
            "%s is open to the network, and no API key is set: anybody who reaches it can use the models; set %s",
            options.host, API_KEY,
        )  # fmt: skip


def address_of(options: ServeOptions, listener: socket.socket) -> str:
    host = "localhost" if options.host in ("127.0.0.1", "0.0.0.0", "::", "::1") else options.host  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def say_ready(service: Service, address: str) -> None:
    """The models, and a line to try; on standard error, as all that is logged."""
    logger.info("serving %s at %s", ", ".join(service.names()), address)
    logger.info("try: %s", line_to_try(service, address))


def line_to_try(service: Service, address: str) -> str:
    """A request to the first model, by curl; every model is loaded."""
    name, model = next(iter(service.models.items()))
    return curl_line(address, name, model.faces[name].predictor.fields, len(service.models) > 1)


def curl_line(address: str, name: str, fields: Sequence[str], several: bool) -> str:
    """A request by curl. `several`: the model is to be named."""
    samples = {
        "text": "He left.",
        "text_pair": "He went away.",
        "choices": ["He went away.", "He stayed."],
        "question": "Who wrote it?",
        "context": "A clerk wrote it.",
    }
    told = ({"model": name} if several else {}) | {field: samples[field] for field in fields}
    key = f" -H 'Authorization: Bearer '${API_KEY}" if os.environ.get(API_KEY) else ""
    path = "answer" if "question" in fields else "predict"
    return f"curl {address}/{path}{key} -d '{json.dumps(told)}'"


def serve_on(
    listener: socket.socket, options: ServeOptions, ready: Ready, opens: Callable[[], bool] | None = None
) -> int:
    """Serve from this socket until a signal; the exit code. `opens`: take no connection before every model answers and
    this says yes.

    Raises UserError where a run cannot be loaded.
    """
    service = Service(options, os.environ.get(API_KEY, ""))
    config = uvicorn.Config(
        app_of(service, opens),
        http=timed(options.timeout),  # by h11, which refuses headers of over 64 KiB; uvicorn's other parser does not
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, int(options.timeout)),
    )
    server = _Server(config, service, ready)
    asyncio.run(server.serve(sockets=[listener]))
    closed = service.wait_closed(LOADING if service.failure else CLOSING)
    raise_if_failed(service)
    if not closed:
        logger.info("a model is still being loaded; the process ends without it")
        sys.stderr.flush()
        os._exit(server.code)  # a framework aborts where Python ends beside a thread that is in it
    return server.code


class _Server(uvicorn.Server):
    """uvicorn, which drains at a signal and then ends with 0, and ends where a model cannot be loaded."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Ready) -> None:
        super().__init__(config)
        self.service, self.tell_ready, self.code = service, ready, 0
        self.tasks: list[asyncio.Task[None]] = []  # a loop itself keeps none

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        self.tasks.append(loop.create_task(self._follow()))
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _follow(self) -> None:
        """Tell when every model answers; end where one cannot be loaded."""
        while not (self.started and self.service.loaded) and not self.service.failure:
            await asyncio.sleep(POLL)
        if self.service.failure:
            self.should_exit = True
        else:
            self.tell_ready(self.service)

    def _stop(self, number: int) -> None:
        if self.service.draining:
            if number == signal.SIGINT:
                self.force_exit, self.code = True, STOPPED
            return
        logger.info("ending: %d requests are being answered", self.service.active)
        self.tasks.append(asyncio.get_running_loop().create_task(self._drain()))

    async def _drain(self) -> None:
        await self.service.drain()
        self.should_exit = True
