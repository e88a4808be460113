"""A trained model from whose answers, or from whose states, another learns: read, checked, and asked once for each row.

What it gave is kept under a key of all that shaped it, so that another run on the same data does not ask again.

Legend: N examples, T tokens, C outputs of the head, D width of the states side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features, cache_key, keep_arrays, kept_arrays
from bertkit.data.sampler import by_length
from bertkit.data.tasks.labels import to_answer
from bertkit.data.tasks.task import Task
from bertkit.distributed.consistency import anybody, everybody, gather_json
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Batch, Engine, Limits
from bertkit.errors import UserError
from bertkit.files.disk import sweep, temporary_beside
from bertkit.files.inputs import is_file
from bertkit.model.config import PER_TOKEN, Head
from bertkit.model.loading import ModelSource, starting_weights
from bertkit.model.vocabulary import Vocabulary
from bertkit.model.weights import Fit
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.sections import ModelSection
from bertkit.training.comparability import model_digest
from bertkit.training.evaluation import Predicts, check_finite, predict
from bertkit.training.inference import refuse_untrained
from bertkit.training.run_task import check_task, read_task
from bertkit.training.setup import ComputeTarget, choose_target, find_model, inference_job, warn_of
from bertkit.training.supply import Say, supply

logger = logging.getLogger(__name__)
STATES = np.float16  # as they are kept: 11 bits of a value that bf16 computes with 8
NOTHING = bytes(1 << 24)
Gather = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Teacher:
    """A trained model, read and checked, and where it will be computed."""

    name: str
    source: ModelSource
    head: Head  # the task's, or an encoder's with the states that are learned
    fit: Fit
    target: ComputeTarget

    @property
    def digest(self) -> str:
        return self.fit.digest or ""

    @property
    def said(self) -> str:
        """What it is, in words."""
        config = self.source.config
        told = f"teacher: {self.source.folder}, {config.num_hidden_layers} layers, hidden size {config.hidden_size}"
        return f"{told}, on backend {self.target.backend.name}"


def teacher_source(recipe: Recipe, task: Task, say: Say, may_fetch: bool) -> ModelSource:
    """The model that `distill.teacher` names. Raises UserError where it has no weights."""
    name = recipe.distill.teacher
    wanted = dataclasses.replace(recipe, model=ModelSection(name=name, start="pretrained"))
    source = find_model(wanted, start=supply(wanted, task, say, may_fetch=may_fetch))
    if source.folder is None:
        raise UserError(f"the teacher {name} is a size without weights", "name a trained model's folder")
    return source


def check_vocabulary(name: str, source: ModelSource, vocabulary: Vocabulary) -> None:
    """Raises UserError where the teacher has other word pieces than the model that learns."""
    if source.vocabulary.digest != vocabulary.digest or source.vocabulary.lower_case != vocabulary.lower_case:
        raise UserError(
            f"the teacher {name} has another vocabulary than the model that learns, so their tokens are not the same",
            "start from a model with the teacher's vocabulary (--set model.vocab=TEACHER names it for a size)",
        )


def answering_fit(recipe: Recipe, task: Task, source: ModelSource) -> Fit:
    """The teacher's weights with the task's head. Raises UserError where it is trained on another task, or on none."""
    name = recipe.distill.teacher
    refuse_untrained(name)
    for warning in check_task(read_task(source.folder) if source.folder else None, task, name, force=False):
        logger.warning("%s", warning)
    fit = starting_weights(source, task.head, recipe.seed)
    warn_of(fit)
    fit, _, warnings = to_answer(fit, source.folder, name, task)
    for warning in warnings:
        logger.warning("%s", warning)
    return fit


def teacher_target(recipe: Recipe, head: Head, own: ComputeTarget, dry_run: bool) -> ComputeTarget:
    """Where the teacher is computed: where the student is, or on `distill.teacher_backend` with its usual settings."""
    name = recipe.distill.teacher_backend
    if not name:
        return own
    wanted = dataclasses.replace(recipe, backend=name, device={})
    target = choose_target(wanted, head, "the teacher", training=False, dry_run=dry_run)
    needed = "teacher_words" if head.kind == "pretraining" else "teacher_states"
    if head.states and needed not in target.backend.capabilities.extras:
        raise UserError(
            f"backend {target.backend.name} does not give a teacher's states", "drop distill.teacher_backend"
        )
    return target


def encoding_teacher(recipe: Recipe, head: Head, target: ComputeTarget, source: ModelSource) -> Teacher:
    """The teacher's encoder, whose states `head` names."""
    fit = starting_weights(source, head, recipe.seed)
    return Teacher(recipe.distill.teacher, source, head, fit, target)


