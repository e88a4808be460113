"""Intel's launch_benchmark.py: BERT-large on CPUs, its own options before `--`, the model's name=value behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood, set_model
from bertkit.cli.migration.containers import in_ours
from bertkit.cli.migration.pretraining import PhaseOptions, pretrain
from bertkit.cli.migration.python_flags import is_on, lost_reason, read_assignments, read_flags, table
from bertkit.cli.migration.starters import WHOLE, whole
from bertkit.cli.migration.words import Old
from bertkit.errors import UserError

PRECISIONS = {"bfloat16": "bf16", "fp32": "fp32", "fp16": "fp16", "int8": "int8"}
SAID = (
    "framework model_name mode precision batch_size mpi_num_processes mpi_num_processes_per_socket mpi_hostnames"
    " data_location checkpoint socket_id benchmark_only accuracy_only output_dir dry_run num_cores num_intra_threads"
    " disable_tcmalloc docker_image volume shm_size"
).split()
MODEL_SAID = (
    "train_option infer_option init_checkpoint config_file vocab_file learning_rate max_seq_length num_train_epochs"
    " doc_stride num_train_steps warmup_steps max_predictions task_name data_dir optimized_softmax experimental_gelu"
    " do_lower_case do_train do_eval do_predict mpi_workers_sync_gradients train_file predict_file input_file"
    " output_dir profile accum_steps max_predictions"
).split()


def launch_benchmark(old: Old, draft: Draft) -> list[Draft]:
    """Raises UserError for a mode or precision that it does not have."""
    words = list(old.arguments)
    split = words.index("--") if "--" in words else len(words)
    ours, model = read_flags(words[:split]), read_assignments(words[split + 1 :])
    precision = PRECISIONS.get(ours.get("precision", "fp32"))
    if precision is None:
        raise UserError(
            f"launch_benchmark.py has no precision {ours['precision']!r}", "it has " + ", ".join(PRECISIONS)
        )
    draft.options["--backend"] = "cpu"
    draft.framework = "torch" if ours.get("framework", "") == "pytorch" else "tensorflow"
    for name in [*sorted(set(ours) - set(SAID)), *sorted(set(model) - set(MODEL_SAID))]:
        if name in ours or is_on(model, name) or name not in table("flags.toml")["lost"]:
            draft.lost(f"--{name.replace('_', '-')}" if name in ours else name, lost_reason(name))
    _threads(ours, draft)
    _container(words[:split], ours, model.get("output_dir", ""), draft)
    if ours.get("socket_id", "-1") != "-1":
        draft.do(f"for socket {ours['socket_id']} alone, start it under numactl --cpunodebind={ours['socket_id']}")
    if ours.get("mode") == "inference":
        return [_profiled(ours, model, _inference(ours, model, precision, draft))]
    if ours.get("mode") != "training":
        raise UserError("launch_benchmark.py without --mode", "add --mode=training or --mode=inference")
    kind = model.get("train_option", "SQuAD").lower()
    _place(ours, draft)
    if kind == "pretraining":
        return [_profiled(ours, model, _pretraining(ours, model, precision, draft))]
    return [_profiled(ours, model, _training(kind, ours, model, precision, draft))]


def _profiled(ours: Mapping[str, str], model: Mapping[str, str], draft: Draft) -> Draft:
    """profile=True, which theirs takes for every mode."""
    if is_on(ours, "profile") or is_on(model, "profile"):
        few, what = {"bench": ("20-22", "calls"), "evaluate": ("2-4", "batches")}.get(
            draft.command[0], ("10-12", "updates")
        )
        draft.options["--profile"] = few
        draft.differs(f"the timeline is a Chrome trace of a few {what}: --profile FIRST-LAST chooses which")
    return draft


def _threads(ours: Mapping[str, str], draft: Draft) -> None:
    """The backend has a setting for the threads of a process; launch one for what is preloaded."""
    for name in ("num_cores", "num_intra_threads"):
        if WHOLE.fullmatch(ours.get(name, "")):
            draft.sets["device.threads"] = ours[name]
    if "disable_tcmalloc" in ours:
        draft.place = replace(draft.place, allocator="system" if is_on(ours, "disable_tcmalloc") else "tcmalloc")


def _container(words: Sequence[str], ours: Mapping[str, str], output: str, draft: Draft) -> None:
    """--docker-image, with --volume as often as it is given. `output`: the model's folder of results."""
    if not ours.get("docker_image"):
        for name in ("volume", "shm_size"):
            if name in ours:
                draft.lost(f"--{name.replace('_', '-')}", "there is no --docker-image that it is for")
        return
    pairs = zip(words, [*words[1:], "-"], strict=True)
    said = [one.partition("=")[2] if "=" in one else value for one, value in pairs if one.split("=")[0] == "--volume"]
    named = [one for one in said if one and not one.startswith("-")]
    if len(named) < len(said):
        draft.do("the document leaves a mount out: add --mount FOLDER:FOLDER for what lies outside of this folder")
    # theirs mounts these by itself
    named += [
        ours[name] for name in ("data_location", "checkpoint", "output_dir") if ours.get(name, "").startswith("/")
    ]
    if output.startswith("/") and not any(output.startswith(one.rpartition(":")[2]) for one in named):
        draft.do(f"make {output} before the container is started: theirs kept the results within the container")
        named.append(output)
    mounts = dict.fromkeys(one if ":" in one else f"{one}:{one}" for one in named)
    in_ours(draft, ours["docker_image"], tuple(mounts), ours.get("shm_size", ""))


