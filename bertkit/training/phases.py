"""Phases of pre-training: each its own data, batch, length and learning rate; the moments go through all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.pretraining.dataset import PretrainingData, open_data
from bertkit.data.pretraining.evaluation_set import EvaluationSet, first_rows, set_apart
from bertkit.data.pretraining.formats.rows import Rows, bare
from bertkit.data.pretraining.masking import MaskingRule
from bertkit.data.pretraining.sampler import BinnedSampler
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.model.loading import ModelSource
from bertkit.model.vocabulary import Vocabulary
from bertkit.recipes.recipe import Recipe
from bertkit.training.recipe_parts import UpdateSettings, make_update_settings, with_global_batch
from bertkit.training.schedule import Schedule
from bertkit.training.setup import check_length, check_segments

TRAINING = ("phase{number}", "train", "2048_shards_uncompressed")  # folders that may hold the shards; MLPerf's last
EVALUATION = ("eval", "eval_set_uncompressed")
# section -> its settings that the second phase may have its own of; `data_dir` stands for data.dir
OWN = {
    "data": ("dir", "eval_dir", "seq_length", "most_masked"),
    "train": ("batch_size", "micro_batch_size", "global_batch", "steps"),
    "optimizer": ("learning_rate",),
    "schedule": ("warmup", "warmup_steps", "power", "start"),
}


@dataclass(frozen=True)
class Phase:
    """One phase, ready to train on."""

    number: int
    update_settings: UpdateSettings
    place: Path
    masked_once: bool  # by the seed, every epoch alike
    data: PretrainingData
    sampler: BinnedSampler
    scored_on: EvaluationSet
    before: int  # updates of the phases before it
    rate: Schedule  # by the update within the phase
    unigram: np.ndarray  # (V,) how often each piece stands in its smallest shard; special ones do not count

    @property
    def steps(self) -> int:
        """Updates of this phase."""
        return self.update_settings.updates

    @property
    def end(self) -> int:
        """The run's update that is its last."""
        return self.before + self.steps

    def samples(self, step: int) -> int:
        """Sequences trained on in its first `step` updates, over all ranks."""
        epochs, rest = divmod(step, self.sampler.steps_per_epoch)
        first = epochs * self.sampler.steps_per_epoch + 1
        return epochs * self.sampler.examples + self.sampler.amount(first, first + rest - 1)


class MaskedOnce(PretrainingData):
    """Dynamic masks that every epoch has alike, as for learning by heart."""

    def at(self, epoch: int) -> PretrainingData:
        return self


def of_phase(recipe: Recipe, number: int) -> Recipe:
    """The recipe as it is for one phase."""
    if number == 1:
        return recipe
    own: Any = recipe.phase2
    changed: dict[str, Any] = {}
    for section, names in OWN.items():
        found = {name: getattr(own, "data_dir" if name == "dir" else name) for name in names}
        given = {name: value for name, value in found.items() if value not in (None, "")}
        changed[section] = dataclasses.replace(getattr(recipe, section), **given)
    return dataclasses.replace(recipe, **changed)


def open_phases(recipe: Recipe, source: ModelSource, processes: int) -> tuple[Phase, ...]:
    """The recipe's phases, in their order. Raises UserError where data is missing or does not fit the model."""
    numbers = [int(word) for word in recipe.train.phases.split(",")]
    phases: list[Phase] = []
    for number in numbers:
        own = with_global_batch(of_phase(recipe, number), processes)
        phases.append(_open(own, number, source, processes, phases[-1].end if phases else 0))
    return tuple(phases)


def _open(recipe: Recipe, number: int, source: ModelSource, processes: int, before: int) -> Phase:
    check_length(recipe.data, source)
    root = Path(recipe.data.dir).expanduser()
    place = training_place(root, number)
    data = open_shards(place, recipe, source)
    unigram = frequencies(check_data(data, place, recipe, source), source.vocabulary)
    sampler = data.sampler(recipe.train.batch_size * processes, recipe.seed)
    parts = first_rows(sampler.parts, recipe.data.train_rows)
    if own := evaluation_place(recipe, place, root):
        found = open_shards(own, recipe, source)
        check_data(found, own, recipe, source)
        numbers = np.arange(len(found))[: recipe.data.eval_rows or None]
        scored_on = EvaluationSet(found, numbers, "training" if own == place else "own", own)
    else:
        parts, scored_on = set_apart(data, parts, place, recipe.data.held_out, recipe.seed)
    sampler = dataclasses.replace(sampler, parts=parts)
    update_settings = make_update_settings(recipe, sampler.steps_per_epoch, processes)
    return Phase(
        number=number,
        update_settings=update_settings,
        place=place,
        masked_once=recipe.data.masking == "once",
        data=data,
        sampler=sampler,
        scored_on=scored_on,
        before=before,
        rate=update_settings.rate(),
        unigram=unigram,
    )


def training_place(root: Path, number: int) -> Path:
    """The folder with the phase's shards: one in the data folder, or the data folder itself."""
    inside = (root / name.format(number=number) for name in TRAINING)
    return next((folder for folder in inside if folder.is_dir()), root)


def evaluation_place(recipe: Recipe, place: Path, root: Path) -> Path | None:
    """The evaluation set's folder or file; None: there is none. Raises UserError where the named one is missing."""
    if recipe.data.eval_dir:
        named = Path(recipe.data.eval_dir).expanduser()
        if not inputs.exists(named):
            raise UserError(
                f"the evaluation set {named} does not exist",
                "name a folder of shards with data.eval_dir, or leave it empty to have a part set apart",
            )
        return named
    return next((f for top in (place, root) for name in EVALUATION if (f := top / name).is_dir()), None)


def open_shards(place: Path, recipe: Recipe, source: ModelSource) -> PretrainingData:
    section = recipe.data
    rule = MaskingRule(section.masked_share, section.most_masked, section.whole_words)
    if section.masking != "once":
        return open_data(place, source.vocabulary, section.masking, rule, recipe.seed)
    found = open_data(place, source.vocabulary, "dynamic", rule, recipe.seed)
    return MaskedOnce(**{each.name: getattr(found, each.name) for each in dataclasses.fields(found)})


def check_data(data: PretrainingData, place: Path, recipe: Recipe, source: ModelSource) -> Rows:
    """Its smallest shard. Raises UserError where the data is too long, or has ids that the vocabulary lacks."""
    most = recipe.data.seq_length
    if data.longest > most:
        raise UserError(
            f"{place}: its sequences have up to {data.longest} tokens, over the sequence length {most}",
            f"use -s {data.longest}, or name data that was made for {most}",
        )
    sizes = [shard.sequences or len(data) for shard in data.shards]
    rows = data.decoded.get(int(np.argmin(sizes)))  # its ids were checked against the vocabulary
    if (rows.second < rows.lengths).any():
        check_segments(source, str(place))
    return rows


def frequencies(rows: Rows, vocabulary: Vocabulary) -> np.ndarray:
    """(V,) how often each piece stands in the text, masks taken off; special pieces 0 times."""
    counts = np.bincount(bare(rows).input_ids, minlength=len(vocabulary.pieces))
    counts[list(vocabulary.special_ids.values())] = 0
    return counts
