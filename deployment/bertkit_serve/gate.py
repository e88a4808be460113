"""What every request passes: its number, the key, one form for all errors, and the log. ASGI, no framework."""

from __future__ import annotations

import hmac
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bertkit.plugin import JSON_TYPE, UserError
from bertkit.plugin import infer_error as error_body
from bertkit_serve.logs import logger
from bertkit_serve.refusals import (
    BAD,
    CLIENT_GONE,
    FAULT,
    NOT_READY,
    TIMED_OUT,
    TOO_MANY,
    UNAUTHORIZED,
    ClientGone,
    Refused,
)
from bertkit_serve.service import Service, Trace

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # without the key: probes, and a page without data
QUIET = (*OPEN, "/metrics")  # not logged where they succeed: they are asked for every few seconds
WORKING = ("/predict", "/answer", "/infer")  # ends of paths that are refused while the server drains
_NUMBER = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_OUTCOMES = {TOO_MANY: "rejected", TIMED_OUT: "timeout", CLIENT_GONE: "cancelled", FAULT: "error"}
_SHOWN = re.compile(r"[^\x21-\x7e]")


class Gate:
    """Around the routes. An endpoint raises Refused, UserError or ClientGone, and fills in `scope["trace"]`."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        number = given if _NUMBER.fullmatch(given) else uuid.uuid4().hex.encode()
        trace = scope["trace"] = Trace()
        reply = _Reply(send, number)
        self.service.active += 1
        try:
            self._check(scope, headers)
            await self.app(scope, receive, reply)
            status = reply.status
        except ClientGone:
            status = CLIENT_GONE
        except Exception as error:
            status = await self._refuse(error, reply)
        finally:
            self.service.active -= 1
            self.service.held -= trace.held
        self._tell(scope, status, number, trace)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        path = scope["path"]
        if self.service.key and path not in OPEN:
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self.service.key.encode()):
                raise Refused(
                    UNAUTHORIZED, "the API key is missing or wrong", "send the header Authorization: Bearer KEY",
                    {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
        if self.service.draining and path.endswith(WORKING):
            raise Refused(
                NOT_READY, "the server is ending", "ask another one", {"Retry-After": "1", "Connection": "close"}
            )

    async def _refuse(self, error: Exception, reply: _Reply) -> int:
        """Answer with the error, and return its status."""
        if isinstance(error, Refused):
            status, message, headers = error.status, str(error), error.headers
        elif isinstance(error, UserError):
            status, message, headers = BAD, str(error), {}
        else:
            status, message, headers = FAULT, f"a fault of the server: {type(error).__name__}", {}
            where = "".join(traceback.format_tb(error.__traceback__))  # no message: it may hold a text
            logger.error("request %s: %s\n%s", reply.number.decode(), type(error).__name__, where)
        if not reply.status:
            await reply.answer(status, error_body(message), JSON_TYPE, headers)
        return status

    def _tell(self, scope: Scope, status: int, number: bytes, trace: Trace) -> None:
        seconds = time.perf_counter() - trace.began
        if trace.model and status == 200:
            self.service.metrics.answered(trace.model, trace.examples, seconds, trace.waited, trace.computing)
        elif trace.model:
            self.service.metrics.failed(trace.model, _OUTCOMES.get(status, "refused"))
        if status == 200 and scope["path"] in QUIET:
            return
        parts = [f"{scope['method']} {_SHOWN.sub('?', scope['path'][:200])} {status} {1000 * seconds:.1f} ms"]
        if trace.tokens:
            parts.append(f"queue {1000 * trace.waited:.1f} compute {1000 * trace.computing:.1f}")
            parts.append(f"examples {trace.examples} tokens {trace.tokens}")
        parts.append(f"id {number.decode()}")
        logger.info("%s%s", "  ".join(parts), f"  {trace.texts}" if trace.texts else "")


class _Reply:
    """`send`, with the request's number among the headers; remembers the status."""

    def __init__(self, send: Send, number: bytes) -> None:
        self.send, self.number, self.status = send, number, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.number)]
        await self.send(message)

    async def answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        """A whole response."""
        told = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        raw = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        await self({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})
