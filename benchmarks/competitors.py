"""Who competes, by name, and the environment in which each is started. No framework is imported here.

A name may end in `+malloc`: the same, started with glibc's allocator told to keep freed memory. Without it every large
tensor is mapped afresh and its pages are zeroed by the kernel at first touch, which costs any eager torch loop time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Padding = Literal["none", "longest", "full"]  # full: to 128 or 384


@dataclass(frozen=True)
class Competitor:
    name: str
    engine: Literal["bertkit", "hf", "onnxruntime", "openvino", "peak"]
    precision: Literal["fp32", "bf16", "int8"]
    padding: Padding
    grouped: bool = False  # computes batches of like length
    attention: Literal["", "eager", "sdpa"] = ""  # of transformers
    malloc: bool = False
    backend: str = "cpu"  # of bertkit


MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}

TRAIN = {
    one.name: one
    for one in (
        Competitor("bertkit-bf16", "bertkit", "bf16", "none"),
        Competitor("bertkit-fp32", "bertkit", "fp32", "none"),
        Competitor("tensorflow-bf16", "bertkit", "bf16", "none", backend="tensorflow"),
        Competitor("tensorflow-fp32", "bertkit", "fp32", "none", backend="tensorflow"),
        Competitor("jax-bf16", "bertkit", "bf16", "none", backend="jax"),
        Competitor("jax-fp32", "bertkit", "fp32", "none", backend="jax"),
        Competitor("hf-default", "hf", "fp32", "full", attention="sdpa"),
        Competitor("hf-bf16-dynamic", "hf", "bf16", "longest", attention="sdpa"),
        Competitor("hf-best", "hf", "bf16", "longest", grouped=True),
    )
}
INFER = {
    one.name: one
    for one in (
        Competitor("bertkit-bf16", "bertkit", "bf16", "none", grouped=True),
        Competitor("bertkit-fp32", "bertkit", "fp32", "none", grouped=True),
        Competitor("bertkit-int8", "bertkit", "int8", "none", grouped=True),
        Competitor("hf-default", "hf", "fp32", "full", attention="sdpa"),
        Competitor("hf-bf16-sorted", "hf", "bf16", "longest", grouped=True),
        Competitor("onnxruntime-fp32", "onnxruntime", "fp32", "longest", grouped=True),
        Competitor("onnxruntime-int8", "onnxruntime", "int8", "longest", grouped=True),
        Competitor("openvino-fp32", "openvino", "fp32", "longest", grouped=True),
        Competitor("openvino-bf16", "openvino", "bf16", "longest", grouped=True),
        Competitor("openvino-int8", "openvino", "int8", "longest", grouped=True),
    )
}
PEAK = Competitor("peak", "peak", "fp32", "none")  # measures the machine's dense rate in each round
USUAL = {
    "train": ("bertkit-bf16", "hf-default", "hf-bf16-dynamic", "hf-best", "hf-best+malloc"),
    "infer": (*INFER, "hf-bf16-sorted+malloc"),
}


def find(mode: str, name: str, best_attention: Literal["eager", "sdpa"]) -> Competitor:
    """The competitor called `name`; where its attention is open, `best_attention`."""
    known = TRAIN if mode == "train" else INFER
    plain = name.removesuffix("+malloc")
    if plain not in known:
        raise SystemExit(f"no competitor {name!r}; there are {', '.join(known)}, each also with +malloc")
    found = replace(known[plain], name=name, malloc=plain != name)
    return replace(found, attention=best_attention) if found.engine == "hf" and not found.attention else found


def environment(one: Competitor, threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """`base` with this competitor's threads and allocator; the others' allocator settings are taken out."""
    kept = {name: value for name, value in base.items() if name not in MALLOC}
    return kept | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"} | (MALLOC if one.malloc else {})
