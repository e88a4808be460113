"""`bertkit client`"""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.console import Display
    from bertkit.engine.remote import RemoteModel, TensorSpec
    from bertkit.recipes.recipe import Recipe
    from bertkit.training.remote import Asking

app = typer.Typer(
    help="Send requests to a server of the Open Inference Protocol: bertkit serve, Triton and others.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[str, typer.Argument(metavar="URL", help="Server, as http://127.0.0.1:8000.", show_default=False)]
ModelName = Annotated[
    str, typer.Option("--model", metavar="NAME", help="Model of the server; default: the only one that fits.")
]
Version = Annotated[
    str, typer.Option("--model-version", metavar="VERSION", help="Version of the model; default: the server chooses.")
]
Run = Annotated[
    str,
    typer.Option("--run", metavar="RUN", help="Trained model with the vocabulary, the task and the labels."),
]
Vocab = Annotated[str, typer.Option("--vocab", metavar="FILE", help="Vocabulary, where there is no --run.")]
BatchSize = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Sequences per request.")]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Requests in flight at once.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for a response.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until the server is ready.")]


@app.command()
def squad(
    url: Url,
    file: Annotated[Path, typer.Option("--file", help="Questions in SQuAD's format.", show_default=False)],
    model: ModelName = "",
    version: Version = "",
    run: Run = "",
    vocab: Vocab = "",
    task: o.TaskName = None,
    seq_length: o.SeqLength = None,
    batch_size: BatchSize = 8,
    concurrency: Concurrency = 4,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output folder for the predictions.", show_default=False)
    ] = None,
    timeout: Timeout = 60.0,
    wait: Wait = 0.0,
    sets: o.Sets = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Answer the questions of a file by a server's model, and print the official exact match and F1.

    Texts are split into windows and answers are decoded here, as `bertkit evaluate` does; the server computes logits.

    Examples:

      bertkit client squad http://127.0.0.1:8000 --run runs/squad --file data/squad/dev-v1.1.json

      bertkit client squad http://triton:8000 --model bert --vocab vocab.txt --file dev-v1.1.json -b 16 -o out
    """
    from bertkit.console import Display
    from bertkit.data.tasks.reading import own_file
    from bertkit.training.answering import has_null
    from bertkit.training.remote import Asking, answer_file, load_remote

    display, how = Display(quiet=quiet), Asking(batch_size, concurrency, timeout)
    recipe = _recipe(run, vocab, task or ("" if run else "squad"), seq_length, sets)
    file = own_file(str(file))
    loaded = load_remote(recipe, _open(url, model, version, timeout, wait, False, display), how)
    has_null(loaded)
    part, answered = answer_file(loaded, recipe, file, how, display)
    made = {"server": url, "file": str(file), "questions": part.examples, "windows": len(part.features)}
    made |= {"metrics": dict(answered.metrics)} | ({"predictions": str(answered.write(output, ""))} if output else {})
    loaded.engine.close()
    if json:
        put_json(json_format.dumps(made))
        return
    scores = "  ".join(f"{name} {value:.4f}" for name, value in answered.metrics.items())
    put(f"{file}: {part.examples} questions in {len(part.features)} windows: {scores or 'no labels'}")
    if output:
        put(f"predictions: {made['predictions']}")


@app.command()
def ask(
    url: Url,
    question: Annotated[str, typer.Option("--question", help="Question.", show_default=False)],
    context: Annotated[str | None, typer.Option("--context", help="Paragraph that holds the answer.")] = None,
    context_file: Annotated[Path | None, typer.Option("--context-file", help="Text file with the paragraph.")] = None,
    model: ModelName = "",
    version: Version = "",
    run: Run = "",
    vocab: Vocab = "",
    task: o.TaskName = None,
    seq_length: o.SeqLength = None,
    best: Annotated[int, typer.Option("-n", "--n-best", min=1, help="Number of answers to show.")] = 1,
    timeout: Timeout = 60.0,
    wait: Wait = 0.0,
    sets: o.Sets = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Ask a server's model a question about a text.

    With --run or --vocab the model is one of token ids; without, one that takes question and context as texts.

    Examples:

      bertkit client ask http://127.0.0.1:8000 --question "Who wrote it?" --context "The play was written by a clerk."

      bertkit client ask http://127.0.0.1:8000 --run runs/squad --question "Who?" --context-file article.txt -n 3
    """
    from bertkit.cli.ask import given_context, show_found
    from bertkit.console import Display
    from bertkit.training.answering import ask as ask_model
    from bertkit.training.answering import check_context, check_question
    from bertkit.training.remote import Asking, ask_texts, load_remote, text_inputs

    text = given_context(context, context_file) or ""
    check_question(question)
    check_context(text)
    display, how = Display(quiet=quiet), Asking(8, 1, timeout)
    if not run and not vocab:
        remote = _open(url, model, version, timeout, wait, True, display)
        names = text_inputs(remote, ("question", "context"))
        ((_, found),) = ask_texts(remote, names, [(question, text)], how)
        put_json(json_format.dumps({"question": question} | found)) if json else put(_shown(found))
        return
    recipe = _recipe(run, vocab, task or ("" if run else "squad"), seq_length, sets)
    loaded = load_remote(recipe, _open(url, model, version, timeout, wait, False, display), how)
    show_found(ask_model(loaded, recipe, question, text), question, best, json)
    loaded.engine.close()