@dataclass(frozen=True)
class Asked:
    """A teacher's engine, computing each rank's share, whose parts the ranks exchange through another's."""

    engine: Engine
    exchange: Gather

    def predict(self, batch: Batch) -> Arrays:
        return self.engine.predict(batch)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.exchange(rows)


@contextlib.contextmanager
def asking(
    teacher: Teacher, recipe: Recipe, world: World, exchange: Gather, limits: Limits | None = None
) -> Iterator[Asked]:
    """The teacher on this rank's device, for as long as it is asked. `limits`: of other batches than evaluation's."""
    job = inference_job(recipe, teacher.head, teacher.target, teacher.source, teacher.fit)
    job = dataclasses.replace(job, limits=limits or job.limits)
    engine = teacher.target.backend.engine(job, dataclasses.replace(world, rank=0, size=1))
    try:
        yield Asked(engine, exchange)
    finally:
        engine.close()


# ---- logits ----


def logits_key(teacher: Teacher, task: Task, features: Features) -> str:
    return _key(teacher, task=task.name, labels=" ".join(task.labels), features=features.digest())


def _key(teacher: Teacher, **asked: str) -> str:
    """Of what the teacher is, how it is computed and what it is asked."""
    return cache_key(
        teacher=teacher.digest,
        model=model_digest(teacher.source.config),
        precision=teacher.target.precision,
        backend=teacher.target.backend.name,
        **asked,
    )


@dataclass(frozen=True)
class TeacherAnswers:
    """What a model, as a rule a teacher, gave for some examples."""

    arrays: Mapping[str, np.ndarray]
    computed: int  # examples that were computed for it, over all ranks; 0: all were kept from another run
    seconds: float  # that this took


def kept_logits(cache: Path | None, key: str) -> Mapping[str, np.ndarray] | None:
    """What an earlier run kept; None where it did not, or the file is damaged."""
    path = cache / f"teacher-{key}.safetensors" if cache else None
    if path is None or not is_file(path):
        return None
    try:
        return kept_arrays(path, key)
    except UserError as error:
        logger.warning("the teacher is asked anew: %s", error)
        return None


