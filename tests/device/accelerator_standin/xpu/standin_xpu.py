"""What a build of torch for Intel GPUs has and the CPU's lacks, in torch.xpu itself."""

from __future__ import annotations

from typing import Any


class _Stream:
    """There is one; work is done at once."""

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass

    def wait_stream(self, other: _Stream) -> None:
        pass


def _autoload() -> None:
    import standin_device
    import torch.xpu

    c = standin_device.library()
    module = standin_device.fill(torch.xpu, c, "Stand-in Max 1550")
    for name, part in {
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": lambda stream: stream,
        "graph_pool_handle": lambda: (0, 0),
        "XPUGraph": standin_device.graphs(c),
    }.items():
        setattr(module, name, part)
    torch.version.xpu = "20260100"
