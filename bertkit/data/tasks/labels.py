"""What a trained classifier's outputs mean: the labels that its config.json names, matched by name to the task's.

Names are compared as they stand, then without regard to case and to which of `-`, `_` and space is used. A task's
labels have the names that its files use and, where its files hold numbers, those that Hugging Face's dataset gives
them. More is not guessed: where no name fits, as LABEL_0 does not, the outputs are taken in the task's order, and that
is said.
Rows of the head are then put into the task's order, so that all that follows (scores, answers, further training, the
config.json of the next run) needs no second order.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bertkit.data.tasks.task import Task
from bertkit.errors import UserError
from bertkit.files.inputs import is_file, kind, mapping_value, read_object, whole_number, whole_value
from bertkit.model.config import ARCHITECTURE_OF_HEAD, Head, ModelConfig
from bertkit.model.parameters import initial_value
from bertkit.model.weights import Fit

CLASSIFIER = ("classifier.weight", "classifier.bias")
KINDS = ("classification", "multilabel", "regression", "choice", "tokens")  # heads whose parameters these are
# What the classes of transformers do whose head has parameters of the same names, and is of one kind only
DOES: Mapping[str, tuple[str, str]] = {
    ARCHITECTURE_OF_HEAD["tokens"]: ("labels each token", "label tokens"),
    ARCHITECTURE_OF_HEAD["choice"]: ("chooses between texts", "choose between texts"),
}
PROBLEM_OF: Mapping[str, str] = {  # transformers' word for a head of KINDS
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
PROBLEMS = tuple(PROBLEM_OF.values())
MOST = 10_000  # outputs; a classifier of more is none of ours
SHOWN = 6  # labels in a message
_NUMBERED = re.compile(r"(?:label[-_ ]?)?([0-9]{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """What a config.json says of the head."""

    where: str
    names: tuple[str, ...] | None  # of the outputs, in their order; None: it names none
    count: int | None  # of the outputs, by names or num_labels
    problem: str | None  # problem_type
    architecture: str  # "" where it names none


# ---- using ----


def to_answer(fit: Fit, folder: Path | None, name: str, task: Task) -> tuple[Fit, tuple[str, ...], tuple[str, ...]]:
    """(the fit with the head's rows in the task's order, what to say, what to warn of), for a model that is to answer.

    `name`: how the user calls the model. Raises UserError where its head is none for the task: its answers would be
    random, or another task's.
    """
    cure = f"train it first: bertkit train -m {name} -t {task.name}"
    told = None if folder is None or task.head.kind not in KINDS else read_told(folder)
    if told and not _lacks(fit):
        differs = _of_another_kind(told, task.head) or _of_another_count(told, task, _reshaped(fit))
        if differs:
            raise UserError(f"{name} {differs}", cure)
    untrained = (*fit.missing, *fit.reshaped)
    if untrained:
        raise UserError(f"{folder} has no trained head for {task.name}: it lacks {', '.join(untrained)}", cure)
    return (fit, (), ()) if told is None else _ordered(fit, told, task)


def to_learn(
    fit: Fit, folder: Path | None, task: Task, config: ModelConfig, seed: int
) -> tuple[Fit, tuple[str, ...], tuple[str, ...]]:
    """As `to_answer`, for a model that is to be trained: a head of another kind or number of outputs starts anew."""
    if folder is None or task.head.kind not in KINDS or _lacks(fit) or _reshaped(fit):
        return fit, (), ()
    told = read_told(folder)
    if differs := _of_another_kind(told, task.head):
        warning = f"{told.where}: its model {differs}, so the head starts anew"
        return _anew(fit, config, seed), (), (warning,)
    if task.head.kind == "tokens" and told.names is not None and set(told.names) != set(task.labels):  # all have O
        warning = f"{told.where}: its tags ({_some(told.names)}) are others than the task's, so the head starts anew"
        return _anew(fit, config, seed), (), (warning,)
    return _ordered(fit, told, task)


def _lacks(fit: Fit) -> bool:
    return any(name in fit.missing for name in CLASSIFIER)


def _reshaped(fit: Fit) -> bool:
    return any(name in fit.reshaped for name in CLASSIFIER)


def _of_another_kind(told: Told, head: Head) -> str:
    """What the model does in place of what the task asks for; "" where its config.json does not say so."""
    own = ARCHITECTURE_OF_HEAD[head.kind]
    if told.architecture not in ("", own) and (own in DOES or told.architecture in DOES):
        does = DOES[told.architecture][0] if told.architecture in DOES else f"does not {DOES[own][1]}"
        return f"is a {told.architecture}: it {does}"
    if own in DOES:
        return ""
    wanted = PROBLEM_OF[head.kind]
    if told.problem and told.problem != wanted:
        return f"was trained for {told.problem.replace('_', ' ')}, not for {wanted.replace('_', ' ')}"
    return ""


def _of_another_count(told: Told, task: Task, reshaped: bool) -> str:
    """In words, how the head's number of outputs is another than the task's, as is known by `reshaped`; "": it is not.

    Where the config.json tells the task's number although the weights have another, or tells none, no number is named.
    """
    if not reshaped:
        return ""
    outputs = task.head.outputs
    wanted = f"{task.name} has {outputs if outputs > 1 else 'one output, a score'}"
    if told.count in (None, outputs):
        return f"has a classifier with another number of outputs; {wanted}"
    names = f" ({_some(told.names)})" if told.names else ""
    return f"has {f'{told.count} classes{names}' if told.count != 1 else 'one output, a score'}, {wanted}"


def _anew(fit: Fit, config: ModelConfig, seed: int) -> Fit:
    fresh = {name: initial_value(name, fit.weights[name].shape, config, seed) for name in CLASSIFIER}
    return dataclasses.replace(fit, weights={**fit.weights, **fresh}, missing=(*fit.missing, *CLASSIFIER))


def _ordered(fit: Fit, told: Told, task: Task) -> tuple[Fit, tuple[str, ...], tuple[str, ...]]:
    """As `to_answer`; the head's parameters have the task's number of outputs."""
    outputs = task.head.outputs
    if task.head.kind == "choice":  # one output; transformers' config.json names those of another class
        return fit, (), ()
    if told.count not in (None, outputs):
        raise UserError(
            f"{told.where}: has {told.count} labels, but the weights' head has {outputs} outputs", "correct config.json"
        )
    if task.head.kind == "regression":
        return fit, (), ()
    shown = ", ".join(task.labels)
    if told.names is None:
        said = f"labels: {told.where} names none, so the outputs are taken in {task.name}'s order: {shown}"
        return fit, (), (said,)
    order = matched(told.names, task, told.where)
    if order is None:
        pairs = ", ".join(f"{name} is {label}" for name, label in zip(told.names, task.labels, strict=True))
        said = f"labels: {told.where} names none of {task.name}'s, so the outputs are taken in its order: {pairs}"
        return fit, (), (said,)
    if order == tuple(range(outputs)):
        return fit, (), ()
    moved = {name: fit.weights[name][list(order)] for name in CLASSIFIER}
    said = f"labels: {told.where} has them as {_some(told.names)}; matched by name to {task.name}'s {shown}"
    return dataclasses.replace(fit, weights={**fit.weights, **moved}), (said,), ()


# ---- matching ----


def matched(names: Sequence[str], task: Task, where: object) -> tuple[int, ...] | None:
    """For each of the task's labels, the place of its name among `names`; None where no name is one of them.

    Raises UserError where some are and others are not, where two are alike, and where LABEL_n is not output n.
    """
    for naming in namings(task):
        if len(names) == len(naming) and set(names) == set(naming):
            return tuple(names.index(label) for label in naming)
    alike = [_alike(name) for name in names]
    if len(set(alike)) < len(alike):
        _refuse(where, f"two of its labels are the same: {_some(names)}")
    for naming in namings(task):
        wanted = [_alike(label) for label in naming]
        if len(alike) == len(wanted) and set(alike) == set(wanted):
            return tuple(alike.index(label) for label in wanted)
    known = {_alike(label) for naming in namings(task) for label in naming}
    if any(name in known for name in alike):
        _refuse(where, f"its labels ({_some(names)}) fit in part only those of {task.name} ({', '.join(task.labels)})")
    numbers = [int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name.strip()))]
    if len(numbers) == len(names) and numbers != list(range(len(names))):
        _refuse(where, f"its labels are numbers, but in another order than the outputs: {_some(names)}")
    return None


def namings(task: Task) -> tuple[tuple[str, ...], ...]:
    """The names that the task's labels go by, each in the order of the outputs."""
    return (task.labels, task.other_labels) if task.other_labels else (task.labels,)


