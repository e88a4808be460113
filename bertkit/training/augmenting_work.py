"""What is asked of `bertkit data augment`, and everything that is known before the first candidate is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkit.console import Display
from bertkit.data.augmentation.masked import MaskedSequence, MaskingWay, masked_sequences
from bertkit.data.augmentation.own_tables import check_suffix, open_own
from bertkit.data.augmentation.task_files import COPIES, USUAL_COPIES, open_task_file
from bertkit.data.augmentation.texts import AugmentedFile, WordTable, word_table
from bertkit.data.augmentation.vectors import read_vectors
from bertkit.data.augmentation.words import SEVERAL
from bertkit.data.tables.opening import is_pattern, matching
from bertkit.data.tasks import find_task, task_key
from bertkit.data.tasks.own.labels import KINDS, TAGGING
from bertkit.data.tasks.reading import Progress, own_file
from bertkit.errors import UserError
from bertkit.files.inputs import exists, is_folder
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import Resolved
from bertkit.training.masked_words import MaskedWordModel, candidate_count, open_masked_model
from bertkit.training.recipe_parts import is_own_data, own_data
from bertkit.training.supply import keep_offline

VERSION = 1  # of how candidates are found; part of the key that unfinished work is taken up by
PART = 1024  # masked sequences of a part, about: what a kill costs


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is asked for."""

    file: str
    output: Path
    task: str | None = None  # whose file it is; None: a table of the user's own
    copies: int | None = None  # of each example, at the most; None: by the task
    share: float = 0.4  # the probability that a word is replaced in a copy
    candidates: int = 15  # of a word
    masks: int = 1  # words that are masked in one sequence
    seed: int = 1
    vectors: Path | None = None  # for words of several pieces
    overwrite: bool = False

    def check(self) -> None:
        """Raises UserError for numbers that cannot be."""
        counts = {"--copies": self.copies, "--candidates": self.candidates, "--masks": self.masks}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise UserError(f"{name} {value} is below 1", "use 1 or more")
        if not 0 < self.share <= 1:
            raise UserError(f"--share {self.share:g} is not a share of the words", "use more than 0, at most 1, as 0.4")
        if self.seed < 0:
            raise UserError(f"the seed {self.seed} is below 0", "choose another with --seed")


@dataclass(frozen=True)
class AugmentationWork:
    """Everything that is known before the first candidate."""

    source: AugmentedFile
    model: MaskedWordModel
    way: Augmentation
    copies: int  # of each example, at the most
    table: WordTable
    examples: int
    near: Mapping[str, Sequence[str]]  # word of several pieces, in small letters -> others
    kept_words: int  # of several pieces, without others
    parts: tuple[tuple[int, int], ...]  # texts of each, from … to

    @property
    def masking(self) -> MaskingWay:
        return MaskingWay(self.model.seq_length, self.way.masks)

    @property
    def key(self) -> dict[str, object]:
        """All that shapes the candidates."""
        model, vocabulary = self.model, self.model.vocabulary
        return {
            "version": VERSION,
            "texts": self.table.digest,
            "weights": model.fit.digest or "",
            "model": repr(model.source.config),
            "vocabulary": vocabulary.digest,
            "segments": model.segments,
            "seq_length": model.seq_length,
            "masks": self.way.masks,
            "candidates": self.way.candidates,
            "backend": model.target.backend.name,
            "precision": model.target.precision,
        }


# ---- before anything is computed ----


def prepare_work(resolved: Resolved, way: Augmentation, display: Display, dry_run: bool = False) -> AugmentationWork:
    """Read and check everything, cheapest first, and say what will be computed. `dry_run`: the backend need not be
    ready, and nothing is fetched.

    Raises UserError where the file cannot be augmented, or not be written.
    """
    way.check()
    recipe = resolved.recipe
    source, usual = open_source(recipe, way)
    check_output(source, way.output, way.overwrite)
    length = recipe.data.seq_length if resolved.sources["data.seq_length"] != "default" else None
    model = open_masked_model(recipe, length, display.say, dry_run)
    work = _read(source, model, way, way.copies or usual, display)
    _say_plan(work, display)
    return work


