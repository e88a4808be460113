"""NVIDIA's Triton programs of both BERTs: export, server, client and load generator.

A model repository is written by `bertkit export --format triton`, a server is `bertkit serve` (or Triton over that
repository), its clients are `bertkit client` and `bertkit bench serve`, which speak HTTP with either.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.cli.migration import load_generators
from bertkit.cli.migration.command import Draft, NotUnderstood, set_model, unless_open
from bertkit.cli.migration.load_generators import LENGTH, address, arguments, note_lost
from bertkit.cli.migration.python_flags import is_on, read_flags, table
from bertkit.cli.migration.starters import whole
from bertkit.cli.migration.words import Old

READY_S = "600"  # their wrappers wait for the server without a limit
WHY: Mapping[str, str] = {
    "triton_model_version": "an export is version 1",
    "use_xla": "what compiles the exported graph is Triton's backend",
    "use_trt": "no TensorRT engine is built; config.pbtxt may name TensorRT as accelerator of onnxruntime",
}
# flag of the TensorFlow example -> option of the format
OPTIONS: Mapping[str, str] = {
    "triton_model_name": "name",
    "triton_max_batch_size": "max_batch",
    "triton_engine_count": "instances",
}
READ = (
    "export_triton triton_model_overwrite init_checkpoint vocab_file bert_config_file output_dir amp noamp use_fp16"
    " horovod do_lower_case version_2_with_negative predict_file do_train do_predict max_seq_length doc_stride"
    " max_query_length predict_batch_size triton_dyn_batching_delay"
).split()


def export_squad(old: Old, draft: Draft) -> list[Draft]:
    """run_squad.py --export_triton=True of the TensorFlow example."""
    flags = read_flags(old.arguments)
    if not flags.get("init_checkpoint"):
        raise NotUnderstood("the old command names no trained model", "add its --init_checkpoint")
    folder = posixpath.join(flags.get("output_dir") or ".", "triton_models")
    precision = "fp16" if is_on(flags, "amp") or is_on(flags, "use_fp16") else ""
    _export(draft, flags["init_checkpoint"], flags.get("vocab_file", ""), flags.get("bert_config_file", ""), folder)
    _exported_as(draft, precision, is_on(flags, "triton_model_overwrite"))
    draft.options["-t"] = "squad2" if is_on(flags, "version_2_with_negative") else "squad"
    draft.export |= {option: flags[flag] for flag, option in OPTIONS.items() if flags.get(flag)}
    if delay := flags.get("triton_dyn_batching_delay", ""):
        draft.export["max_delay"] = _microseconds(delay)
    draft.differs(
        "inputs are input_ids, attention_mask, token_type_ids (INT64, any length); theirs are unique_ids, input_ids, "
        "input_mask, segment_ids (INT32), padded to the length of the export; `bertkit client` takes both"
    )
    for name, value in flags.items():
        if name not in (*READ, *OPTIONS) and not (name == "use_xla" and not is_on(flags, name)):
            draft.lost(f"--{name} {value}".strip(), WHY.get(name, "there is nothing like it here"))
    return [draft]


def _microseconds(milliseconds: str) -> str:
    return "0" if milliseconds == "0" else str(1000 * whole(milliseconds, "the delay"))


def _export(draft: Draft, checkpoint: str, vocab: str, config: str, folder: str) -> None:
    draft.place = replace(draft.place, processes=1)
    if unless_open(draft, checkpoint, "no model can be taken in its place"):
        set_model(draft, checkpoint, vocab, config)
    draft.command = ("export", draft.options.pop("-m", checkpoint))
    draft.options |= {"-o": folder, "--format": "triton"}


def _exported_as(draft: Draft, precision: str, overwrite: bool) -> None:
    if precision in ("fp16", "fp32") or precision.startswith("$"):
        draft.options["-d"] = precision
    elif precision:
        draft.differs(f"{precision} is how a GPU computes fp32: the export is in fp32, its backend may use it")
    if overwrite:
        draft.options["--overwrite"] = ""


def export_model_sh(old: Old, draft: Draft) -> list[Draft]:
    """triton/scripts/export_model.sh: 12 positional arguments."""
    given = arguments("export_model", old, draft)
    return _export_by(given, old, draft)


def _export_by(given: Mapping[str, str], old: Old, draft: Draft) -> list[Draft]:
    checkpoint, folder = old.where.outside(given["checkpoint"]), old.where.outside(given["bert"])
    words = [
        f"--init_checkpoint={checkpoint}", f"--vocab_file={folder}/vocab.txt",
        f"--bert_config_file={folder}/bert_config.json", "--output_dir=results", f"--max_seq_length={given['length']}",
        f"--triton_model_version={given['version']}", f"--triton_model_name={given['name']}",
        f"--triton_max_batch_size={given['batch']}", f"--triton_dyn_batching_delay={given['delay']}",
        f"--triton_engine_count={given['engines']}", f"--triton_model_overwrite={given['overwrite']}",
    ]  # fmt: skip
    words += ["--amp"] if given["precision"] == "fp16" else []
    words += ["--use_xla"] if given["xla"] == "true" else []
    return export_squad(replace(old, arguments=tuple(words)), draft)


def run_client(old: Old, draft: Draft) -> list[Draft]:
    """triton/scripts/run_client.sh: 6 positional arguments, then those of the Python client."""
    given = arguments("run_client", old, draft)
    words = [
        f"--predict_batch_size={given['batch']}", f"--max_seq_length={given['length']}",
        f"--doc_stride={given['stride']}", f"--triton_model_version={given['version']}",
        f"--triton_model_name={given['name']}", f"--vocab_file={old.where.outside(given['bert'])}/vocab.txt",
        "--output_dir=results", *filter(None, given["rest"].split("\0")),
    ]  # fmt: skip
    return squad_client(replace(old, arguments=tuple(words)), draft)


CLIENT = (
    "triton_model_name triton_model_version triton_server_url server_url model_name model_version predict_file question"
    " context vocab_file bert_config_file do_lower_case version_2_with_negative max_seq_length doc_stride"
    " max_query_length predict_batch_size batch_size n_best_size max_answer_length output_dir"
).split()
SETS = {
    "doc_stride": ("data.doc_stride", "128"),
    "max_query_length": ("data.query_length", "64"),
    "n_best_size": ("answers.n_best", "20"),
    "max_answer_length": ("answers.longest", "30"),
}  # flag -> (setting, what both have by themselves)


def squad_client(old: Old, draft: Draft) -> list[Draft]:
    """run_squad_triton_client.py (TensorFlow) and run_inference_on_triton.py (PyTorch)."""
    flags = read_flags(old.arguments)
    asks = not flags.get("predict_file")
    if asks and not (flags.get("question") and flags.get("context")):
        raise NotUnderstood("the old client has neither a file nor a question", "add its --predict_file")
    url = address(flags.get("triton_server_url") or flags.get("server_url") or "", draft)
    draft.place = replace(draft.place, processes=1)
    draft.command, draft.server = ("client", "ask" if asks else "squad", url), url
    draft.options["--model"] = flags.get("triton_model_name") or flags.get("model_name") or "bert"
    if version := flags.get("triton_model_version") or flags.get("model_version"):
        draft.options["--model-version"] = version
    if vocab := unless_open(draft, flags.get("vocab_file", ""), "name it with --vocab"):
        draft.options["--vocab"] = vocab
    for flag, option in (("predict_file", "--file"), ("question", "--question"), ("context", "--context")):
        if flags.get(flag):
            draft.options[option] = flags[flag]
    _client_shape(flags, draft, asks)
    note_lost(draft, flags, CLIENT, CLIENT_LOST, "_" if "triton_model_name" in flags else "-")
    return [draft]


CLIENT_LOST = {
    "trt_engine": "tensors' names and types are read from the server, whatever computes there",
    "verbose_logging": "progress is shown; -q silences it",
    "verbose": "progress is shown; -q silences it",
    "dataloader": "`bertkit client squad` reads SQuAD's file itself",
    "dump_labels": "`bertkit client squad` compares with the labels itself",
}


def _client_shape(flags: Mapping[str, str], draft: Draft, asks: bool) -> None:
    draft.options["-t"] = "squad2" if is_on(flags, "version_2_with_negative") else "squad"
    draft.options["-s"] = flags.get("max_seq_length") or LENGTH
    batch = flags.get("predict_batch_size") or flags.get("batch_size")
    if batch and not asks:
        draft.options["-b"] = batch
    for flag, (setting, own) in SETS.items():
        if flags.get(flag, own) != own:
            draft.sets[setting] = flags[flag]
    if "do_lower_case" in flags:
        draft.sets["model.casing"] = "uncased" if is_on(flags, "do_lower_case") else "cased"
    if flags.get("output_dir") and not asks:
        draft.options["-o"] = flags["output_dir"]


def run_triton_tf(old: Old, draft: Draft) -> list[Draft]:
    """run_triton_tf.sh: export, server, client, scores, all in one."""
    given = arguments("run_triton_tf", old, draft)
    own = table("scripts.toml")["run_triton_tf"]["bert"]
    given["bert"] = own.get(given["size"], own["base"])
    drafts = _export_by(given, old, _beside(draft)) if given["export"].lower() == "true" else []
    draft.notes += [note for one in drafts for note in one.notes]
    (serve,) = _serve(given["checkpoint"], old, _beside(draft))
    serve.before = [] if drafts else serve.before
    version = "v2.0" if given["squad"].startswith("2") else "v1.1"
    words = (given["batch"], given["length"], given["stride"], given["version"], given["name"], given["bert"])
    more = (
        f"--version_2_with_negative={version == 'v2.0'}",
        f"--predict_file=data/download/squad/{version}/dev-{version}.json",
    )
    (client,) = run_client(replace(old, arguments=(*words, *more)), draft)
    client.options.pop("--model"), client.options.pop("--model-version", "")
    client.options["--wait"] = READY_S
    client.differs(
        "the model is served by `bertkit serve` from its weights; Triton itself may serve the export instead"
    )
    return [*drafts, serve, client, _stop(_beside(draft))]


def _serve(checkpoint: str, old: Old, draft: Draft) -> list[Draft]:
    set_model(draft, old.where.outside(checkpoint))
    draft.command = ("serve", draft.options.pop("-m"))
    draft.background = True
    return [draft]


def _stop(draft: Draft) -> Draft:
    """End the server that the script put into the background."""
    draft.command, draft.shell = ("kill", "$!"), True
    return draft


def _beside(draft: Draft) -> Draft:
    """A further command of the same script, without options and notes yet."""
    return Draft(place=draft.place, framework=draft.framework)


def run_triton_trt(old: Old, draft: Draft) -> list[Draft]:
    """run_triton_trt.sh serves an engine that was built elsewhere: only its weights would say the model."""
    raise NotUnderstood(
        f"{old.program} serves a TensorRT engine, which has no counterpart here",
        "give the trained model: bertkit export RUN -o DIR --format triton, bertkit serve RUN",
    )


def launch_server(old: Old, draft: Draft) -> list[Draft]:
    """Their servers start over a folder of exports; ours starts from the trained model."""
    raise NotUnderstood(
        f"{old.program} serves a folder of exports and names no trained model",
        "start bertkit serve RUN, or Triton itself over the folder that `bertkit export --format triton` wrote",
    )


def runner(old: Old, draft: Draft) -> list[Draft]:
    """The PyTorch example's runner, which fetches NVIDIA's checkpoint and deploys it in several forms."""
    raise NotUnderstood(
        f"{old.program} deploys NVIDIA's own checkpoint, which bertkit does not fetch",
        "name yours: bertkit export RUN -o DIR --format triton --option names=nvidia, bertkit bench serve RUN",
    )


def export_model_py(old: Old, draft: Draft) -> list[Draft]:
    """triton/export_model.py of the PyTorch example."""
    flags = read_flags(old.arguments)
    if not flags.get("checkpoint"):
        raise NotUnderstood("the old command names no trained model", "add its --checkpoint")
    folder = posixpath.join(posixpath.dirname(flags.get("output_path", "")) or ".", "triton_models")
    _export(
        draft, flags["checkpoint"], flags.get("vocab_file", ""), flags.get("config_file", ""), old.where.outside(folder)
    )
    _exported_as(draft, flags.get("precision", ""), False)
    draft.options["-t"] = "squad"
    draft.export["names"] = "nvidia"
    form = flags.get("output_type", "onnx")
    if form == "trt":
        draft.lost(f"--output-type {form}", WHY["use_trt"])
    elif form != "onnx":
        draft.differs(f"the repository holds ONNX, whatever {form} is")
    draft.differs("the export is a whole repository with config.pbtxt; what it computes is compared with the engine")
    draft.differs("any length and batch; theirs are fixed at export")
    if "ignore_unknown_parameters" in flags:
        draft.differs("weights that are missing are an error; theirs passes over them")
    note_lost(draft, flags, EXPORT_READ, EXPORT_LOST)
    return [draft]


EXPORT_READ = (
    "checkpoint output_path output_type input_path input_type config_file vocab_file precision"
    " ignore_unknown_parameters"
).split()
EXPORT_LOST = {
    "onnx_opset": "the export chooses it",
    "fixed_batch_dim": "an export takes any batch",
    "dataloader": "the export is verified on sequences of its own",
    "predict_file": "the export is verified on sequences of its own",
    "max_seq_length": "an export takes any length up to the model's",
    "batch_size": "an export takes any batch",
}


def nothing_to_do(old: Old, draft: Draft) -> list[Draft]:
    """A step of theirs that has no command here."""
    draft.lost(old.program, STEPS[old.program])
    return []


STEPS: Mapping[str, str] = {
    "model-navigator": "`bertkit export --format triton` writes the repository at once, with config.pbtxt",
    "prepare_input_data.py": "`bertkit bench serve` draws its requests itself",
    "calculate_metrics.py": "`bertkit client squad` prints the official exact match and F1",
    "wait_for_triton_server.sh": "`bertkit client … --wait SECONDS` waits until the server is ready",
}


def data_download(old: Old, draft: Draft) -> list[Draft]:
    """prepare_datasets.sh and triton_data_download.sh: SQuAD and the large model's vocabulary."""
    draft.command = ("data", "get", "squad", "bert-large-uncased")
    draft.lost("NVIDIA's own checkpoints", "they lie behind a login")
    return [draft]


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "export_model.sh": export_model_sh,
    "export_model.py": export_model_py,
    "run_client.sh": run_client,
    "run_squad_triton_client.py": squad_client,
    "run_inference_on_triton.py": squad_client,
    "run_triton_tf.sh": run_triton_tf,
    "run_triton_trt.sh": run_triton_trt,
    "launch_server.sh": launch_server,
    "triton_inference_server.sh": launch_server,
    **load_generators.PROGRAMS,
    "prepare_datasets.sh": data_download,
    "triton_data_download.sh": data_download,
    **dict.fromkeys(STEPS, nothing_to_do),
    **{f"triton.{size}.runner.__main__": runner for size in ("large", "dist4l", "dist6l")},
    **{
        f"start_NVIDIA-{machine}.sh": runner
        for machine in ("A30", "T4", "DGX-1-(1x-V100-32GB)", "DGX-A100-(1x-A100-80GB)")
    },
}