def class_named(text: str, task: Task) -> int | None:
    """The number of the task's label that `text` names; None where it names none."""
    for same in (str, _alike):
        for naming in namings(task):
            wanted = [same(label) for label in naming]
            if same(text) in wanted:
                return wanted.index(same(text))
    return None


def _alike(name: str) -> str:
    return " ".join(re.split(r"[-_\s]+", name)).strip().casefold()


# ---- reading ----


def read_told(folder: Path) -> Told:
    """What the folder's config.json, or Google's bert_config.json, says of the head.

    Raises UserError where it says it in no way that transformers writes, or says two things at once.
    """
    path = folder / "config.json"
    path = path if is_file(path) else folder / "bert_config.json"
    return told(read_object(path), str(path))


def told(raw: Mapping[str, Any], where: str) -> Told:
    """As `read_told`, of the keys of a config.json."""
    names = _names(raw, where)
    count = None
    if raw.get("num_labels") is not None:
        count = whole_value(raw["num_labels"], f"{where}: num_labels", 1, MOST)
    if None not in (names, count) and len(names or ()) != count:
        _refuse(where, f"num_labels is {count}, but it names {len(names or ())} labels: {_some(names or ())}")
    problem = raw.get("problem_type")
    if problem is not None and problem not in PROBLEMS:
        shown = repr(problem) if isinstance(problem, str) else kind(problem)
        _refuse(where, f"problem_type is {shown}, none of {', '.join(PROBLEMS)}")
    classes = raw.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    return Told(where, names, len(names) if names else count, problem, first)


