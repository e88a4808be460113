"""A model at a server, used as one on a device: encoded and decoded here, computed there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.data.tasks import find_task
from bertkit.data.tasks.pretrain import refuse
from bertkit.data.tasks.task import Answered, Part
from bertkit.distributed.world import World
from bertkit.engine.protocol_tensors import tensor
from bertkit.engine.remote import RemoteModel, infer
from bertkit.engine.remote_engine import RemoteEngine
from bertkit.errors import UserError
from bertkit.recipes.recipe import Recipe
from bertkit.training.evaluation import answer
from bertkit.training.inference import Loaded, check_run, file_part, own_task
from bertkit.training.recipe_parts import answer_rules
from bertkit.training.setup import check_segments, find_model

SECOND = "text_pair"  # an input that may be left out, where the model takes single texts too
AHEAD = 8  # requests made at a time, for each that is in flight


@dataclass(frozen=True)
class Asking:
    """How a server is asked."""

    size: int  # sequences of a request
    concurrency: int  # requests in flight
    patience: float  # seconds for which a server is asked again whose queue is full


def load_remote(recipe: Recipe, model: RemoteModel, how: Asking) -> Loaded:
    """The server's model for the recipe's task; vocabulary and labels are those of `recipe.model`.

    Raises UserError where the server's tensors are not those of the task's head.
    """
    task = own_task(recipe) or find_task(recipe.task)
    if task.head.kind == "pretraining":
        refuse(task)
    engine = RemoteEngine(model, task.head, how.size, how.concurrency, how.patience)
    source = find_model(recipe)
    if task.head.kind == "span":
        check_segments(source, task.name)
    check_run(recipe, task, source, force=False)
    return Loaded(task, source, engine, "", "server")


def answer_file(loaded: Loaded, recipe: Recipe, file: Path, how: Asking, display: Display) -> tuple[Part, Answered]:
    """The answers to a file in the format of the task's test or dev set, and its scores where it has labels."""
    part = file_part(loaded, recipe, file, display)
    at_once = how.size * how.concurrency * AHEAD
    return part, answer(loaded.engine, loaded.task, part, answer_rules(recipe), at_once, World(), display)


# ---- a model that takes texts ----


def text_inputs(model: RemoteModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of the model's inputs. Raises UserError where they are not these texts; the second may be missing."""
    own = tuple(one.name for one in model.inputs)
    if any(one.datatype != "BYTES" for one in model.inputs) or not set(own) <= set(wanted) or wanted[0] not in own:
        raise UserError(
            f"the server's model {model.name} takes {', '.join(own)}, not {' and '.join(wanted)}",
            "name another with --model, or give the trained model with --run for one of token ids",
        )
    return tuple(name for name in wanted if name in own)


def ask_texts(
    model: RemoteModel, names: Sequence[str], examples: Iterable[Sequence[str]], how: Asking
) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """(an example's texts, what the model says of it by the names of its outputs), in their order.

    `names`: as `text_inputs` gave them. Raises UserError for an example with more or fewer texts.
    """
    rows = iter(examples)
    with ThreadPoolExecutor(how.concurrency, "request") as pool:
        while some := list(islice(rows, how.size * how.concurrency * AHEAD)):
            parts = [some[first : first + how.size] for first in range(0, len(some), how.size)]
            for part, found in zip(parts, pool.map(lambda part: _ask(model, names, part, how), parts), strict=True):
                yield from zip(part, found, strict=True)


def _ask(
    model: RemoteModel, names: Sequence[str], examples: Sequence[Sequence[str]], how: Asking
) -> list[dict[str, Any]]:
    names = names[: len(examples[0])] if names[1:] == (SECOND,) else names
    for texts in examples:
        if len(texts) != len(names):
            wants = " and ".join(names)
            raise UserError(f"an example has {len(texts)} texts, but {model.name} takes {wants}", "give those")
    inputs = [
        tensor(name, _column(model, name, [texts[number] for texts in examples])) for number, name in enumerate(names)
    ]
    outputs = infer(model, inputs, how.patience).outputs
    columns = {
        one.name: one.texts() if one.datatype == "BYTES" else one.values.reshape(len(one.values), -1).tolist()
        for one in outputs
    }
    if any(len(values) != len(examples) for values in columns.values()):
        raise UserError(f"the server's model {model.name} did not answer each text", "check the server's model")
    return [{name: _plain(values[row]) for name, values in columns.items()} for row in range(len(examples))]


def _column(model: RemoteModel, name: str, texts: Sequence[str]) -> np.ndarray:
    """Texts as the server has them: (B,), or (B, 1) where its metadata have two axes."""
    axes = next(len(one.shape) for one in model.inputs if one.name == name)
    made = np.empty(len(texts), object)
    made[:] = list(texts)
    return made.reshape(-1, 1) if axes > 1 else made


def _plain(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value
