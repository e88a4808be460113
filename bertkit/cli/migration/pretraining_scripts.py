"""The programs of the reference systems that pre-train, and those that make the data for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood, set_model, unless_open
from bertkit.cli.migration.pretraining import PhaseOptions, pretrain
from bertkit.cli.migration.python_flags import carry_over, is_on, lost_reason, read_flags
from bertkit.cli.migration.python_scripts import BACKENDS, GAUDI, OF_TENSORFLOW, gaudi_settings, other_optimizer, whose
from bertkit.cli.migration.starters import CARDS, WHOLE, whole
from bertkit.cli.migration.words import Old
from bertkit.model.config import ARCHITECTURES


def run_pretraining(old: Old, draft: Draft) -> list[Draft]:
    """run_pretraining.py of NVIDIA, Habana, Iluvatar and Google, and Intel's run_pretrain_mlperf.py."""
    flags = read_flags(old.arguments)
    system = "habana" if "use_habana" in flags else whose(old, flags)
    if "target_mlm_accuracy" in flags or "dist_backend" in flags:
        system = "iluvatar"
        draft.options["--backend"] = "iluvatar"
    elif backend := BACKENDS[system]:
        draft.options["--backend"] = backend
    if system in OF_TENSORFLOW:
        draft.framework = "tensorflow"
    batch, parts = (_whole(flags, name, usual) for name, usual in (("train_batch_size", 32), (_parts(flags), 1)))
    inside = system in ("nvidia", "habana", "iluvatar")  # their batch is before accumulation divides it
    update, once = (batch, max(1, batch // parts)) if inside else (batch * parts, batch)
    phase = PhaseOptions(
        _whole(flags, "max_seq_length", 512 if "phase2" in flags else 128), update, once,
        flags.get("learning_rate", "5e-5"), flags.get("warmup_proportion", ""),
        flags.get("max_steps") or flags.get("num_train_steps") or "1000",
        _precision(flags),
        flags.get("seed", ""),
        scaling="linear" if system == "tensorflow" else "",
    )  # fmt: skip
    carry_over(draft, flags, READ | GAUDI if system == "habana" else READ)
    _start(flags, draft)
    if system == "habana":
        gaudi_settings(flags, draft)
    if is_on(flags, "allreduce_post_accumulation_fp16"):
        draft.differs("gradients are summed in fp16 there, in fp32 here; ranks.gradients=bf16 sends half as much")
    if old.elided:
        draft.differs("the document leaves arguments out; the program's own values are taken for them")
    model = draft.options.get("-m", "large")
    rules = {"google": "adam", "habana": "nvidia", "intel": "nvidia"}.get(system, system)
    rules = "adam" if other_optimizer(flags, draft) == "adam" else rules
    return [pretrain(draft, phase, rules, model)]


# what is read here, whatever the value
READ = frozenset(
    "max_seq_length learning_rate warmup_proportion seed max_steps num_train_steps train_batch_size"
    " num_accumulation_steps gradient_accumulation_steps fp16 bf16 amp autocast init_checkpoint vocab_file config_file"
    " bert_config_file input_file bert_config_path input_dir resume_from_checkpoint phase2 phase1_end_step"
    " resume_phase2 do_lower_case allreduce_post_accumulation_fp16 optimizer_type".split()
)


def _start(flags: Mapping[str, str], draft: Draft) -> None:
    """The model, its vocabulary and the data; a size by its configuration's name, where training starts at random."""
    config = next(
        (flags[name] for name in ("config_file", "bert_config_file", "bert_config_path") if flags.get(name)), ""
    )
    if checkpoint := flags.get("init_checkpoint"):
        set_model(draft, checkpoint, flags.get("vocab_file", ""), config)
    else:
        size = next((size for size in ARCHITECTURES if size in config.rpartition("/")[2]), "")
        draft.options["-m"] = size or "large"
        if config and not size:
            draft.differs(f"the size is taken to be large: what {config} says is not read")
        if vocab := unless_open(draft, flags.get("vocab_file", ""), "the published vocabulary is taken"):
            draft.sets["model.vocab"] = vocab
    data = flags.get("input_dir") or flags.get("input_file") or ""
    if data := unless_open(draft, data, "the folder data is taken"):
        draft.options["--data-dir"] = data
    _goes_on(flags, draft)


def _precision(flags: Mapping[str, str]) -> str:
    if is_on(flags, "fp16") or is_on(flags, "amp"):
        return "fp16"
    return "bf16" if is_on(flags, "autocast") or is_on(flags, "bf16") else ""


def _goes_on(flags: Mapping[str, str], draft: Draft) -> None:
    """A phase that goes on from the run before it, or a run that goes on itself; theirs share one folder."""
    if not is_on(flags, "resume_from_checkpoint"):
        return
    if "phase2" not in flags or is_on(flags, "resume_phase2"):
        draft.options["--resume"] = ""
    elif folder := flags.get("output_dir", "").rstrip("/"):
        draft.options["-o"] = f"{folder}-phase2"
        draft.sets["train.moments_from"] = folder
        draft.differs(f"phase 2 goes on from the run in {folder} and has a folder of its own")
    else:
        raise NotUnderstood("the old command leaves out the folder of phase 1", "add its --output_dir")


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
    visible = old.env.get("CUDA_VISIBLE_DEVICES", "")
    many = len(visible.split(",")) if visible else CARDS
    one = old.program == "train_bert_pretraining.sh"
    draft.place = replace(draft.place, processes=1 if one else many)
    if not one and not visible:
        draft.differs(f"one process per device that the script finds: {CARDS} here")
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
    sources = [flags[name] for name in CORPORA if flags.get(name)]
    lacking = [name for name in ("sink", "vocab_file") if not flags.get(name)]
    if not sources or lacking:
        raise NotUnderstood(
            "the old command leaves out " + " and ".join([*([] if sources else ["the text"]), *lacking]),
            "add them, as --wikipedia DIR --sink DIR --vocab-file FILE",
        )
    draft.command = ("data", "prepare", *sources)
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    draft.options |= {"-o": flags["sink"], "--vocab": flags["vocab_file"]}
    for theirs, ours in PREPARED:
        if WHOLE.fullmatch(flags.get(theirs, "")) or theirs in ("masked_lm_ratio", "short_seq_prob"):
            draft.options |= {ours: flags[theirs]} if flags.get(theirs) else {}
        elif theirs in flags:
            draft.differs(f"--{theirs.replace('_', '-')} {flags[theirs]} is no number: {ours} is left as it is")
    if "masking" in flags:
        draft.options["--masking"] = "static"
    if flags.get("sample_ratio", "1") not in ("1", "1.0"):
        draft.lost("--sample_ratio", lost_reason("sample_ratio"))
    draft.differs("one process for each core of this machine; `bertkit launch` starts several that share a folder")
    return [draft]


PREPARED = (
    ("target_seq_length", "-s"), ("bin_size", "--bin-size"), ("seed", "--seed"), ("num_shards", "--shards"),
    ("duplicate_factor", "--duplicate-factor"), ("masked_lm_ratio", "--mask-share"),
    ("short_seq_prob", "--short-seq-prob"),
)  # fmt: skip
CORPORA = ("wikipedia", "books", "common_crawl", "open_webtext")


def create_data(old: Old, draft: Draft) -> list[Draft]:
    """create_pretraining_data.py of Google (TFRecord) and NVIDIA (HDF5): one sentence a line."""
    flags = read_flags(old.arguments)
    lacking = [name for name in ("input_file", "output_file", "vocab_file") if not flags.get(name)]
    if lacking:
        raise NotUnderstood(f"the old command leaves out {' and '.join(lacking)}", "add them")
    made = flags["output_file"]
    draft.command = ("data", "prepare", *flags["input_file"].split(","))
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    folder = re.sub(r"\.\w+$", "", made.split(",")[0])
    draft.options |= {"-o": folder, "--vocab": flags["vocab_file"], "--input-format": "sentences"}
    draft.options["--format"] = "hdf5" if made.endswith((".hdf5", ".h5")) else "tfrecord"
    for theirs, ours, usual in CREATED:
        draft.options[ours] = flags.get(theirs) or usual
    if is_on(flags, "do_whole_word_mask"):
        draft.options["--whole-words"] = ""
    if "do_lower_case" in flags:
        draft.options["--casing"] = "uncased" if is_on(flags, "do_lower_case") else "cased"
    draft.differs(f"the shards lie in the folder {folder}")
    known = {
        "input_file",
        "output_file",
        "vocab_file",
        "do_whole_word_mask",
        "do_lower_case",
        *(row[0] for row in CREATED),
    }
    for name in flags.keys() - known:
        draft.lost(f"--{name}", lost_reason(name))
    return [draft]


CREATED = (
    ("max_seq_length", "-s", "128"), ("max_predictions_per_seq", "--max-predictions", "20"),
    ("random_seed", "--seed", "12345"), ("dupe_factor", "--duplicate-factor", "10"),
    ("masked_lm_prob", "--mask-share", "0.15"), ("short_seq_prob", "--short-seq-prob", "0.1"),
)  # fmt: skip


def balance_shards(old: Old, draft: Draft) -> list[Draft]:
    """LDDL's balance_dask_output: shards of the same size."""
    folder = read_flags(old.arguments).get("indir")
    if not folder:
        raise NotUnderstood("the old command leaves out the folder of the shards", "add --indir DIR")
    draft.command = ("data", "inspect", folder)
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    draft.differs("`bertkit data prepare` makes shards of like size itself; the command says what is in them")
    return [draft]


def unknown_inside(old: Old, draft: Draft) -> list[Draft]:
    """A script of the documents whose call of the program is not in them."""
    raise NotUnderstood(f"what {old.program} passes to its program is not known", "give the python line that is in it")


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_pretraining.py": run_pretraining,
    "run_pretrain_mlperf.py": run_pretraining,
    "run_pretraining_single.py": run_pretraining,
    "cmd_gbs2048.sh": unknown_inside,
    "run_and_time.sh": unknown_inside,
    "train_bert_pretraining_amp_dist.sh": train_bert_pretraining,
    "train_bert_pretraining.sh": train_bert_pretraining,
    "preprocess_bert_pretrain": prepare_corpus,
    "create_pretraining_data.py": create_data,
    "balance_dask_output": balance_shards,
}
