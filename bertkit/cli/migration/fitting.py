"""A command fitted to what its backend can do, so that it runs as it stands on whichever chip is asked for."""

from __future__ import annotations

from bertkit.cli.migration.command import Draft
from bertkit.engine.interface import Backend
from bertkit.engine.registry import installed
from bertkit.recipes.recipe import DEVICE
from bertkit.recipes.resolve import read_recipe

COMPUTES = ("train", "evaluate", "predict", "ask", "bench", "distill")


TENSORFLOW = "tensorflow"  # the backend whose engine is TensorFlow's; those of the old commands are torch's


def fit(draft: Draft, asked: str, same_framework: bool = False) -> None:
    """Name the backend, `asked` in place of the old command's, and leave out what it does not have, with a note.

    `same_framework`: an old program of TensorFlow's is for the backend of TensorFlow.
    """
    named = asked or draft.options.pop("--backend", "")
    draft.options.pop("--backend", None)
    computes = draft.command[0] in COMPUTES or draft.command[:2] == ("data", "augment")
    if not computes or "-h" in draft.command or draft.server:
        return
    if same_framework:
        named = _of_the_framework(draft, named)
    if not named:
        _without_backend(draft)
        return
    draft.options = {"--backend": named, **draft.options}
    cards = installed()
    card = cards.get(named) or next((one for one in cards.values() if named in one.aliases), None)
    if card:
        _settings(draft, card)
        _precision(draft, card)


def _of_the_framework(draft: Draft, named: str) -> str:
    """The backend that computes with the old program's framework."""
    if draft.framework == "torch":
        whose = f"the engine of the backend {named}" if named else "each engine that is chosen by itself"
        draft.differs(f"--same-framework changes nothing: the old program is PyTorch's, and so is {whose}")
        return named
    if named == "gaudi":
        draft.differs(
            "no TensorFlow of today computes on a Gaudi: --same-framework is for a CPU or an NVIDIA GPU;"
            " without it the command is for a Gaudi, by PyTorch"
        )
    return TENSORFLOW


def _without_backend(draft: Draft) -> None:
    """The best that is ready is taken: settings of some backends only are for the user to add."""
    for key in [key for key in draft.sets if key.startswith(DEVICE)]:
        leaf = key.removeprefix(DEVICE)
        having = [name for name, card in installed().items() if leaf in card.settings]
        draft.do(f"add --set {key}={draft.sets.pop(key)} where the backend has it: {', '.join(having)}")


def _settings(draft: Draft, card: Backend) -> None:
    draft.sets |= {k: value for k, value in draft.wishes.items() if k.removeprefix(DEVICE) in card.settings}
    for key in [key for key in draft.sets if key.startswith(DEVICE)]:
        if key.removeprefix(DEVICE) not in card.settings:
            draft.lost(f"{key}={draft.sets.pop(key)}", f"the backend {card.name} has no such setting")
    layout = draft.sets.get("model.layout", "auto")
    if layout not in ("auto", *card.capabilities.layouts):
        draft.lost(f"model.layout={draft.sets.pop('model.layout')}", f"the backend {card.name} lays no batches out so")


def _precision(draft: Draft, card: Backend) -> None:
    """What the command says, or else its recipe."""
    recipe = draft.options.get("--recipe", "")
    said = draft.options.get("-d") or (str(read_recipe(recipe).get("precision", "auto")) if recipe else "auto")
    has = ("auto", *card.capabilities.precisions, *card.capabilities.answers_in)
    kept = [one for one in said.split(",") if one in has]
    if kept != said.split(","):
        draft.options["-d"] = ",".join(kept) or "auto"
        draft.differs(f"the backend {card.name} has no {said}: -d {draft.options['-d']} is taken")
