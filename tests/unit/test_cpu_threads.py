"""How many threads a process gets, and whether a CPU computes bf16 natively."""

from __future__ import annotations

import pytest

from bertkit_cpu.topology import (
    Cpu,
    idle_under_torchrun,
    native_bf16,
    threads,
    uses_amx,
)


def cpu_of(physical: int, quota: float | None = None, flags: str = "") -> Cpu:
    return Cpu("test", tuple(range(physical)), physical, 1, quota, frozenset(flags.split()))


@pytest.mark.parametrize(
    ("physical", "quota", "local_size", "asked", "expected"),
    [
        (2, None, 1, 0, (2, "2 physical cores, 1 process")),
        (1, None, 1, 0, (1, "1 physical core, 1 process")),
        (16, None, 4, 0, (4, "16 physical cores, 4 processes")),
        (7, None, 2, 0, (3, "7 physical cores, 2 processes")),
        (2, None, 4, 0, (1, "2 physical cores, 4 processes")),
        (8, 1.5, 1, 0, (1, "cgroup limit of 1.5 cores, 1 process")),
        (8, 5.9, 2, 0, (2, "cgroup limit of 5.9 cores, 2 processes")),
        (8, 0.25, 1, 0, (1, "cgroup limit of 0.25 cores, 1 process")),
        (1, 0.25, 1, 0, (1, "1 physical core, 1 process")),
        (2, 1.0, 1, 0, (1, "cgroup limit of 1 core, 1 process")),
        (4, 16.0, 1, 0, (4, "4 physical cores, 1 process")),
        (4, 4.0, 1, 0, (4, "4 physical cores, 1 process")),
        (4, None, 0, 0, (4, "4 physical cores, 1 process")),
        (4, 1.0, 4, 64, (64, "asked for")),
        (4, None, 1, -1, (4, "4 physical cores, 1 process")),
    ],
)
def test_rule_for_threads(
    physical: int, quota: float | None, local_size: int, asked: int, expected: tuple[int, str]
) -> None:
    assert threads(cpu_of(physical, quota), local_size, asked) == expected


def test_a_bound_share_is_not_divided_again() -> None:
    assert threads(cpu_of(4), 2, bound=True) == (4, "4 physical cores, bound to CPUs 0-3")
    assert threads(cpu_of(4), 2, bound=False) == (2, "4 physical cores, 2 processes")


@pytest.mark.parametrize(("value", "number"), [("3", 3), (" 12 ", 12), ("6,2", 6)])
def test_omp_num_threads_wins_over_the_rule_only(value: str, number: int) -> None:
    env = {"OMP_NUM_THREADS": value}
    assert threads(cpu_of(8), 2, env=env) == (number, f"OMP_NUM_THREADS={value.strip()}")
    assert threads(cpu_of(8), 2, 5, env=env) == (5, "asked for")


@pytest.mark.parametrize("value", ["many", "0", "-2", "2.5", "²", "9" * 5000, ",2"])
def test_omp_num_threads_that_is_no_number_is_ignored_aloud(value: str) -> None:
    number, reason = threads(cpu_of(8), 2, env={"OMP_NUM_THREADS": value})
    assert number == 4
    assert reason.startswith("8 physical cores, 2 processes; OMP_NUM_THREADS=")
    assert reason.endswith("is not a positive whole number and was ignored")


@pytest.mark.parametrize(
    ("physical", "local_size", "bound", "changes", "warned"),
    [
        (8, 2, False, {}, True),
        (8, 2, False, {"OMP_NUM_THREADS": "2"}, False),
        (8, 2, False, {"TORCHELASTIC_RUN_ID": ""}, False),  # the user's own 1
        (8, 2, True, {}, False),  # `bertkit launch` binds
        (2, 2, False, {}, False),
        (8, 1, False, {}, False),
    ],
)
def test_torchruns_one_thread_is_warned_of(
    physical: int, local_size: int, bound: bool, changes: dict[str, str], warned: bool
) -> None:
    env = {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"} | changes
    said = idle_under_torchrun(cpu_of(physical), local_size, bound, env)
    assert said.startswith("torchrun sets OMP_NUM_THREADS=1") == warned == bool(said)
    assert not warned or "1 of its 4 cores; set it to 4" in said


def test_the_process_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "99")
    assert threads(cpu_of(4))[0] == 4
    assert threads(cpu_of(4), env={"OMP_NUM_THREADS": ""}) == (4, "4 physical cores, 1 process")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512_bf16", (True, "avx512_bf16")),
        ("avx512_bf16 amx_tile amx_bf16", (True, "amx_bf16")),
        ("asimd bf16", (True, "bf16")),
    ],
)
def test_native_bf16(flags: str, expected: tuple[bool, str]) -> None:
    assert native_bf16(cpu_of(1, flags=flags)) == expected


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            "fpu avx512f avx512bw amx_int8",
            "this CPU has neither avx512_bf16 nor AMX: bf16 would be emulated and slower than fp32",
        ),
        ("fp asimd", "this CPU does not have Arm's bf16: bf16 would be emulated and slower than fp32"),
        ("", "this system does not list the CPU's features: bf16 is taken to be emulated"),
    ],
)
def test_no_native_bf16(flags: str, reason: str) -> None:
    assert native_bf16(cpu_of(1, flags=flags)) == (False, reason)


@pytest.mark.parametrize(
    ("env", "used", "forbidden"),
    [
        ({}, True, ""),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, False, "ONEDNN_MAX_CPU_ISA=avx512_core_bf16"),
        ({"DNNL_MAX_CPU_ISA": "SSE41"}, False, "DNNL_MAX_CPU_ISA=SSE41"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX", "DNNL_MAX_CPU_ISA": "AVX2"}, True, ""),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, True, ""),
        ({"ONEDNN_MAX_CPU_ISA": "mistyped"}, True, ""),  # oneDNN does not heed it either
    ],
)
def test_onednns_own_limit_on_amx(env: dict[str, str], used: bool, forbidden: str) -> None:
    assert uses_amx(cpu_of(1, flags="avx512_bf16 amx_bf16"), env) == (used, forbidden)
    assert uses_amx(cpu_of(1, flags="avx512_bf16"), env) == (False, "")