def _shown(found: dict[str, Any]) -> str:
    """The answer itself; all outputs where none is called so."""
    return str(found["answer"] or "(no answer)") if "answer" in found else _line(found)


def _line(fields: dict[str, Any]) -> str:
    cells = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in fields.values())
    return "\t".join(" ".join(cell.split()) for cell in cells)


@app.command()
def predict(
    url: Url,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="Input file, or - for standard input: a text a line.", show_default=False
        ),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Text to classify.", show_default=False)] = None,
    pair: Annotated[str | None, typer.Option("--text-pair", help="Second text of a pair.", show_default=False)] = None,
    model: ModelName = "",
    version: Version = "",
    run: Run = "",
    vocab: Vocab = "",
    task: o.TaskName = None,
    seq_length: o.SeqLength = None,
    batch_size: BatchSize = 8,
    concurrency: Concurrency = 4,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output folder, for a file of the task.", show_default=False),
    ] = None,
    timeout: Timeout = 60.0,
    wait: Wait = 0.0,
    sets: o.Sets = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Classify texts by a server's model.

    With --run the model is one of token ids, and FILE may be a table, or with -o a file of the task; without, one that
    takes texts: FILE holds a text a line, two texts parted by a tab.

    Examples:

      bertkit client predict http://127.0.0.1:8000 --text "a bold and moving film"

      bertkit client predict http://127.0.0.1:8000 --run runs/mrpc data/glue/MRPC/test.tsv -o out

      cat reviews.txt | bertkit client predict http://127.0.0.1:8000 - --json
    """
    from bertkit.console import Display
    from bertkit.training.remote import Asking

    if (source is None) == (text is None):
        raise UserError("what is to be classified is given " + ("twice" if text else "nowhere"), "give FILE or --text")
    if pair is not None and text is None:
        raise UserError("--text-pair without --text", "give both")
    display, how = Display(quiet=quiet), Asking(batch_size, concurrency, timeout)
    of_texts = not run and not vocab
    recipe = None if of_texts else _recipe(run, vocab, task or "", seq_length, sets)
    remote = _open(url, model, version, timeout, wait, of_texts, display)
    texts = None if text is None else [(text,) if pair is None else (text, pair)]
    if recipe is None:
        if output is not None:
            raise UserError("-o is for a file of the task, which needs the trained model", "give it with --run")
        _predict_texts(remote, texts, source, how, json)
    elif output is not None and source is not None:
        _predict_file(remote, recipe, Path(source), output, how, display, json)
    else:
        _predict_ids(remote, recipe, texts, source, how, json)


def _predict_texts(
    remote: RemoteModel, texts: Iterable[Sequence[str]] | None, source: str | None, how: Asking, json: bool
) -> None:
    from bertkit.training.remote import ask_texts, text_inputs

    names = text_inputs(remote, ("text", "text_pair"))
    for given, found in ask_texts(remote, names, texts or _lines(str(source)), how):
        fields = dict(zip(names, given, strict=False)) | found
        put_json(json_format.dumps(fields, ensure_ascii=False)) if json else put(_line(fields))


def _lines(source: str) -> Iterator[Sequence[str]]:
    """The texts of each line of a file, or of standard input."""
    import sys

    from bertkit.files.inputs import read_text
    from bertkit.training.streaming import of_lines

    lines = sys.stdin if source == "-" else read_text(Path(source), "check the path").splitlines()
    for example in of_lines(lines):
        if isinstance(example, dict):
            texts = [example[name] for name in ("text", "text_pair") if name in example]
        else:
            texts = [example] if isinstance(example, str) else list(example)
        if not texts or not all(isinstance(one, str) for one in texts):
            raise UserError(f"{source}: a line holds no text", "write a text, or a JSON object with the key text")
        yield texts


def _predict_ids(
    remote: RemoteModel,
    recipe: Recipe,
    texts: Sequence[Sequence[str]] | None,
    source: str | None,
    how: Asking,
    json: bool,
) -> None:
    from bertkit.cli.predict import Answers, fields_of
    from bertkit.training.predictor import Predictor
    from bertkit.training.remote import load_remote
    from bertkit.training.streaming import stream

    with Predictor(load_remote(recipe, remote, how), recipe) as predictor:
        predictor.check_kind()
        if texts is not None:
            rows = [predictor.texts(list(one) if len(one) > 1 else one[0], 0) for one in texts]
            found = zip(rows, predictor.predict_texts(rows), strict=True)
        else:
            found = stream(predictor, str(source))  # type: ignore[assignment]
        for given, prediction in found:
            fields = fields_of(given, prediction, Answers(json=json))
            put_json(json_format.dumps(fields, ensure_ascii=False)) if json else put(_line(fields))


def _predict_file(
    remote: RemoteModel, recipe: Recipe, file: Path, output: Path, how: Asking, display: Display, json: bool
) -> None:
    from bertkit.data.tasks.reading import own_file
    from bertkit.training.remote import answer_file, load_remote

    file = own_file(str(file), folder_too=True)
    loaded = load_remote(recipe, remote, how)
    part, answered = answer_file(loaded, recipe, file, how, display)
    loaded.engine.close()
    made = {"file": str(file), "examples": part.examples, "predictions": str(answered.write(output, ""))}
    if json:
        put_json(json_format.dumps(made | {"metrics": dict(answered.metrics)}))
        return
    scores = "  ".join(f"{name} {value:.4f}" for name, value in answered.metrics.items())
    put(f"{made['predictions']}: {part.examples} predictions {scores}".rstrip())


@app.command()
def models(url: Url, timeout: Timeout = 10.0, wait: Wait = 0.0, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List a server's models with their inputs and outputs.

    Examples:

      bertkit client models http://127.0.0.1:8000
    """
    from bertkit.engine.remote import list_models, open_model, wait_ready
    from bertkit.files.http import server_at

    server = server_at(url, timeout)
    wait_ready(server, wait) if wait else None
    found = [open_model(server, name) for name in list_models(server)]
    if json:
        told = [
            {"name": one.name, "platform": one.platform, "inputs": _specs(one.inputs), "outputs": _specs(one.outputs)}
            for one in found
        ]
        put_json(json_format.dumps(told))
        return
    for one in found:
        put(f"{one.name}: {one.tensors}" + (f" ({one.platform})" if one.platform else ""))


