"""The import that makes the device: `torch.hpu`, the patches of torch, and the ranks' environment."""

# ruff: noqa: E402 - the order is the contract's
import os

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
os.environ.setdefault("HABANA_PROFILE", "profile_api_light")

import habana_frameworks.autoload

habana_frameworks.autoload.is_loaded = True

import torch

import habana_frameworks._sim
from habana_frameworks.torch import hpu

torch._register_device_module("hpu", hpu)

import habana_frameworks.torch.core
import habana_frameworks.torch.distributed.hccl

__version__ = "1.24.0+standin"
