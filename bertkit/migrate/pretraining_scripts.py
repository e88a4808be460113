"""The programs of the reference systems that pre-train, and those that make the data for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.migrate.ours import Draft, set_model
from bertkit.migrate.pretraining import Phase, pretrain
from bertkit.migrate.python_flags import carry_over, is_on, read_flags
from bertkit.migrate.python_scripts import BACKENDS, whose
from bertkit.migrate.words import Old, whole


def run_pretraining(old: Old, draft: Draft) -> list[Draft]:
    """run_pretraining.py of NVIDIA, Habana, Iluvatar and Google, and Intel's run_pretrain_mlperf.py."""
    flags = read_flags(old.arguments)
    system = "habana" if "use_habana" in flags else whose(old, flags)
    if "target_mlm_accuracy" in flags or "dist_backend" in flags:
        system = "iluvatar"
        draft.options["--backend"] = "iluvatar"
    elif backend := BACKENDS[system]:
        draft.options["--backend"] = backend
    batch, parts = (_whole(flags, name, usual) for name, usual in (("train_batch_size", 32), (_parts(flags), 1)))
    inside = system in ("nvidia", "habana", "iluvatar")  # their batch is before accumulation divides it
    update, once = (batch, max(1, batch // parts)) if inside else (batch * parts, batch)
    phase = Phase(
        _whole(flags, "max_seq_length", 512 if "phase2" in flags else 128), update, once,
        flags.get("learning_rate", "5e-5"), flags.get("warmup_proportion", ""),
        flags.get("max_steps") or flags.get("num_train_steps") or "1000",
        "fp16" if is_on(flags, "fp16") or is_on(flags, "amp") else "bf16" if is_on(flags, "autocast") else "",
        flags.get("seed", ""),
        scaling="linear" if system == "tensorflow" else "",
    )  # fmt: skip
    kept = {name: value for name, value in flags.items() if name not in SAID_BY_PHASE}
    carry_over(draft, kept)
    if checkpoint := flags.get("init_checkpoint"):
        set_model(draft, checkpoint, flags.get("vocab_file", ""))
    if flags.get("input_dir"):
        draft.options["--data-dir"] = flags["input_dir"]
    model = draft.options.get("-m", "large")
    rules = {"google": "adam", "habana": "nvidia", "intel": "nvidia"}.get(system, system)
    return [pretrain(draft, phase, rules, model)]


SAID_BY_PHASE = ("max_seq_length", "learning_rate", "warmup_proportion", "seed")


def _parts(flags: Mapping[str, str]) -> str:
    return "num_accumulation_steps" if "num_accumulation_steps" in flags else "gradient_accumulation_steps"


def _whole(flags: Mapping[str, str], name: str, usual: int) -> int:
    return whole(flags[name], name) if flags.get(name) else usual


def train_bert_pretraining(old: Old, draft: Draft) -> list[Draft]:
    """Iluvatar's script: its own call of run_pretraining.py, arguments added behind."""
    flags = {**ILUVATAR, **read_flags(old.arguments)}
    words = [f"--{name}={value}" if value else f"--{name}" for name, value in flags.items()]
    if data := old.env.get("DATA"):
        words += [f"--input_dir={data}/2048_shards_uncompressed", f"--init_checkpoint={data}/model.ckpt-28252.apex.pt"]
    one = old.program == "train_bert_pretraining.sh"
    draft.place = replace(draft.place, processes=1 if one else 8)
    draft.differs("as many processes as the script finds cards: 8 here")
    return run_pretraining(replace(old, arguments=tuple(words)), draft)


# what the script itself passes
ILUVATAR: Mapping[str, str] = {
    "train_batch_size": "81", "gradient_accumulation_steps": "3", "learning_rate": "3.6e-4", "max_steps": "7400",
    "max_seq_length": "512", "seed": "17103", "eval_batch_size": "52", "target_mlm_accuracy": "0.720", "fp16": "",
    "phase2": "", "skip_checkpoint": "", "warmup_proportion": "0",
}  # fmt: skip


def prepare_corpus(old: Old, draft: Draft) -> list[Draft]:
    """LDDL's preprocess_bert_pretrain."""
    flags = read_flags(old.arguments)
    if "elided" in flags or not flags:
        draft.do("put the text, the folder and the vocabulary that the document leaves out where it says so")
    source = next((flags[name] for name in CORPORA if flags.get(name)), "TEXT")
    draft.command = ("data", "prepare", source)
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    draft.options |= {"-o": flags.get("sink", "SHARDS"), "--vocab": flags.get("vocab_file", "VOCABULARY")}
    for theirs, ours in (("target_seq_length", "-s"), ("bin_size", "--bin-size"), ("seed", "--seed")):
        if flags.get(theirs, "").isdecimal():
            draft.options[ours] = flags[theirs]
        elif theirs in flags:
            draft.do(f"{ours} with your number for {flags[theirs]}")
    if "masking" in flags:
        draft.options["--masking"] = "static"
    if flags.get("sample_ratio", "1") not in ("1", "1.0"):
        draft.lost("--sample_ratio", "all of the text is taken")
    draft.differs("one process for each core of this machine; `bertkit launch` starts several that share a folder")
    return [draft]


CORPORA = ("wikipedia", "books", "common_crawl", "open_webtext")


def balance_shards(old: Old, draft: Draft) -> list[Draft]:
    """LDDL's balance_dask_output: shards of the same size."""
    draft.command = ("data", "inspect", read_flags(old.arguments).get("indir", "SHARDS"))
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    draft.differs("`bertkit data prepare` makes shards of like size itself; the command says what is in them")
    return [draft]


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_pretraining.py": run_pretraining,
    "run_pretrain_mlperf.py": run_pretraining,
    "run_pretraining_single.py": run_pretraining,
    "cmd_gbs2048.sh": run_pretraining,
    "train_bert_pretraining_amp_dist.sh": train_bert_pretraining,
    "train_bert_pretraining.sh": train_bert_pretraining,
    "preprocess_bert_pretrain": prepare_corpus,
    "balance_dask_output": balance_shards,
}
