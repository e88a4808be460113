"""`bertkit models`"""

from __future__ import annotations

import json as json_format
from typing import Any

from bertkit.commands.options import Json
from bertkit.streams import put, put_json


def models(json: Json = False) -> None:
    """List the sizes that -m knows by name, with their parameters and cost.

    Example:

      bertkit models --json
    """
    import numpy as np

    from bertkit.flops import forward_flops
    from bertkit.model_config import ARCHITECTURES, Head
    from bertkit.parameters import count

    table: list[dict[str, Any]] = []
    for name, config in ARCHITECTURES.items():
        table.append(
            {
                "name": name,
                "layers": config.num_hidden_layers,
                "hidden": config.hidden_size,
                "heads": config.num_attention_heads,
                "parameters": count(config),
                "gflop_forward_128": forward_flops(config, Head("classification", 2), np.array([128])) / 1e9,
            }
        )
    if json:
        put_json(json_format.dumps(table))
        return
    put("name    layers  hidden  heads  parameters (M)  GFLOP a sequence of 128, forward")
    for row in table:
        put(
            f"{row['name']:<8}{row['layers']:>6}{row['hidden']:>8}{row['heads']:>7}"
            f"{row['parameters'] / 1e6:>16.1f}{row['gflop_forward_128']:>12.2f}"
        )
    put("-m also takes a folder with config.json and model.safetensors, a *.ckpt or .pt checkpoint, or a hub name")