def _specs(tensors: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]


def _recipe(run: str, vocab: str, task: str, seq_length: int | None, sets: list[str] | None) -> Recipe:
    """The settings of the run, or of the task with the vocabulary that is given."""
    from bertkit.recipes.resolve import resolve
    from bertkit.training.inference import refuse_untrained
    from bertkit.training.run_task import run_settings

    if not run and not vocab and not any(one.startswith("model.vocab=") for one in sets or ()):
        raise UserError("there is no vocabulary to encode texts with", "give --run RUN, or --vocab FILE")
    if run:
        refuse_untrained(run)
    chosen = o.recipe_options(None, None, run or "base", task or None, None, None, seq_length, None, None, None, None)
    chosen |= {"offline": True} | ({"model.vocab": vocab} if vocab else {})
    settings = run_settings(run) if run else {}
    recipe = resolve(chosen, sets or (), run=settings).recipe
    if not recipe.task:
        raise UserError(f"{run or '--vocab'} does not state the task", "name it with -t")
    return recipe


def _open(
    url: str, name: str, version: str, timeout: float, wait: float, of_texts: bool, display: Display
) -> RemoteModel:
    """The server's model, once the server is ready; which one, where it was not named."""
    from bertkit.engine.remote import open_model, wait_ready
    from bertkit.files.http import server_at

    server = server_at(url, timeout)
    if wait:
        wait_ready(server, wait)
    found = open_model(server, name, version, of_texts)
    if not name:
        display.say(f"model: {found.name}, the only one of {'texts' if of_texts else 'token ids'} at {server.address}")
    return found