def keep_logits(cache: Path | None, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    if cache is not None:
        keep_arrays(cache / f"teacher-{key}.safetensors", key, arrays, "the teacher's logits")


def timed_outputs(
    engine: Predicts,
    head: Head,
    features: Features,
    size: int,
    world: World,
    display: Display,
    what: str = "asking the teacher",
    where: str = "the teacher",
) -> TeacherAnswers:
    """The outputs for every example, on every rank; a student's are timed as its teacher's. A collective."""
    start = time.perf_counter()
    with display.progress(what, len(features)) as bar:
        outputs = predict(engine, head, features, size, world, bar.add)
    check_finite(outputs, features, where)
    return TeacherAnswers(outputs, len(features), time.perf_counter() - start)


def as_labels(head: Head, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a batch that hold them (`bertkit.engine.interface.Batch`)."""
    if head.kind == "span":
        return {"teacher_token_logits": np.stack([outputs["start_logits"], outputs["end_logits"]], 1)}
    return {"teacher_token_logits" if head.kind in PER_TOKEN else "teacher_logits": outputs["logits"]}


# ---- states ----


def states_key(teacher: Teacher, features: Features) -> str:
    unlabelled = dataclasses.replace(features, labels={}, notes={})
    return _key(teacher, states=repr(teacher.head.all_states), features=unlabelled.digest())


def states_bytes(head: Head, features: Features) -> int:
    return len(features.input_ids) * head.outputs * np.dtype(STATES).itemsize


def check_room(cache: Path | None, head: Head, features: Features, most: float) -> Path:
    """The folder for the teacher's states. Raises UserError where there is none, or they are over `most` GB."""
    if cache is None:
        raise UserError("a teacher's states are kept in files, and data.cache is off", "name a folder with data.cache")
    needed = states_bytes(head, features) / 1e9
    if needed > most:
        raise UserError(
            f"the teacher's states of {len(features.input_ids):,} tokens take {needed:.1f} GB, over "
            f"distill.cache_gb = {most:g}",
            f"set distill.cache_gb={needed + 0.1:.1f} if {cache} has room, or train on fewer rows",
        )
    return cache


def ask_states(
    asked: Predicts, key: str, head: Head, features: Features, folder: Path, size: int, world: World, display: Display
) -> TeacherAnswers:
    """(T, D) states of every token, in a file that the ranks of this host share. A collective.

    Raises UserError where the disk is full, before anything is computed.
    """
    start = time.perf_counter()
    path = folder / f"teacher-{key}.npy"
    kept = _kept_states(path, features, head)
    if everybody(asked.gather, kept is not None) and kept is not None:
        return TeacherAnswers({"teacher_states": kept}, 0, 0.0)
    if world.local_size != world.size:
        raise UserError(
            "a teacher's states are kept in a file that all processes read, but these are on several hosts",
            "train with the processes of one host, or learn logits alone (distill.learn=logits)",
        )
    # A name of the first rank's own: another run may ask the same teacher now.
    part = folder / gather_json(asked.gather, temporary_beside(path).name)[0]
    if world.is_first:
        _make_room(part, features, head)
    anybody(asked.gather, True)  # the file is there
    states = np.load(part, mmap_mode="r+")
    computed = 0
    with display.progress("asking the teacher", len(features)) as bar:
        for examples in by_length(features.sizes, size, world.rank, world.size):
            batch = features.batch(examples)
            found = asked.predict(batch)["hidden"].astype(STATES)
            if not np.isfinite(found).all():
                raise UserError("the teacher has states over 65,504, or that are not finite", "try -d fp32")
            lengths = np.diff(batch["cu_seqlens"])
            rows = np.repeat(features.cu_seqlens[:-1][features.sequences(examples)], lengths)
            rows = rows + np.arange(len(rows)) - np.repeat(batch["cu_seqlens"][:-1], lengths)
            states[rows] = found
            computed += len(examples)
            bar.add(len(examples))
    states.flush()
    total = int(asked.gather(np.array([computed])).sum())
    if world.is_first:
        part.replace(path)
    anybody(asked.gather, True)  # it has its name
    return TeacherAnswers({"teacher_states": np.load(path, mmap_mode="r")}, total, time.perf_counter() - start)


def _kept_states(path: Path, features: Features, head: Head) -> np.ndarray | None:
    """What an earlier run left whole: only then does a file have this name."""
    if not is_file(path):
        return None
    try:
        states = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        logger.warning("the teacher is asked anew: %s is damaged: %s", path, error)
        return None
    return states if states.shape == (len(features.input_ids), head.outputs) and states.dtype == STATES else None


def _make_room(path: Path, features: Features, head: Head) -> None:
    """An empty file whose every byte has its place on the disk: a page that has none would end the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        shape = (len(features.input_ids), head.outputs)
        with path.open("xb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(STATES)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            for written in range(0, states_bytes(head, features), len(NOTHING)):
                file.write(NOTHING[: states_bytes(head, features) - written])
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        needed = states_bytes(head, features) / 1e9
        raise UserError(
            f"{path.parent}: no room for the teacher's states, {needed:.1f} GB: {error.strerror}",
            "free some space, name another folder with data.cache, or train on fewer rows",
        ) from None