def _place(ours: Mapping[str, str], draft: Draft) -> None:
    asked = ours.get("mpi_num_processes", "1")
    if asked == "1" and not ours.get("mpi_hostnames"):
        return
    per_socket = ours.get("mpi_num_processes_per_socket", "1")
    each = int(per_socket) if WHOLE.fullmatch(per_socket) else 1
    hosts = ours.get("mpi_hostnames", "")
    draft.place = replace(draft.place, sockets=True, per_socket=each, hosts=hosts)
    if WHOLE.fullmatch(asked):
        draft.differs(f"{asked} processes there; here {each} for each socket that the machine has")


def _training(kind: str, ours: Mapping[str, str], model: Mapping[str, str], precision: str, draft: Draft) -> Draft:
    if kind not in ("squad", "classifier"):
        raise UserError(f"launch_benchmark.py has no train-option {kind!r}", "it has SQuAD, Classifier, Pretraining")
    several = draft.place.sockets
    together = kind == "classifier" or is_on(model, "mpi_workers_sync_gradients")
    draft.options["--recipe"] = _recipe(kind, several, together)
    if kind == "classifier":
        draft.options["-t"] = model.get("task_name", "MRPC").lower()
    set_model(draft, model.get("init_checkpoint", "large"), model.get("vocab_file", ""), model.get("config_file", ""))
    draft.options |= {"-d": precision, "-b": _batch(ours, 24)}
    for name, option, usual in (
        ("max_seq_length", "-s", "512"), ("num_train_epochs", "-e", "20"), ("learning_rate", "--lr", "3e-5"),
    ):  # fmt: skip
        draft.options[option] = model.get(name, usual)
    _data(model, draft)
    _numerics(model, draft)
    if several and kind == "squad" and together:
        draft.sets["ranks.learning_rate_scaling"] = "sqrt"
    if several:
        draft.differs("the rate is multiplied by the root of the processes, as theirs is")
    if several and not together:
        draft.differs("each process learns its own model from its own share of the data; the best on dev is the result")
    if several and kind == "classifier" and "mpi_workers_sync_gradients" in model:
        draft.differs("their classifier synchronises whatever mpi_workers_sync_gradients says; so does this")
    return draft


def _recipe(kind: str, several: bool, together: bool) -> str:
    if kind == "classifier":
        return "intel-classifier-per-socket" if several else "intel-classifier"
    return "intel-squad" if together or not several else "intel-squad-per-socket"


