"""JAX's profiler, its result in Chrome's trace format."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax


@contextlib.contextmanager
def recorded(trace: Path) -> Iterator[None]:
    """What the host and the devices do meanwhile goes to `trace` at its end."""
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, create_perfetto_trace=True)  # the one of its forms that is Chrome's JSON
        try:
            yield
        finally:
            jax.profiler.stop_trace()
        (found,) = Path(folder).rglob("perfetto_trace.json.gz")
        trace.write_bytes(gzip.decompress(found.read_bytes()))
