"""The environment variables that the vendor's software reads: which bertkit sets, keeps, or refuses by name.

They are read once, when torch or the vendor's package is first imported, so they are settled before that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import UserError, World

LAZY = "PT_HPU_LAZY_MODE"
BF16_LIST = "PT_HPU_AUTOCAST_LOWER_PRECISION_OPS_LIST"
FP32_LIST = "PT_HPU_AUTOCAST_FP32_OPS_LIST"
INT64 = "PT_ENABLE_INT64_SUPPORT"
RECIPES = "PT_HPU_RECIPE_CACHE_CONFIG"  # folder, whether it is emptied first, its size in MB
RECIPES_MB = 8192
MODULES = "HABANA_VISIBLE_MODULES"  # comma list: which modules this job may use; local rank r takes the r-th
PREFIXES = (
    "HABANA_", "HLS_", "HCCL_", "MULTI_HLS_IPS", "PT_HPU_", "PT_ENABLE_", "PT_RECIPE_", "GC_KERNEL_",
    "GRAPH_VISUALIZATION",
)  # fmt: skip
FORWARDED = (*PREFIXES, "LOG_LEVEL_", "ENABLE_CONSOLE", "FI_", "RDMAV_", "TCMALLOC_")

# Variables of the reference systems that nothing reads any more, and what took their place.
GONE: Mapping[str, str] = {
    "HCCL_OVER_TCP": "HCCL over TCP ended with software 1.7; HCCL_OVER_OFI=1 is its successor",
    "HCL_CONFIG_PATH": "HCL ended with software 1.8; ranks and hosts come from the launcher (MULTI_HLS_IPS, --hosts)",
    "HABANA_USE_STREAMS_FOR_HCL": "HCL ended with software 1.8; unset it",
    "HABANA_USE_PREALLOC_BUFFER_FOR_ALLREDUCE": "HCL ended with software 1.8; unset it",
    "HABANA_INITIAL_WORKSPACE_SIZE_MB": "it was the TensorFlow bridge's, which ended with software 1.16; unset it",
    "TF_BF16_CONVERSION": "TensorFlow ended with software 1.16; precision is -d bf16",
    "TF_ENABLE_BF16_CONVERSION": "TensorFlow ended with software 1.16; precision is -d bf16",
    "TF_PRELIMINARY_CLUSTER_SIZE": "TensorFlow ended with software 1.16; unset it",
    "NUM_WORKERS_PER_HLS": "bertkit launch -n (or --per-host) sets the number of processes",
    "USE_HOROVOD": "Horovod ended with the TensorFlow bridge; bertkit launch starts the processes",
    "LOWER_LIST": f"it is called {BF16_LIST} now",
    "FP32_LIST": f"it is called {FP32_LIST} now",
}


def refuse_gone(env: Mapping[str, str]) -> None:
    """Raises UserError for a variable that has no effect any more, so that nobody trusts in it."""
    for name, cure in GONE.items():
        if name in env:
            raise UserError(f"{name} is set, but no longer exists", cure)


def lazy(mode: str, env: Mapping[str, str]) -> bool:
    """Lazy or eager: as the setting says, or with `auto` as PT_HPU_LAZY_MODE does; eager where neither does.

    Raises UserError where they contradict each other.
    """
    said = env.get(LAZY)
    if mode == "auto":
        return said is not None and said != "0"
    if said is not None and (said != "0") != (mode == "lazy"):
        raise UserError(f"device.mode={mode}, but {LAZY}={said}", f"unset {LAZY}, or set device.mode=auto")
    return mode == "lazy"


def variables(
    settings: Mapping[str, object], env: Mapping[str, str], lists: Mapping[str, Path], recipes: Path
) -> dict[str, str]:
    """What is set for this process. `lists`: files of operators that autocast takes to bf16 and keeps in fp32, by
    their variable; `recipes`: the folder where compiled programs are kept between runs. Raises UserError for names
    that no longer exist."""
    refuse_gone(env)
    found = {LAZY: "1" if lazy(str(settings.get("mode", "auto")), env) else "0"}
    for name, path in lists.items():
        if name in env and env[name] != str(path):
            raise UserError(f"{name} is set, and so are operators of the job's own", f"unset {name}")
        found[name] = str(path)
    kept = f"{recipes},False,{RECIPES_MB}"
    return found | {INT64: env.get(INT64, "1"), RECIPES: env.get(RECIPES, kept)}


def of_ranks(world: World, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the vendor's package derives the card and the peers from; it knows torchrun's names and Open MPI's only.

    Raises UserError where fewer modules are visible than processes are here.
    """
    if world.size == 1:
        return {}
    modules = env.get(MODULES, "")
    if modules and world.local_size > (count := len(modules.split(","))):
        raise UserError(
            f"{world.local_size} processes on this host, but {MODULES}={modules} names {count}",
            "name one for each, or unset it",
        )
    address, _, port = world.address.rpartition(":")
    named = {"MASTER_ADDR": address, "MASTER_PORT": port} if address else {}
    ranks = {"RANK": world.rank, "WORLD_SIZE": world.size, "LOCAL_RANK": world.local_rank}
    whole = ranks | {"LOCAL_WORLD_SIZE": world.local_size}  # without it, whoever reads the rest sees half a world
    return named | {name: str(value) for name, value in whole.items()}


def describe(env: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """The variables in force, and which of them bertkit set."""
    names = sorted({name for name in env if name.startswith(PREFIXES)} | ours.keys())
    return ", ".join(f"{name}={env.get(name, ours.get(name, ''))}{' (ours)' if name in ours else ''}" for name in names)
