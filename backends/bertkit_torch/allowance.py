"""How often torch.compile may compile one function again, which is few times unless it is told that more is meant."""

from __future__ import annotations

import threading


class Allowance:
    """Graphs that a run plans for one function.

    torch gives up on a function that is compiled too often, and goes on without; its limit stands in a configuration
    that each thread has its own of (torch 2.12), so every thread that calls the function is granted it.
    """

    def __init__(self, graphs: int) -> None:
        self.graphs = graphs
        self._granted = threading.local()

    def grant(self) -> None:
        """To the calling thread, once."""
        if self.graphs == 0 or getattr(self._granted, "done", False):
            return
        from torch._dynamo import config  # takes a second to import

        # Compiled within a thread, functions of several engines share one limit: it grows with each.
        name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # torch 2.6: the latter
        for limit in (name, f"accumulated_{name}"):
            setattr(config, limit, getattr(config, limit) + self.graphs)
        self._granted.done = True
