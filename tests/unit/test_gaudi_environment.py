"""The variables that a Gaudi's software reads: set, kept or refused, before anything is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import bertkit_gaudi
from bertkit.distributed.world import World, from_env
from bertkit.errors import UserError
from bertkit_gaudi import GaudiBackend, environment
from bertkit_gaudi.environment import (
    BF16_LIST,
    FP32_LIST,
    GONE,
    INT64,
    LAZY,
    MODULES,
    RECIPES,
    describe,
    of_ranks,
    variables,
)

# What the vendor's documents, its BERT scripts or old launchers told users to set, and what the answer must name.
ENDED: Mapping[str, str] = {
    "HCCL_OVER_TCP": "HCCL_OVER_OFI=1",
    "HCL_CONFIG_PATH": "MULTI_HLS_IPS",
    "HABANA_USE_STREAMS_FOR_HCL": "unset it",
    "HABANA_USE_PREALLOC_BUFFER_FOR_ALLREDUCE": "unset it",
    "HABANA_INITIAL_WORKSPACE_SIZE_MB": "1.16",
    "TF_BF16_CONVERSION": "-d bf16",
    "TF_ENABLE_BF16_CONVERSION": "-d bf16",
    "TF_PRELIMINARY_CLUSTER_SIZE": "unset it",
    "NUM_WORKERS_PER_HLS": "bertkit launch -n",
    "USE_HOROVOD": "bertkit launch",
    "LOWER_LIST": BF16_LIST,
    "FP32_LIST": FP32_LIST,
}

KEPT = Path("/cache/recipes")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*GONE, *ENDED, LAZY, BF16_LIST, FP32_LIST, INT64, MODULES, RECIPES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BERTKIT_CACHE", str(tmp_path / "cache"))


# ---- refused by name ----


@pytest.mark.parametrize("value", ["1", "0", ""])
@pytest.mark.parametrize("name", ENDED)
def test_a_variable_that_is_no_more_is_refused_with_its_cure(name: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        variables({}, {"PATH": "/bin", name: value}, {}, KEPT)
    assert caught.value.cause == f"{name} is set, but no longer exists"
    assert ENDED[name] in caught.value.cure


def test_every_refused_variable_is_tried_above() -> None:
    assert set(GONE) == set(ENDED)


@pytest.mark.parametrize("name", ["MULTI_HLS_IPS", "HABANA_LOGS", "HCCL_OVER_OFI", "GC_KERNEL_PATH", MODULES, INT64])
def test_one_that_is_read_is_not_refused_but_printed(name: str) -> None:
    env = {name: "1", "HOME": "/home/me"}
    ours = variables({}, env, {}, KEPT)
    assert f"{name}=1" in describe(env, ours)
    assert "HOME" not in describe(env, ours)
    assert name.startswith(environment.FORWARDED)


def test_ours_are_told_from_the_users() -> None:
    assert describe({LAZY: "0", "HABANA_LOGS": "/logs"}, {LAZY: "0"}) == f"HABANA_LOGS=/logs, {LAZY}=0 (ours)"


def test_compiled_programs_are_kept_between_runs_where_the_user_says_else_in_the_cache() -> None:
    assert variables({}, {}, {}, KEPT)[RECIPES] == "/cache/recipes,False,8192"
    assert variables({}, {RECIPES: "/mine,True,100"}, {}, KEPT)[RECIPES] == "/mine,True,100"


# ---- eager or lazy ----


@pytest.mark.parametrize("said", [None, "0", "1", "2", ""])
@pytest.mark.parametrize("mode", ["auto", "eager", "lazy"])
def test_the_mode_is_always_said(mode: str, said: str | None) -> None:
    """As the vendor's package reads it: whatever is not "0" is lazy; unset differs between its releases."""
    env = {} if said is None else {LAZY: said}
    lazy = said not in (None, "0")
    if mode == "auto" or said is None or lazy == (mode == "lazy"):
        wanted = lazy if mode == "auto" else mode == "lazy"
        assert variables({"mode": mode}, env, {}, KEPT)[LAZY] == ("1" if wanted else "0")
        return
    with pytest.raises(UserError) as caught:
        variables({"mode": mode}, env, {}, KEPT)
    assert caught.value.cause == f"device.mode={mode}, but {LAZY}={said}"
    assert f"unset {LAZY}" in caught.value.cure


@pytest.mark.parametrize("mode", ["auto", "eager", "lazy"])
def test_what_was_set_once_may_be_set_again(mode: str) -> None:
    """The command sets it before it reads weights, the engine again."""
    first = variables({"mode": mode}, {}, {}, KEPT)
    assert variables({"mode": mode}, first, {}, KEPT) == first


def test_whole_numbers_stay_64_bits_wide_unless_the_user_says_otherwise() -> None:
    assert variables({}, {}, {}, KEPT)[INT64] == "1"
    assert variables({}, {INT64: "0"}, {}, KEPT)[INT64] == "0"


