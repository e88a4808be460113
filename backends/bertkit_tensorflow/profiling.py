"""TensorFlow's profiler, written as a Chrome trace.

What it writes by itself is an XSpace (`xplane.pb`), which only TensorBoard's plug-in shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from bertkit.plugin import TraceLine, TraceSpan, UserError, write_chrome_trace
from bertkit_tensorflow.quiet import without_notes


@contextmanager
def recorded(trace: Path) -> Iterator[None]:
    """Operators, and the kernels of a GPU, meanwhile. Raises UserError where this process is being profiled already."""
    with tempfile.TemporaryDirectory(prefix="bertkit-profile-") as folder:
        try:
            with without_notes():  # of every session's begin and end
                tf.profiler.experimental.start(folder)
        except tf.errors.AlreadyExistsError:
            raise UserError("a profile is being recorded in this process already", "end that one first") from None
        try:
            yield
        except BaseException:
            with without_notes():
                tf.profiler.experimental.stop(save=False)
            raise
        with without_notes():
            tf.profiler.experimental.stop()
        write_chrome_trace(trace, (line for file in Path(folder).rglob("*.xplane.pb") for line in lines(file)))


def lines(file: Path) -> Iterator[TraceLine]:
    """Of an XSpace: a plane is the host or a device, a line of it a thread or a stream."""
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            spans = (_span(plane, line, event) for event in line.events)
            told = [span for span in spans if span.duration or span.details]  # the rest links events to one another
            yield TraceLine(plane.name, line.display_name or line.name, told)


def _span(plane: Any, line: Any, event: Any) -> TraceSpan:
    """Lines count in nanoseconds, events in picoseconds from their line's start."""
    told = plane.event_metadata[event.metadata_id]
    details = {}
    for stat in event.stats:
        name, kind = plane.stat_metadata[stat.metadata_id].name, stat.WhichOneof("value")
        if kind not in (None, "bytes_value") and not name.startswith("_"):  # those are its own links between events
            value = getattr(stat, kind)
            details[name] = plane.stat_metadata[value].name if kind == "ref_value" else value
    return TraceSpan(told.name, line.timestamp_ns / 1e3 + event.offset_ps / 1e6, event.duration_ps / 1e6, details)