def open_source(recipe: Recipe, way: Augmentation) -> tuple[AugmentedFile, int]:
    """(the file, copies of an example where no number is named). Raises UserError where it is not of its task."""
    name = task_key(way.task or "")
    if name and name not in KINDS:
        is_own_data(dataclasses.replace(recipe, task=name))  # refuses what is for tables of the user's own
        task = find_task(name)
        return open_task_file(task, own_file(way.file)), COPIES.get(task.name, USUAL_COPIES)
    if name == TAGGING:
        raise UserError("tags of tokens are not augmented", "take a task of whole texts")
    keep_offline(recipe)
    own = own_data(recipe)
    return open_own(own_file(way.file, folder_too=True, split="train"), own.text, own.pair, own.options), USUAL_COPIES


def check_output(source: AugmentedFile, output: Path, overwrite: bool) -> None:
    """Raises UserError where the file cannot be written as it is named."""
    files = matching(source.path) if is_pattern(source.path) else [source.path]
    if exists(output) and any(output.samefile(file) for file in files):
        raise UserError(f"{output} is the file that is augmented", "name another file with -o")
    if is_folder(output):
        raise UserError(f"{output} is a folder", "name the file to write, as in -o augmented.tsv")
    if exists(output) and not overwrite:
        raise UserError(f"{output} is there already", "name another file with -o, or --overwrite it")
    check_suffix(output, source)


def _read(
    source: AugmentedFile, model: MaskedWordModel, way: Augmentation, count: int, display: Display
) -> AugmentationWork:
    follow = display.follow()
    vectors = read_vectors(way.vectors, lambda done: follow("reading vectors", done, 0)) if way.vectors else None
    table, examples = word_table(source, model.vocabulary, follow)
    if not examples:
        raise UserError(f"{source.path}: holds no examples", "name a file with some")
    near: Mapping[str, Sequence[str]] = {}
    if vectors is not None:
        asked = words_of_several(table)
        near = vectors.nearest(asked, way.candidates, lambda done, of: follow("nearest words", done, of))
    if not table.counts[0] and not near:
        raise UserError(f"{source.path}: has no words to replace", "name its texts with --text")
    candidate_count(model.vocabulary, way.candidates)
    made = AugmentationWork(
        source=source,
        model=model,
        way=way,
        copies=count,
        table=table,
        examples=examples,
        near=near,
        kept_words=kept_words(table, near),
        parts=(),
    )
    return dataclasses.replace(made, parts=tuple(_parts(made, follow)))


def words_of_several(table: WordTable) -> set[str]:
    """The words that are not one piece, in small letters."""
    found = set()
    for number, text in enumerate(table.texts):
        found |= {text[word.start : word.end].lower() for word in table.words(number) if word.piece == SEVERAL}
    return found


def _parts(work: AugmentationWork, progress: Progress) -> Iterator[tuple[int, int]]:
    first = count = 0
    texts = len(work.table.texts)
    for number in range(texts):
        count += sum(1 for _ in sequences_of(work, number))
        if count >= PART:
            yield first, number + 1
            progress("planning", number + 1, texts)
            first, count = number + 1, 0
    if count:
        yield first, texts


def sequences_of(work: AugmentationWork, number: int) -> Iterator[MaskedSequence]:
    """The masked sequences of one text."""
    pieces = [word.piece for word in work.table.words(number) if word.piece != SEVERAL]
    yield from masked_sequences(number, work.table.lengths[number], pieces, work.masking) if pieces else ()


def _say_plan(work: AugmentationWork, display: Display) -> None:
    """What will be computed, and what will not."""
    target, one_piece, several = work.model.target, *work.table.counts
    for note in work.source.notes:
        display.say(f"data: {note}")
    display.say(f"backend: {target.backend.name} ({target.choice.reason})")
    display.say(f"precision: {target.precision}")
    way, texts = work.way, len(work.table.texts)
    display.say(
        f"augmenting {', '.join(work.source.columns)}: {work.examples:,} examples, {texts:,} different texts, "
        f"{one_piece:,} words to mask; up to {work.copies} copies of each example"
    )
    if work.kept_words:
        why = "have no vector" if way.vectors else "stay as they are (--vectors FILE replaces them)"
        display.say(f"{work.kept_words:,} of {several:,} words are not one word piece and {why}")
    if work.model.segments < 2:
        display.say("the model tells no second text: the masked text and the whole one are of one segment")


def kept_words(table: WordTable, near: Mapping[str, Sequence[str]]) -> int:
    """How many words of several pieces have no others near them."""
    if not near:
        return table.counts[1]
    count = 0
    for number, text in enumerate(table.texts):
        several = (text[word.start : word.end].lower() for word in table.words(number) if word.piece == SEVERAL)
        count += sum(word not in near for word in several)
    return count