def _names(raw: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    """By id2label; by label2id where the other is missing or has no names of its own (LABEL_0, LABEL_1, …)."""
    by_id, by_name = _by_id(raw.get("id2label"), where), _by_name(raw.get("label2id"), where)
    if by_id is None or by_name is None or by_id == by_name or _plain(by_name):
        return by_id or by_name
    if _plain(by_id) and len(by_id) == len(by_name):
        return by_name
    _refuse(where, f"id2label and label2id differ: {_some(by_id)} and {_some(by_name)}")


def _by_id(value: object, where: str) -> tuple[str, ...] | None:
    if value is None or value == {}:
        return None
    found: dict[int, str] = {}
    for key, name in mapping_value(value, f"{where}: id2label").items():
        number = whole_number(key, f"{where}: a key of id2label", 0, MOST)
        if isinstance(name, bool) or not isinstance(name, str | int):
            _refuse(where, f"id2label calls {number} {kind(name)}, not a text")
        if number in found:
            _refuse(where, f"id2label has {number} twice")
        found[number] = str(name)
    return _whole(found, where, "id2label")


def _by_name(value: object, where: str) -> tuple[str, ...] | None:
    if value is None or value == {}:
        return None
    found: dict[int, str] = {}
    for name, number in mapping_value(value, f"{where}: label2id").items():
        what = f"{where}: label2id of {name[:60]!r}"
        place = whole_number(number, what, 0, MOST) if isinstance(number, str) else whole_value(number, what, 0, MOST)
        if place in found:
            _refuse(where, f"label2id calls {place} both {found[place]!r} and {name!r}")
        found[place] = name
    return _whole(found, where, "label2id")


def _whole(found: Mapping[int, str], where: str, what: str) -> tuple[str, ...]:
    missing = [number for number in range(max(found) + 1) if number not in found]
    if missing:
        _refuse(where, f"{what} lacks {missing[0]}; it goes up to {max(found)}")
    return tuple(found[number] for number in sorted(found))


def _plain(names: Sequence[str]) -> bool:
    """Whether they are what transformers calls outputs that nobody named."""
    return list(names) == [f"LABEL_{number}" for number in range(len(names))]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:SHOWN])
    return shown + (", …" if len(names) > SHOWN else "")


def _refuse(where: object, cause: str) -> NoReturn:
    raise UserError(f"{where}: {cause}", "correct id2label, label2id, num_labels or problem_type there")
