"""What importing the package silently changes in torch."""

from __future__ import annotations

import datetime
import os
import pickle
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist

from habana_frameworks import _sim
from habana_frameworks.torch.hpu import random as hpu_random


def overwrite_torch_functions() -> None:
    _seeds()
    _fork_rng()
    if dist.is_available():
        _groups()
    if _sim.LAZY:
        _save()
        _load()


def _seeds() -> None:
    seed_of_host, draw_on_host = torch.manual_seed, torch.seed

    @wraps(seed_of_host)
    def manual_seed(seed: int) -> torch.Generator:
        hpu_random.manual_seed(seed)
        return seed_of_host(seed)

    @wraps(draw_on_host)
    def seed() -> int:
        hpu_random.seed()
        return draw_on_host()

    torch.manual_seed, torch.seed = manual_seed, seed


def _fork_rng() -> None:
    fork = torch.random.fork_rng

    @wraps(fork)
    def fork_rng(
        devices: Any = None,
        enabled: bool = True,
        _caller: str = "fork_rng",
        _devices_kw: str = "devices",
        device_type: str | None = None,
    ) -> Any:
        return fork(devices, enabled, _caller, _devices_kw, device_type or "hpu")

    torch.random.fork_rng = fork_rng


def _groups() -> None:
    """A group of the same ranks is made once; init_process_group takes only the arguments it knows."""
    default_device, new, init = dist.distributed_c10d._get_pg_default_device, dist.new_group, dist.init_process_group
    known: dict[tuple[str | None, tuple[int, ...]], Any] = {}
    cached = os.environ.get("PT_ENABLE_COMM_GROUP_CACHE", "1").lower() in ("1", "true")

    @wraps(default_device)
    def _get_pg_default_device(group: Any = None) -> torch.device:
        return torch.device("hpu") if dist.get_backend(group) == "hccl" else default_device(group)

    @wraps(new)
    def new_group(
        ranks: Any = None, timeout: Any = None, backend: str | None = None, pg_options: Any = None, **more: Any
    ) -> Any:
        key = (backend, tuple(sorted(ranks)) if ranks is not None else tuple(range(dist.get_world_size())))
        if not cached or not (backend is None or "hccl" in backend):
            return new(ranks, timeout, backend, pg_options, **more)
        if key not in known:
            known[key] = new(ranks, timeout, backend, pg_options, **more)
        return known[key]

    @wraps(init)
    def init_process_group(
        backend: str | None = None,
        init_method: str | None = None,
        timeout: datetime.timedelta | None = datetime.timedelta(seconds=1800),
        world_size: int = -1,
        rank: int = -1,
        store: Any = None,
        group_name: str = "",
        pg_options: Any = None,
    ) -> None:
        known.clear()
        init(backend, init_method, timeout, world_size, rank, store, group_name, pg_options)

    dist.distributed_c10d._get_pg_default_device = _get_pg_default_device
    dist.new_group, dist.init_process_group = new_group, init_process_group


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, dict):
        return type(value)((k, _moved(v, device)) for k, v in value.items())
    if isinstance(value, list):
        return [_moved(v, device) for v in value]
    if isinstance(value, tuple):
        return tuple(_moved(v, device) for v in value)
    return value.data.detach().clone().to(device) if isinstance(value, torch.Tensor) else value


def _save() -> None:
    """Lazy: every tensor goes to the host, and the pickle protocol is 4."""
    save = torch.save

    @wraps(save)
    def to_host(
        obj: object, f: Any, pickle_module: Any = pickle, pickle_protocol: int = 4, *rest: Any, **more: Any
    ) -> None:
        save(_moved(obj, "cpu"), f, pickle_module, pickle_protocol, *rest, **more)

    torch.save = to_host


def _load() -> None:
    """Lazy: a file is read to the host, then its tensors go where map_location says.

    The vendor's own reader of weights knows protocol 4 and torch's does not: for a file of that kind this one takes
    Python's, which is as good for a file of a test's own.
    """
    torch_load = torch.load

    def load(f: Any, map_location: Any, *rest: Any, **more: Any) -> Any:
        try:
            return torch_load(f, map_location, *rest, **more)
        except pickle.UnpicklingError as error:
            if "Unsupported operand" not in str(error):
                raise
            return torch_load(f, map_location, *rest, **more | {"weights_only": False})

    @wraps(torch_load)
    def by_host(f: Any, map_location: Any = None, *rest: Any, **more: Any) -> Any:
        if isinstance(map_location, str | torch.device) and torch.device(map_location).type == "hpu":
            return _moved(load(f, "cpu", *rest, **more), "hpu")
        return load(f, map_location, *rest, **more)

    torch.load = by_host
