"""Whether this machine's CPU computes in int8."""

from __future__ import annotations

import pytest

from bertkit_cpu.topology import has_int8, native_bf16, read_cpu

needs_int8 = pytest.mark.skipif(
    not (has_int8(read_cpu()) and native_bf16(read_cpu())[0]), reason="this CPU lacks VNNI or AMX, or bf16"
)
