"""Questions to a trained model about a paragraph that nobody has put into a file."""

from __future__ import annotations

from bertkit.data.tasks.squad.decoding import Found, decode
from bertkit.data.tasks.squad.reader import Paragraph, Question
from bertkit.data.tasks.squad.task import SquadFormat
from bertkit.data.tasks.squad.windows import encode_squad
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.recipes.recipe import Recipe
from bertkit.training.evaluation import check_finite, predict
from bertkit.training.inference import Loaded
from bertkit.training.recipe_parts import answer_rules, sequence_shape


def ask(loaded: Loaded, recipe: Recipe, question: str, context: str) -> Found:
    """The answer to `question` by `context`, which is covered by windows where it is long.

    Raises UserError where either is empty or the model's task has no spans.
    """
    check_question(question)
    check_context(context)
    paragraph = Paragraph("", context, (Question("0", question, ()),))
    shape = sequence_shape(recipe.data, 0)
    features = encode_squad([paragraph], loaded.source.vocabulary, shape, learn=False, where="--question")
    outputs = predict(loaded.engine, loaded.task.head, features, recipe.evaluation.batch_size, World())
    check_finite(outputs, features, "--context")
    (found,) = decode([paragraph], features, outputs, answer_rules(recipe), has_null(loaded))
    return found


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
