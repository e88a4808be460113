"""torch's profiler, written as a Chrome trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import profile


@contextmanager
def recorded(trace: Path) -> Iterator[None]:
    """All operators, and the kernels of a chip that this build of torch knows, with the shapes they work on."""
    with profile(record_shapes=True) as found:
        yield
    found.export_chrome_trace(str(trace))
