"""A `torch.cuda` that records what is asked of it, with the rules of a card: what a capture forbids is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class Recorder:
    """Its graphs are lists of what was done within them, done again at each replay."""

    def __init__(self, count: int = 2, capability: tuple[int, int] = (9, 0)) -> None:
        self.count, self.capability = count, capability
        self.architectures = ["sm_80", "sm_90"]
        self.recording: list[Callable[[], None]] | None = None
        self.capturing: tuple[str, int] | None = None  # mode and thread
        self.did: list[str] = []
        self.calls: list[str] = []
        self.pools: list[Any] = []
        self.streams = 0
        self.uuid = "GPU-of-this-rank"

    def launch(self, what: str) -> None:
        """A kernel: done at once, or only noted while a graph is recorded, as on a card."""
        if self.recording is None:
            self.did.append(what)
        else:
            self.recording.append(lambda: self.did.append(what))

    def unsafe(self, what: str) -> None:
        """A call that a capture forbids, as pinning memory or asking an event: of any thread, or of its own.

        Source: CUDA driver API, cuThreadExchangeStreamCaptureMode; error 900 in either case.
        """
        if self.capturing is not None:
            mode, thread = self.capturing
            if mode == "global" or (mode == "thread_local" and thread == threading.get_ident()):
                self.recording = None
                raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
        self.calls.append(what)

    def module(self) -> Any:
        class CUDAGraph:
            def __init__(self) -> None:
                self.done: list[Callable[[], None]] = []

            def replay(self) -> None:
                for one in self.done:
                    one()

        @contextmanager
        def graph(made: CUDAGraph, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
            self.pools.append(pool)
            self.recording, self.capturing = made.done, (capture_error_mode, threading.get_ident())
            try:
                yield
            finally:
                self.recording = self.capturing = None

        @contextmanager
        def stream(aside: Any) -> Iterator[None]:
            self.streams += 1
            yield

        def current() -> Any:
            return SimpleNamespace(wait_stream=lambda other: self.calls.append("wait"))

        about = SimpleNamespace(name="Card", total_memory=80 * 2**30, major=9, minor=0, uuid=self.uuid)
        return SimpleNamespace(
            CUDAGraph=CUDAGraph, graph=graph, stream=stream, current_stream=current, Stream=current,
            graph_pool_handle=lambda: "pool", is_available=lambda: self.count > 0, device_count=lambda: self.count,
            set_device=lambda where: self.calls.append(f"set {where}"), get_arch_list=lambda: self.architectures,
            get_device_capability=lambda where=None: self.capability, get_device_properties=lambda where: about,
            current_device=lambda: 0, synchronize=lambda: None, max_memory_allocated=lambda: 123,
            empty_cache=lambda: self.calls.append("empty"),
            manual_seed=lambda number: self.calls.append(f"seed {number}"),
        )  # fmt: skip
