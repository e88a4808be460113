"""Fused optimizers."""

from habana_frameworks.torch.hpex.optimizers.adamw import FusedAdamW
from habana_frameworks.torch.hpex.optimizers.lamb import FusedLamb

__all__ = ["FusedAdamW", "FusedLamb"]
