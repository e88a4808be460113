"""`bertkit backends`"""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.engine.interface import Backend


def backends(
    name: Annotated[str | None, typer.Argument(help="Show one backend with its settings.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List backends: installed, ready on this host, or what they lack.

    Examples:

      bertkit backends

      bertkit backends cpu
    """
    from bertkit.engine.registry import find, installed

    cards = [find(name)] if name else list(installed().values())
    table = [_describe(card) for card in cards]
    if json:
        put_json(json_format.dumps(table))
        return
    for entry in table:
        aliases = f" ({', '.join(entry['aliases'])})" if entry["aliases"] else ""
        put(f"{entry['name']}{aliases}: {'ready' if entry['ready'] else 'not ready'}: {entry['detail']}")
        if name:
            put(f"  precisions: {', '.join(entry['precisions'])}")
            put(f"  layouts: {', '.join(entry['layouts'])}")
            for key, setting in entry["settings"].items():
                put(f"  --set device.{key}={setting['default']}: {setting['help']}")


def _describe(card: Backend) -> dict[str, Any]:
    probe = card.probe()
    return {
        "name": card.name,
        "aliases": list(card.aliases),
        "ready": probe.ready,
        "detail": probe.detail,
        "precisions": list(card.capabilities.precisions),
        "native_precisions": list(probe.precisions),
        "layouts": list(card.capabilities.layouts),
        "settings": {
            key: {"default": setting.default, "help": setting.help, "choices": list(setting.choices)}
            for key, setting in card.settings.items()
        },
    }
