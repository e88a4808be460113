"""Work done ahead in a thread, so that what consumes it does not wait for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")
END = object()
LEAVING = 30.0  # seconds that an item in hand is waited for


def ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """`items` in their order, up to `depth` of them made before they are asked for.

    An error in making one is raised where it would have come. Closing this iterator ends the thread, after the item
    in hand, unless that hangs: a thread that still holds a library's objects when Python ends aborts the process.
    """
    made: queue.Queue[object] = queue.Queue(depth)
    closed = threading.Event()
    failed: list[BaseException] = []

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                made.put(item, timeout=0.1)  # so that a consumer that went away is noticed
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # raised again on the consumer's side
            failed.append(error)
        put(END)

    thread = threading.Thread(target=work, name="bertkit-prefetch", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not END:
            yield item  # type: ignore[misc]
        if failed:
            raise failed[0]
    finally:
        closed.set()
        thread.join(LEAVING)