# ---- operators of autocast ----


def test_lists_of_operators_are_files_that_the_variables_name(tmp_path: Path) -> None:
    config = tmp_path / "gaudi_config.json"
    config.write_text('{"autocast_bf16_ops": ["matmul", "linear"], "autocast_fp32_ops": ["softmax"]}')
    found = GaudiBackend().variables({"gaudi_config": str(config), "mode": "auto"})
    assert Path(found[BF16_LIST]).read_text() == "matmul\nlinear\n"
    assert Path(found[FP32_LIST]).read_text() == "softmax\n"
    assert Path(found[BF16_LIST]).parent == tmp_path / "cache" / "bertkit" / "gaudi"
    assert GaudiBackend().variables({"gaudi_config": str(config)}) == found


def test_without_operators_no_variable_and_no_file(tmp_path: Path) -> None:
    assert GaudiBackend().variables({}).keys() == {LAZY, INT64, RECIPES}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", [BF16_LIST, FP32_LIST])
def test_lists_of_the_user_and_of_the_job_contradict_each_other(name: str, tmp_path: Path) -> None:
    ours = tmp_path / "ours.txt"
    with pytest.raises(UserError) as caught:
        variables({}, {name: "/mine.txt"}, {name: ours}, KEPT)
    assert caught.value.cause == f"{name} is set, and so are operators of the job's own"
    assert caught.value.cure == f"unset {name}"
    assert variables({}, {name: str(ours)}, {name: ours}, KEPT)[name] == str(ours)  # set by this process before
    assert name not in variables({}, {name: "/mine.txt"}, {}, KEPT)  # the user's alone stays as it is


# ---- ranks ----

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "11", "OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "8",
}  # fmt: skip
TORCHRUN = {
    "RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "12345",
}  # fmt: skip
SLURM = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "11", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "3",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "hls[01-02]",
    "SLURM_JOB_ID": "77",
}  # fmt: skip
HYDRA = {"PMI_RANK": "11", "PMI_SIZE": "16", "MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "8"}
MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "12345"}
CASES = {
    "torchrun": (TORCHRUN, MASTER),
    "Open MPI": (OPEN_MPI | MASTER, MASTER),
    "Open MPI without an address": (OPEN_MPI, {}),
    "Slurm": (SLURM, {"MASTER_ADDR": "hls01", "MASTER_PORT": "20077"}),
    "Hydra": (HYDRA, {}),
}


@pytest.mark.parametrize("launcher", CASES)
def test_every_launchers_ranks_are_told_in_the_names_that_the_package_knows(launcher: str) -> None:
    """Its default address is this host, right for one box only: without an address of ours none is made up."""
    env, address = CASES[launcher]
    told = of_ranks(from_env(env), env)
    assert told == {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"} | address


@pytest.mark.parametrize("launcher", CASES)
def test_whoever_reads_the_environment_afterwards_sees_the_same_world(launcher: str) -> None:
    env, _ = CASES[launcher]
    before = from_env(env)
    after = from_env(env | of_ranks(before, env))
    for name in ("rank", "size", "local_rank", "local_size", "address"):
        assert getattr(after, name) == getattr(before, name)


def test_an_ipv6_address_stays_whole() -> None:
    told = of_ranks(World(0, 2, 0, 2, address="fe80::1:29500"), {})
    assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("fe80::1", "29500")


def test_one_process_alone_is_no_rank() -> None:
    assert of_ranks(World(), {}) == {}


@pytest.mark.parametrize(("modules", "enough"), [("0,1", False), ("0,1,2,3,4,5,6", False), ("0,1,2,3,4,5,6,7", True)])
def test_more_processes_than_visible_modules_are_refused(modules: str, enough: bool) -> None:
    env = OPEN_MPI | {MODULES: modules}
    if enough:
        assert of_ranks(from_env(env), env)["LOCAL_RANK"] == "3"
        return
    with pytest.raises(UserError, match=f"8 processes on this host, but {MODULES}={modules} names"):
        of_ranks(from_env(env), env)


def test_the_engine_sets_all_of_it_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package reads them once, at its import: they must stand there before torch's or its own."""
    monkeypatch.setattr(bertkit_gaudi.os, "environ", seen := dict(OPEN_MPI))
    order: list[bool] = []
    real = __import__

    def importing(name: str, *rest: object) -> object:
        if name.startswith(("bertkit_gaudi.device", "bertkit_torch.engine", "torch", "habana")):
            order.append({"LOCAL_RANK", LAZY, INT64} <= seen.keys())
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("builtins.__import__", importing)
    with pytest.raises(ImportError):
        GaudiBackend().engine(SimpleNamespace(settings={}, precision="bf16"), from_env(OPEN_MPI))  # type: ignore[arg-type]
    assert order == [True]
