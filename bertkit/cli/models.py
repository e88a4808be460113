"""`bertkit models`"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put, put_json


def models(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Data folder.")] = Path("data"),
    json: Json = False,
) -> None:
    """List model sizes and published models for -m: parameters, FLOPs, download size and local path.

    Examples:

      bertkit models

      bertkit models --json
    """
    sizes, published = _sizes(), _published(data_dir)
    if json:
        by_name = {name: row for row in published for name in row["names"]}
        named = [row | {"published": by_name.get(row["name"])} for row in sizes]
        put_json(json_format.dumps(named + _others(published)))
        return
    put("size    layers  hidden  heads  parameters (M)  GFLOP a sequence of 128, forward")
    for row in sizes:
        put(
            f"{row['name']:<8}{row['layers']:>6}{row['hidden']:>8}{row['heads']:>7}"
            f"{row['parameters'] / 1e6:>16.1f}{row['gflop_forward_128']:>12.2f}"
        )
    put("\npre-trained model                      size    to fetch  here   other names")
    for row in published:
        here = "yes" if row["path"] else "-"
        put(
            f"{row['model']:<38} {row['architecture']:<7}{row['fetch']:>9}  {here:<6} "
            f"{', '.join(name for name in row['names'] if name != row['model'])}"
        )
    put("\n-m also takes a folder with config.json and weights, a *.ckpt or .pt checkpoint, or a hub name")


def _sizes() -> list[dict[str, Any]]:
    import numpy as np

    from bertkit.engine.flops import forward_flops
    from bertkit.model.config import ARCHITECTURES, Head
    from bertkit.model.parameters import count

    return [
        {
            "name": name,
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "heads": config.num_attention_heads,
            "parameters": count(config),
            "gflop_forward_128": forward_flops(config, Head("classification", 2), np.array([128])) / 1e9,
        }
        for name, config in ARCHITECTURES.items()
    ]


def _published(data_dir: Path) -> list[dict[str, Any]]:
    """The published models by their names, and where each is on this computer."""
    from bertkit.data.fetching import size_of
    from bertkit.model.names import all_names, find_local, published_models

    rows = []
    for source in published_models():
        place = find_local(source, data_dir.expanduser())
        rows.append(
            {
                "model": source.name,
                "names": list(all_names(source)),
                "architecture": source.architecture,
                "casing": source.casing,
                "terms": source.terms,
                "fetch": size_of(source).replace("about ", "~").replace(".0 MB", " MB"),
                "path": str(place.path) if place else None,
                "place": place.said if place else None,
            }
        )
    return rows


def _others(published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Published models that no size is called after."""
    from bertkit.model.config import ARCHITECTURES

    return [{"name": row["model"], "published": row} for row in published if not set(row["names"]) & set(ARCHITECTURES)]
