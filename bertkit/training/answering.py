"""Questions to a trained model about a paragraph that nobody has put into a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertkit.data.tasks.squad.decoding import Found, decode
from bertkit.data.tasks.squad.reader import Paragraph, Question
from bertkit.data.tasks.squad.task import SquadFormat
from bertkit.data.tasks.squad.windows import encode_squad
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays
from bertkit.errors import UserError
from bertkit.recipes.recipe import Recipe
from bertkit.training.evaluation import check_finite, predict
from bertkit.training.inference import Loaded
from bertkit.training.preparing import Prepared
from bertkit.training.recipe_parts import answer_rules, sequence_shape

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def ask(loaded: Loaded, recipe: Recipe, question: str, context: str, made: Tokenizer | None = None) -> Found:
    """The answer to `question` by `context`, which is covered by windows where it is long. `made`: as in `encode`.

    Raises UserError where either is empty or the model's task has no spans.
    """
    check_question(question)
    check_context(context)
    prepared = prepare_question(loaded, recipe, question, context, made, "--question")
    size = recipe.evaluation.batch_size
    outputs = predict(loaded.engine, loaded.task.head, prepared.features, size, World())
    check_finite(outputs, prepared.features, "--context")
    return prepared.finish(outputs)


def prepare_question(
    loaded: Loaded, recipe: Recipe, question: str, context: str, made: Tokenizer | None, where: str
) -> Prepared[Found]:
    """The windows of a question, and what makes its answer of their outputs. `where`: of the question, for messages.

    Raises UserError where the question leaves no room for its context, and where the model's task has no spans.
    """
    null, rules = has_null(loaded), answer_rules(recipe)
    paragraph = Paragraph("", context, (Question("0", question, ()),))
    shape = sequence_shape(recipe.data, 0)
    features = encode_squad([paragraph], loaded.source.vocabulary, shape, learn=False, where=where, made=made)

    def finish(outputs: Arrays) -> Found:
        (found,) = decode([paragraph], features, outputs, rules, null)
        return found

    return Prepared(features, finish)


def has_null(loaded: Loaded) -> bool:
    """Whether the model may say that there is no answer. Raises UserError where its task has no spans."""
    own = loaded.task.format
    if not isinstance(own, SquadFormat):
        raise UserError(
            f"{loaded.source.folder} was trained on {loaded.task.name}, which does not answer questions",
            "give a model trained on squad or squad2",
        )
    return own.version2


def check_question(question: str) -> None:
    if not question.strip():
        raise UserError("the question is empty", "write it behind --question")


def check_context(context: str) -> None:
    if not context.strip():
        raise UserError("the context is empty", "write it behind --context, or name a file with --context-file")
