"""`gaudi_config.json` as optimum-habana wrote it; that package has ended (October 2026), its files have not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertkit.plugin import UserError, read_object, write_text
from bertkit_gaudi.environment import BF16_LIST, FP32_LIST

# What each key means here. A key with a reason is understood, but something else does what it asked for.
KNOWN = {
    "use_fused_adam": "the optimizer is FusedAdamW",
    "use_fused_clip_norm": "clipping is FusedClipNorm",
    "use_torch_autocast": "bf16 is autocast",
    "use_dynamic_shapes": "",
    "autocast_bf16_ops": "",
    "autocast_fp32_ops": "",
    "optimum_version": "",
    "transformers_version": "",
}
ENDED = ("use_habana_mixed_precision", "hmp_is_verbose", "hmp_bf16_ops", "hmp_fp32_ops", "hmp_opt_level")

# The lists of the vendor's PyTorch submission to MLPerf Training 3.1, BERT: bf16 where the bridge's own keep fp32
# (sums of the residual stream, gelu, both losses).
MLPERF_BF16 = tuple(
    "add addmm bmm dropout gelu index_add linear layer_norm matmul mm rsub softmax log_softmax "
    "cross_entropy_loss".split()
)
MLPERF_FP32 = ("embedding", "nll_loss", "true_divide", "div")


@dataclass(frozen=True)
class GaudiConfig:
    """What of it bertkit can do."""

    fused_adam: bool = True
    fused_clip_norm: bool = True
    dynamic_shapes: bool = False
    bf16_ops: tuple[str, ...] = ()
    fp32_ops: tuple[str, ...] = ()


def read_config(path: Path) -> GaudiConfig:
    """Raises UserError for what is not such a file, and for keys of the mixed precision that ended with 1.12."""
    held = read_object(path, "check device.gaudi_config")
    for key in held:
        if key in ENDED:
            cure = "name operators under autocast_bf16_ops and autocast_fp32_ops"
            raise UserError(f"{path}: {key} is of the mixed precision that ended with software 1.12", cure)
        if key not in KNOWN:
            raise UserError(f"{path}: there is no key {key!r}", f"known are {', '.join(KNOWN)}")
    return GaudiConfig(
        _flag(path, held, "use_fused_adam", True),
        _flag(path, held, "use_fused_clip_norm", True),
        _flag(path, held, "use_dynamic_shapes", False),
        _operators(path, held, "autocast_bf16_ops"),
        _operators(path, held, "autocast_fp32_ops"),
    )


def with_operators(config: GaudiConfig, lists: str) -> GaudiConfig:
    """`config` with the lists of `device.operators`. Raises UserError where both name operators."""
    if lists == "bridge":
        return config
    if config.bf16_ops or config.fp32_ops:
        raise UserError(
            f"device.operators={lists}, and the gaudi_config.json names operators too",
            "drop one of the two",
        )
    return replace(config, bf16_ops=MLPERF_BF16, fp32_ops=MLPERF_FP32)


def _flag(path: Path, held: Mapping[str, Any], key: str, default: bool) -> bool:
    value = held.get(key, default)
    if not isinstance(value, bool):
        raise UserError(f"{path}: {key} is {value!r}", "it is true or false")
    return value


def _operators(path: Path, held: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = [] if held.get(key) is None else held[key]
    if not isinstance(value, list) or not all(isinstance(name, str) and name.isidentifier() for name in value):
        raise UserError(f"{path}: {key} is no list of operators' names", 'write it as ["add", "linear"]')
    return tuple(value)


def write_lists(config: GaudiConfig, folder: Path) -> dict[str, Path]:
    """Files of operators, one a line, named by what is in them; by the variable that is to name each."""
    found = {}
    for variable, operators in ((BF16_LIST, config.bf16_ops), (FP32_LIST, config.fp32_ops)):
        if operators:
            text = "".join(f"{name}\n" for name in operators)
            path = folder / f"ops-{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
            write_text(path, text)
            found[variable] = path
    return found
