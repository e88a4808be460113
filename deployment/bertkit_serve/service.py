"""The runs that a process serves, by name: started, asked, loaded anew, drained."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import bertkit
from bertkit import Predictor, Prepared
from bertkit.plugin import ServeOptions, UserError
from bertkit_serve.batching import BatchLimits, Computed, Replaced, Ticket
from bertkit_serve.faces import Face
from bertkit_serve.logs import logger
from bertkit_serve.metrics import Metrics
from bertkit_serve.models import TEXT, TEXT_THREADS, ServedModel, signature_of
from bertkit_serve.refusals import FAULT, NOT_FOUND, NOT_READY, TIMED_OUT, ClientGone, Refused

WATCH_SECONDS = 2.0
FOLDER = "BERTKIT_SERVE_FOLDER"  # the folder that the processes of one server share
OPEN = "open"  # the file in it that is there once all of them have loaded their models
INLINE_BYTES = 16 << 10  # of a request that the event loop prepares itself; more goes to a thread
INLINE_TOKENS = 4096  # likewise, of one whose answer is made
TRIES = 5  # of a request whose model is replaced meanwhile
Said = TypeVar("Said")


@dataclass
class Trace:
    """What is known of a request when it ends, for the log and the metrics."""

    model: str = ""
    held: int = 0  # bytes of its body
    examples: int = 0
    tokens: int = 0
    waited: float = 0.0
    computing: float = 0.0
    texts: str = ""  # only where they are to be logged
    began: float = field(default_factory=time.perf_counter)


class Service:
    """`predictors`: models that the caller loaded, by the names of the runs."""

    def __init__(self, options: ServeOptions, key: str = "", predictors: Mapping[str, Predictor] | None = None) -> None:
        self.options, self.key, self.given = options, key, dict(predictors or {})
        self.metrics = Metrics()
        self.turns = threading.Lock()
        self.limits = BatchLimits(
            tokens=options.batch_tokens,
            sequences=int(options.settings.get("evaluation.batch_size", 64)),
            waiting=options.queue,
            of_request=options.request_tokens,
        )
        self.texts = ThreadPoolExecutor(TEXT_THREADS, "bertkit-texts")
        self.models: dict[str, ServedModel] = {}
        self.last: dict[str, int] = {}  # name -> when it was last asked, in milliseconds since 1970
        self.loading: dict[str, asyncio.Task[None]] = {}
        self.asked: dict[str, int] = {}  # name -> when another process last asked for its loading, as seen here
        self.draining = False
        self.active = 0  # requests that are being answered
        self.held = 0  # bytes of their bodies

    # ---- models ----

    def start(self) -> None:
        """Begin to load every run."""
        for name in self.options.runs:
            self.metrics.know(name)
            self.last[name] = 0
            self.models[name] = self._make(name)
            self.models[name].start()

    def _make(self, name: str) -> ServedModel:
        run = self.options.runs[name]

        def computed(batch: Computed) -> None:
            self.metrics.computed(name, batch, self.models[name].batcher.sequences)

        def load() -> Predictor:
            predictor = self.given.pop(name, None) or self._load(name, run)
            self.metrics.loaded(name, predictor.loaded.backend, predictor.loaded.precision)
            return predictor

        return ServedModel(name, load, self.limits, self.turns, computed, signature_of(run))

    def _load(self, name: str, run: str) -> Predictor:
        if not run:
            raise UserError(f"{name} was loaded by the caller and has no folder", "give its folder")
        options = self.options
        return bertkit.load(run, task=options.task, force=options.force, settings=dict(options.settings))

    @property
    def loaded(self) -> bool:
        """Whether every model answers."""
        return bool(self.models) and all(model.ready for model in self.models.values())

    @property
    def ready(self) -> bool:
        return self.loaded and not self.draining

    @property
    def failure(self) -> Exception | None:
        """Why a model could not be loaded at the start."""
        return next((model.failure for model in self.models.values() if model.failure), None)

    def find(self, name: str) -> tuple[ServedModel, Face]:
        """A model by either of its names. Raises Refused where there is none, or it is still being loaded."""
        run = name if name in self.models else name.removesuffix(TEXT)
        if run not in self.models:
            raise Refused(NOT_FOUND, f"there is no model {name!r}", f"there are {', '.join(self.names())}")
        model = self.models[run]
        if not model.ready:
            raise Refused(NOT_READY, f"{name} is being loaded", "try again later", {"Retry-After": "5"})
        return model, model.faces[name]

    def names(self) -> list[str]:
        return [each for name in self.options.runs for each in (name, name + TEXT)]

    async def reload(self, name: str) -> None:
        """Load a run anew, warm it up, put it in the old one's place, and let that finish what it has.

        Raises UserError where the run cannot be loaded; the old one then stays.
        """
        if name not in self.loading:
            self.loading[name] = asyncio.create_task(self._reload(name))
            self.loading[name].add_done_callback(lambda task: self.loading.pop(name, None))
        await asyncio.shield(self.loading[name])

    async def _reload(self, name: str) -> None:
        fresh, old = self._make(name), self.models[name]
        fresh.start()
        await asyncio.to_thread(fresh.loaded.wait)
        if fresh.failure:
            old.signature = fresh.signature  # not tried again before the folder changes again
            self.metrics.reloads.labels(name, "failed").inc()
            logger.warning("%s could not be loaded anew and is served as it was: %s", name, fresh.failure)
            raise fresh.failure
        self.models[name] = fresh
        old.close()
        self.metrics.reloads.labels(name, "success").inc()
        logger.info("%s was loaded anew from %s", name, self.options.runs[name])

    async def watch(self) -> None:
        """Load runs anew whose folders have changed and then stood still, or that another process was told to load."""
        seen: dict[str, object] = {}
        self.asked = {name: self._asked(name) for name in self.models}
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for name, model in list(self.models.items()):
                now = signature_of(self.options.runs[name])
                settled = seen.get(name) == now
                seen[name] = now
                told = self._asked(name) != self.asked[name]
                self.asked[name] = self._asked(name)
                if model.ready and (told or (self.options.watch and now and settled and now != model.signature)):
                    try:
                        await self.reload(name)
                    except Exception as error:  # it was logged; the old one goes on
                        logger.debug("%s", error)

    def ask_others(self, name: str) -> None:
        """Let the server's other processes load a run anew, too."""
        if FOLDER in os.environ:
            (Path(os.environ[FOLDER]) / f"load-{name}").write_text(f"{time.time_ns()}\n", encoding="utf-8")
            self.asked[name] = self._asked(name)

    def _asked(self, name: str) -> int:
        try:
            return (Path(os.environ[FOLDER]) / f"load-{name}").stat().st_mtime_ns if FOLDER in os.environ else 0
        except OSError:
            return 0

    # ---- requests ----

    async def ask(
        self,
        name: str,
        prepare: Callable[[ServedModel, Face], Prepared[Said]],
        size: int,
        gone: Callable[[], asyncio.Future[None]],
        trace: Trace,
        timeout: float,
    ) -> Said:
        """One request, from its preparing to its answer. `size`: bytes of its body; `gone`: is done when the client
        has gone away. Raises Refused, UserError and ClientGone."""
        for _ in range(TRIES):
            model, face = self.find(name)
            trace.model = model.name
            try:
                async with asyncio.timeout(timeout):
                    prepared = await self.aside(size > INLINE_BYTES, functools.partial(prepare, model, face))
                trace.examples, trace.tokens = len(prepared.features), len(prepared.features.input_ids)
                ticket = model.batcher.submit(prepared.features)
                break
            except Replaced:
                continue
            except TimeoutError:
                raise _too_slow(timeout) from None
        else:
            raise Refused(NOT_READY, f"{name} is being replaced", "try again", {"Retry-After": "1"})
        self.last[model.name] = time.time_ns() // 1_000_000
        try:
            await _outputs_of(ticket, gone(), timeout)
        finally:
            trace.waited, trace.computing = ticket.waited, ticket.computing
            if not ticket.done.done():
                model.batcher.cancel(ticket)
        try:
            outputs = ticket.outputs()
        except UserError as error:  # of the model or the device, not of the request
            raise Refused(FAULT, error.cause, error.cure) from None
        return await self.aside(trace.tokens > INLINE_TOKENS, lambda: prepared.finish(outputs))

    async def aside(self, long: bool, work: Callable[[], Said]) -> Said:
        """The work's result; what takes long is done in a thread, so that others are served meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self.texts, work) if long else work()

    # ---- the end ----

    async def drain(self) -> None:
        """Refuse what comes, and wait for what is being answered."""
        self.draining = True
        end = time.monotonic() + self.options.timeout
        while self.active and time.monotonic() < end:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        for model in self.models.values():
            model.close()
        self.texts.shutdown(wait=False, cancel_futures=True)

    def wait_closed(self, seconds: float) -> bool:
        """Whether every model's thread ended within so long; one that still loads a model cannot be stopped."""
        end = time.monotonic() + seconds
        for model in self.models.values():
            model.thread.join(max(0.0, end - time.monotonic()))
        return not any(model.thread.is_alive() for model in self.models.values())


async def _outputs_of(ticket: Ticket, gone: asyncio.Future[None], timeout: float) -> None:
    """Until the ticket is done. Raises Refused after the time, and ClientGone."""
    try:
        await asyncio.wait({ticket.done, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if ticket.done.done():
        return
    if gone.done() and not gone.cancelled():
        raise ClientGone
    raise _too_slow(timeout)


def _too_slow(timeout: float) -> Refused:
    return Refused(TIMED_OUT, f"the request was not answered within {timeout:g} s", "try again, or send less")


def raise_if_failed(service: Service) -> None:
    """Raises what a model could not be loaded for."""
    if isinstance(service.failure, UserError):
        raise UserError(service.failure.cause, service.failure.cure)
    if service.failure:
        raise service.failure
