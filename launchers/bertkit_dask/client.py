"""The client's side of a Dask cluster: tasks are sent, followed, and sent again where their workers died."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import dask

from bertkit.plugin import GO_ON, UserError, read_object
from bertkit_dask.worker import Done, do, running

# Before distributed is imported, which reads it then. What goes wrong is told in one line, not in its tracebacks.
dask.config.set({"logging": {"distributed": "critical", "distributed.client": "critical"}})
import distributed  # noqa: E402
from distributed.comm import parse_address, resolve_address  # noqa: E402

START = "start `dask scheduler`, and give its address, as --address tcp://host:8786"
CONNECT_S = 10  # until somebody answers
FIRST_WORKER_S = 60  # until there is a worker
NO_WORKER_S = 300  # without any, in the middle of the work: a cluster may start others
CHECK_S, POLL_S = 5.0, 0.05
MOST_KILLS = 5  # times that Dask gives a task up, each after the death of several workers (its allowed-failures)
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[DaskWorkers]:
    """Raises UserError where no scheduler answers there, or it has no workers."""
    place = _scheduler(address)
    try:
        client = distributed.Client(place, timeout=CONNECT_S, set_as_default=False, name="bertkit")
    except OSError as error:
        raise UserError(f"no Dask scheduler answers at {place}: {error}", START) from None
    try:
        yield DaskWorkers(client, place, _first_workers(client, place))
    finally:
        with contextlib.suppress(Exception):  # it is gone: whatever went wrong is told already
            client.close(timeout=CONNECT_S)


def _scheduler(address: str | None) -> str:
    """Where the scheduler is, checked before there is a client: one that is made half waits long for its end."""
    place = address or dask.config.get("scheduler-address", None)
    if not place:
        raise UserError("no address of a Dask scheduler is given", START)
    if Path(place).is_file():
        place = str(read_object(Path(place), "name a file that `dask scheduler --scheduler-file` wrote").get("address"))
    try:
        found: str = resolve_address(place)
    except (OSError, ValueError) as error:
        raise UserError(f"--address {place} cannot be reached: {error}", "name it as tcp://host:8786") from None
    encrypted = parse_address(found)[0] in ("tls", "wss")
    if encrypted and not distributed.Security().get_connection_args("client")["ssl_context"]:
        raise UserError(
            f"--address {place} is encrypted, and there are no certificates",
            "set distributed.comm.tls in Dask's configuration",
        )
    return found


def _first_workers(client: distributed.Client, place: str) -> int:
    if not client.nthreads():
        logger.warning("the Dask scheduler at %s has no workers; waiting up to %d s", place, FIRST_WORKER_S)
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_S)
        except TimeoutError:
            raise UserError(
                f"the Dask scheduler at {place} has no workers",
                f"start some, as `dask worker {place} --nworkers 4 --nthreads 1`",
            ) from None
    threads = client.nthreads()
    if idle := sum(count > 1 for count in threads.values()):
        logger.warning("%d Dask workers have several threads and use one; start them with --nthreads 1", idle)
    return len(threads)


@dataclass
class DaskWorkers:
    """`Workers` of a Dask scheduler."""

    client: distributed.Client
    place: str
    seen: int  # workers, when they were last counted
    checked: float = field(default_factory=time.monotonic)
    alone: float | None = None  # since when there are none

    def describe(self) -> str:
        hosts = {urlsplit(address).hostname for address in self.client.nthreads()}
        return f"Dask workers: {self.seen}, hosts: {len(hosts)}, scheduler: {self.place}"

    def wait_idle(self, name: str) -> None:
        told = False
        while True:
            answers = self.client.run(running, name, on_error="return").values()  # a worker may die meanwhile
            for answer in answers:
                if isinstance(answer, Exception):
                    _check_imports(answer)
            left = sum(answer for answer in answers if isinstance(answer, int))
            if not left:
                return
            if not told:
                logger.warning("waiting for tasks of an earlier command: %d", left)
            told = True
            time.sleep(0.5)

    def run(self, name: str, task: Callable[[int], Done], numbers: Sequence[int]) -> Iterator[tuple[int, Done]]:
        kills: Counter[int] = Counter()
        found = distributed.as_completed(loop=self.client.loop)
        futures: dict[distributed.Future, int] = {}

        def send(numbers: Sequence[int]) -> None:
            turn = secrets.token_hex(4)  # Dask would give a key's result again
            keys = [f"{name}-{turn}-{number}" for number in numbers]
            sent = self.client.map(do, numbers, key=keys, task=task, pure=False)
            futures.update(zip(sent, numbers, strict=True))
            found.update(sent)

        try:
            send(numbers)
            while futures:
                if not found.has_ready():
                    self._check()
                    time.sleep(POLL_S)
                for future in found.next_batch(block=False):
                    number = futures.pop(future)
                    done = self._result(future)
                    if done is not None:
                        yield number, done
                        continue
                    kills[number] += 1
                    _check_kills(kills[number])
                    send([number])
        finally:
            if futures:
                with contextlib.suppress(Exception):  # the scheduler may be gone
                    self.client.cancel(list(futures), force=True)

    def _result(self, future: distributed.Future) -> Done | None:
        """None: its workers died. Raises UserError for what the user can put right."""
        if future.status == "error":
            _failed(future.exception())
            return None
        while True:
            try:
                answer = json.loads(future.result(timeout=CHECK_S))
                break
            except TimeoutError:  # its worker died with the result, which another makes again
                self._check()
            except distributed.KilledWorker:
                return None
            except (distributed.CancelledError, OSError):
                raise self._lost() from None
        if "cause" in answer:
            raise UserError(answer["cause"], answer["cure"])
        done: Done = answer["done"]
        return done

    def _check(self) -> None:
        """Now and then, whether there are workers, and the scheduler. Raises UserError where they are gone."""
        now = time.monotonic()
        if now - self.checked < CHECK_S:
            return
        self.checked = now
        try:
            count = len(self.client.nthreads())
        except (OSError, distributed.CancelledError):
            raise self._lost() from None
        if count < self.seen:
            logger.warning("%d of %d Dask workers are gone; others do their tasks", self.seen - count, self.seen)
        self.seen = count
        self.alone = None if count else self.alone or now
        if self.alone and now - self.alone > NO_WORKER_S:
            raise UserError(f"the Dask scheduler at {self.place} has had no workers for {NO_WORKER_S} s", GO_ON)

    def _lost(self) -> UserError:
        return UserError(f"the connection to the Dask scheduler at {self.place} broke", GO_ON)


def _failed(error: BaseException) -> None:
    """None where a task's workers died. Raises what it was otherwise, UserError where the user can put it right."""
    if isinstance(error, distributed.KilledWorker):
        return
    _check_imports(error)
    raise error


def _check_imports(error: BaseException) -> None:
    """Raises UserError where Dask could not read what was sent, for want of bertkit. It tells of that in words."""
    if any(word in repr(error) for word in ("ModuleNotFoundError", "ImportError", "deserializ")):
        raise UserError(
            f"the Dask scheduler or a worker cannot import bertkit: {error}",
            "install the same bertkit[dask] for them all",
        )


def _check_kills(kills: int) -> None:
    if kills >= MOST_KILLS:
        raise UserError(
            "a task's workers died each time, as for want of memory",
            f"give them more with --memory-limit; {GO_ON}",
        )