def _batch(ours: Mapping[str, str], usual: int) -> str:
    asked = ours.get("batch_size", "-1")
    return str(usual) if asked == "-1" else asked


def _data(model: Mapping[str, str], draft: Draft) -> None:
    folders = {model[name].rpartition("/")[0] for name in ("train_file", "predict_file") if name in model}
    if len(folders) == 1:
        draft.options["--data-dir"] = folders.pop() or "."
    elif "data_dir" in model:
        draft.options["--data-dir"] = model["data_dir"]
    for name, key, standard in (
        ("train_file", "data.train_file", "train-v1.1.json"), ("predict_file", "data.dev_file", "dev-v1.1.json"),
    ):  # fmt: skip
        if name in model and model[name].rpartition("/")[2] != standard:
            draft.sets[key] = model[name]
    if "doc_stride" in model:
        draft.sets["data.doc_stride"] = model["doc_stride"]
    if "output_dir" in model:
        draft.options["-o"] = model["output_dir"]


def _numerics(model: Mapping[str, str], draft: Draft) -> None:
    """Softmax and GELU forms, and casing."""
    draft.sets["model.softmax"] = "compute" if is_on(model, "optimized_softmax") else "fp32"
    if is_on(model, "experimental_gelu"):
        draft.differs("experimental_gelu is a faster kernel of the same GELU; the backend chooses its own")
    if is_on(model, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"


def _pretraining(ours: Mapping[str, str], model: Mapping[str, str], precision: str, draft: Draft) -> Draft:
    batch = whole(_batch(ours, 24), "the batch size")
    update = batch * whole(model.get("accum_steps", "1"), "accum_steps")  # what is computed at once is not divided
    phase = PhaseOptions(
        whole(model.get("max_seq_length", "512"), "the length"), update, batch, model.get("learning_rate", "3e-5"), "",
        model.get("num_train_steps", "20"), precision, warmup_steps=model.get("warmup_steps", "10"),
        scaling="sqrt" if draft.place.sockets else "",
    )  # fmt: skip
    _data(model, draft)
    _numerics(model, draft)
    if "input_file" in model:
        draft.options["--data-dir"] = model["input_file"]
    if is_on(model, "do_eval"):
        draft.differs("theirs evaluates on the training files; here a dev set is its own")
    if "max_predictions" in model:
        draft.lost("max_predictions", lost_reason("max_predictions"))
    name = model.get("init_checkpoint", "large")
    made = pretrain(draft, phase, "adam", name)
    set_model(made, name, model.get("vocab_file", ""), model.get("config_file", ""))
    made.sets |= {"optimizer.epsilon": "1e-6", "optimizer.bias_correction": "false"}
    return made


def _inference(ours: Mapping[str, str], model: Mapping[str, str], precision: str, draft: Draft) -> Draft:
    """--benchmark-only times it, --accuracy-only scores it."""
    where, run = ours.get("data_location", ""), ours.get("checkpoint", "")
    if not where or not run:
        raise NotUnderstood(
            "the old command leaves out the data or the checkpoint", "add --data-location, --checkpoint"
        )
    draft.options |= {"-t": "squad", "--data-dir": where, "-b": _batch(ours, 32), "-s": "384", "-d": precision}
    draft.sets["model.vocab"] = f"{where}/vocab.txt"
    draft.before.append(("cp", "-n", f"{where}/bert_config.json", f"{run}/"))
    draft.differs("the configuration is read from the model's folder, so it is copied there first")
    if "accuracy_only" in ours:
        draft.command = ("evaluate", run)
    else:
        draft.command = ("bench", "infer", "-m", run)
        draft.differs("theirs counts 25 calls after 5; here the bench's own rule leaves out the warm-up")
    if "output_dir" in ours:
        draft.lost("--output-dir", "a bench writes its record to -o FILE; `bertkit predict -o` writes answers")
    return draft
