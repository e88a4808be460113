"""Every reader of files, settings and variables from outside, each with a small valid sample.

A reader that is not in this table is not fuzzed: whoever writes one adds a line.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fuzz import mutations as m
from fuzz.harness import Reader

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TEXT = (m.any_bytes, m.text)
JSON = (m.any_bytes, m.parsed, m.parsed)
JSON_LINES = (m.any_bytes, m.json_lines, m.json_lines)
TOML = (m.any_bytes, m.toml, m.toml)
SAFETENSORS = (m.any_bytes, m.safetensors_header)
TFRECORD = (m.any_bytes, m.tfrecord, m.tfrecord)
HDF5 = (m.any_bytes, m.hdf5, m.hdf5)
PARQUET = (m.any_bytes, m.parquet, m.parquet)


def _write(name: str, content: str | bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


# ---- a model's folder ----


def _config() -> Any:
    from bertkit.data.tasks.sample import vocabulary
    from bertkit.model.config import ModelConfig

    return ModelConfig(8, 1, 2, 16, vocab_size=len(vocabulary()), max_position_embeddings=64)


def _weights(seed: int = 1) -> dict[str, np.ndarray]:
    from bertkit.model.config import Head
    from bertkit.model.parameters import initial

    return dict(initial(_config(), Head("classification", 2), seed))


def make_model(folder: Path) -> None:
    """What a run leaves of its model, and the two small files that Hugging Face's tools add."""
    from bertkit.data.tasks.sample import vocabulary
    from bertkit.model.config import Head
    from bertkit.model.saving import write_model
    from bertkit.model.vocabulary import Vocabulary

    words = Vocabulary(folder / "vocab.txt", tuple(vocabulary()), True)
    write_model(folder, _config(), Head("classification", 2), ("0", "1"), words, _weights())
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "added_tokens.json").write_text(json.dumps({"[MASK]": vocabulary().index("[MASK]")}))


def _recipe(folder: Path, **settings: Any) -> Any:
    from bertkit.recipes.resolve import resolve

    flat = {key.replace("__", "."): value for key, value in settings.items()}
    return resolve({"model.name": str(folder), "data.seq_length": 16, **flat}, env={}).recipe


def read_model(folder: Path) -> Any:
    """Configuration and vocabulary, and what the tokenizer makes of a sentence."""
    from bertkit.data.encoding import encode
    from bertkit.training.setup import find_model

    source = find_model(_recipe(folder))
    features = encode(source.vocabulary, ["The plot is not good, éh"], None, {}, 16)
    return source.config, source.vocabulary.pieces, source.vocabulary.lower_case, features


def read_shapes(folder: Path) -> Any:
    """As `read_model`, and whether the weights fit: sizes become arrays here."""
    from bertkit.model.config import Head
    from bertkit.model.loading import starting_weights
    from bertkit.training.setup import find_model

    source = find_model(_recipe(folder))
    fit = starting_weights(source, Head("classification", 2), 1)
    return source.config, fit.weights, fit.missing


def read_weights(folder: Path) -> Any:
    from bertkit.model.weights import read_weights as read

    return read(folder).arrays


def read_file(name: str) -> Callable[[Path], Any]:
    """A `.pt` or `.bin` file as `convert` and `train` read it."""

    def read(folder: Path) -> Any:
        from bertkit.model.formats.torch_files import read_state
        from bertkit.model.weights import read_weights as weights

        found = read_state(folder / name, moments=True)
        return weights(folder / name).arrays, found.weights, found.moments, found.notes

    return read


def make_bin(legacy: bool) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        import torch

        make_model(folder)
        (folder / "model.safetensors").unlink()
        tensors = {name: torch.from_numpy(array) for name, array in _weights().items()}
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)

    return make


def make_pt(folder: Path) -> None:
    import torch

    make_model(folder)
    tensors = {name: torch.from_numpy(array) for name, array in _weights().items()}
    groups = [{"lr": 1e-3, "params": list(range(len(tensors)))}]
    state = {at: {"step": 3, "exp_avg": tensor, "exp_avg_sq": tensor} for at, tensor in enumerate(tensors.values())}
    torch.save(
        {"model": tensors, "optimizer": {"state": state, "param_groups": groups}, "epoch": 1}, folder / "ckpt.pt"
    )


def make_shards(kind: str) -> Callable[[Path], object]:
    """Weights in two files with an index: of safetensors, or of pickles."""

    def make(folder: Path) -> None:
        from bertkit.files.disk import write_arrays

        make_model(folder)
        (folder / "model.safetensors").unlink()
        names = sorted(_weights())
        stem, ending = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
        parts = {f"{stem}-0000{part + 1}-of-00002.{ending}": names[part::2] for part in (0, 1)}
        for file, held in parts.items():
            arrays = {name: _weights()[name] for name in held}
            if kind == "safetensors":
                write_arrays(folder / file, arrays, {"format": "pt"})
            else:
                import torch

                torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / file)
        places = {name: file for file, held in parts.items() for name in held}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))

    return make


def make_tf1(folder: Path) -> None:
    from bertkit.model.formats.tf1 import write_tf1

    write_tf1(folder / "bert_model.ckpt", _weights(), {})


def read_tf1(folder: Path) -> Any:
    from bertkit.model.formats.tf1 import read_tf1 as read

    return read(folder / "bert_model.ckpt", moments=True)


def only_tokenizer_json(folder: Path) -> None:
    make_model(folder)
    (folder / "vocab.txt").unlink()


MODEL_FILES = {
    "config.json": JSON, "tokenizer.json": JSON, "tokenizer_config.json": JSON, "special_tokens_map.json": JSON,
    "added_tokens.json": JSON, "vocab.txt": TEXT,
}  # fmt: skip


def model_readers() -> Iterator[Reader]:
    for name, how in MODEL_FILES.items():
        yield Reader(f"model {name}", make_model, name, read_model, how)
    yield Reader("model config and weights", make_model, "config.json", read_shapes, JSON)
    yield Reader("tokenizer.json alone", only_tokenizer_json, "tokenizer.json", read_model, JSON)
    yield Reader("safetensors", make_model, "model.safetensors", read_weights, SAFETENSORS)
    for kind, ending in (("safetensors", "safetensors"), ("bin", "bin")):
        stem = "model" if kind == "safetensors" else "pytorch_model"
        yield Reader(f"index {kind}", make_shards(kind), f"{stem}.{ending}.index.json", read_weights, JSON)
    shard = "model-00001-of-00002.safetensors"
    yield Reader("safetensors shard", make_shards("safetensors"), shard, read_weights, SAFETENSORS)
    zipped = (m.any_bytes, m.zipped(m.any_bytes))
    yield Reader("bin zip", make_bin(False), "pytorch_model.bin", read_weights, zipped)
    yield Reader("bin legacy", make_bin(True), "pytorch_model.bin", read_weights)
    yield Reader("pt", make_pt, "ckpt.pt", read_file("ckpt.pt"), zipped)
    yield Reader("tf1 index", make_tf1, "bert_model.ckpt.index", read_tf1, sealed=True)
    yield Reader("tf1 data", make_tf1, "bert_model.ckpt.data-00000-of-00001", read_tf1, sealed=True)


# ---- what a run keeps ----


def make_checkpoint(folder: Path) -> None:
    from bertkit.model.checkpoint import Checkpoints, Progress

    scores = ({"step": 3, "training_seconds": 1.5, "wall_seconds": 2.0, "metrics": {"accuracy": 0.5}},)
    shaped = {"seed": 1, "train.batch_size": 8, "optimizer.learning_rate": 1e-3}
    Checkpoints(folder).save(_weights(), Progress(3, shaped, 3, 0.5, (0.7, 0.6, 0.5), scores, 1.5, 2.0))


def read_checkpoint(folder: Path) -> Any:
    from bertkit.model.checkpoint import Checkpoints

    return Checkpoints(folder).load(3)


def newest_checkpoint(folder: Path) -> Any:
    from bertkit.model.checkpoint import Checkpoints

    return Checkpoints(folder).newest()


def _features() -> Any:
    from bertkit.data.features import Features

    ids = np.arange(12, dtype=np.int32)
    bounds = np.array([0, 5, 12], np.int64)
    return Features(ids, ids % 2, bounds, {"labels": np.array([0, 1], np.int64)}, {"skipped": np.array([0, 0])})


def read_cache(folder: Path) -> Any:
    from bertkit.data.features import cached

    return cached(folder, "dev", "0123456789abcdef", _features)


LOG = "".join(
    json.dumps({"event": event, "time": 1795892237.4, "step": step, "samples": 8 * step, **more}) + "\n"
    for event, step, more in (
        ("start", 0, {"command": "bertkit train"}), ("update", 1, {"loss": 0.7, "lr": 1e-3}), ("checkpoint", 1, {}),
        ("update", 2, {"loss": 0.6, "lr": 1e-3}), ("evaluation", 2, {"metrics": {"accuracy": 0.5}}), ("end", 2, {}),
    )
)  # fmt: skip


def read_log(folder: Path) -> Any:
    """As a resumed run does: what is behind the checkpoint is forgotten, then the log is gone on with."""
    from bertkit.records.event_log import RunLog
    from bertkit.records.event_log import read_log as events

    log = RunLog(folder)
    log.cut_after(1)
    log.write("update", step=2, loss=0.5)
    return [entry for entry in events(folder / "log.jsonl") if entry.get("loss") != 0.5]


def make_record(folder: Path) -> None:
    from bertkit.records.files import write
    from made_records import evaluations, record

    write(folder / "record.json", record(evaluations=evaluations((1, 0.5, 0.5), (2, 1.0, 0.6))))


def make_long_record(folder: Path) -> None:
    from bertkit.records.files import write
    from made_records import record

    write(folder / "record.json", record(losses=[1 / (1 + step) for step in range(1200)]))


def make_collection(folder: Path) -> None:
    from bertkit.records.files import sealed, write_all
    from made_records import record

    write_all(folder / "record.json", [sealed(record(seed=seed)) for seed in (1, 2)])


def read_records(folder: Path) -> Any:
    """As `bertkit compare` does, up to its text and page."""
    from bertkit.comparison.comparison import compare
    from bertkit.comparison.entries import entry
    from bertkit.comparison.files import to_csv, to_mapping
    from bertkit.comparison.markdown import to_markdown
    from bertkit.records.files import load_all

    entries = [entry(record) for record in load_all(folder / "record.json")]
    made = compare(entries, None, None, [], [])
    to_csv(made), to_markdown(made), json.dumps(to_mapping(made), default=str)
    return [(one.figures, one.scores, one.losses, one.facts) for one in entries]


def read_losses(folder: Path) -> Any:
    from bertkit.records.files import load

    return load(folder / "record.json").losses()


def make_recipe(folder: Path) -> None:
    from bertkit.recipes.resolve import resolve
    from bertkit.training.run_folder import write_recipe

    write_recipe(folder, resolve({"task": "sample", "backend": "cpu"}, env={}).flat())


def read_recipe(folder: Path) -> Any:
    from bertkit.recipes.resolve import resolve
    from bertkit.training.run_folder import to_toml

    flat = resolve({}, config=folder / "recipe.toml", env={}).flat()
    to_toml(flat).encode()
    return flat


def run_settings(folder: Path) -> Any:
    from bertkit.recipes.resolve import resolve
    from bertkit.training.run_task import run_settings as read

    return resolve({}, run=read(str(folder)), env={}).flat()


def kept_readers() -> Iterator[Reader]:
    tensors = "step-00000003.safetensors"
    yield Reader("checkpoint manifest", make_checkpoint, "step-00000003.json", read_checkpoint, JSON, sealed=True)
    yield Reader("checkpoint tensors", make_checkpoint, tensors, read_checkpoint, SAFETENSORS, sealed=True)
    yield Reader("newest checkpoint", make_checkpoint, "step-00000003.json", newest_checkpoint, JSON, sealed=True)
    cache = "dev-0123456789abcdef.safetensors"
    yield Reader("features", read_cache, cache, read_cache, SAFETENSORS, sealed=True)
    yield Reader("log", _write("log.jsonl", LOG), "log.jsonl", read_log, JSON_LINES)
    yield Reader("record", make_record, "record.json", read_records, JSON)
    yield Reader("record of several", make_collection, "record.json", read_records, JSON)
    yield Reader("losses", make_long_record, "losses.json", read_losses, JSON, sealed=True)
    yield Reader("recipe", make_recipe, "recipe.toml", read_recipe, TOML)
    yield Reader("recipe of a run", make_recipe, "recipe.toml", run_settings, TOML)


# ---- settings, variables, machines ----


def read_sets(folder: Path) -> Any:
    """A line is a --set."""
    from bertkit.recipes.resolve import resolve

    words = _lines(folder / "sets")
    return resolve({}, words, env={}).flat()


def _lines(path: Path) -> list[str]:
    """Lines as the system gives arguments: bytes that are no UTF-8 are halves of surrogate pairs."""
    return path.read_bytes().decode("utf-8", "surrogateescape").split("\n")


def _variables(path: Path) -> dict[str, str]:
    """`NAME=value` lines."""
    pairs = (line.partition("=") for line in _lines(path))
    return {name: value for name, equals, value in pairs if equals and name}


SETS = (
    "seed=3\noptimizer.learning_rate=3e-5\nmodel.name=base\ndevice.threads=2\ntrain.steps=10\n"
    "data.shard=0/2\nmodel.casing=cased"
)
SETTINGS = (
    "BERTKIT_SEED=3\nBERTKIT_TRAIN_STEPS=10\nBERTKIT_DEVICE_THREADS=2\nBERTKIT_MODEL_NAME=base\nBERTKIT_DATA_DIR=d"
)
WORLDS = {
    "torchrun": "RANK=1\nWORLD_SIZE=4\nLOCAL_RANK=1\nLOCAL_WORLD_SIZE=2\nMASTER_ADDR=127.0.0.1\nMASTER_PORT=29500",
    "open mpi": (
        "OMPI_COMM_WORLD_RANK=1\nOMPI_COMM_WORLD_SIZE=4\nOMPI_COMM_WORLD_LOCAL_RANK=1\nOMPI_COMM_WORLD_LOCAL_SIZE=2"
    ),
    "hydra": "PMI_RANK=1\nPMI_SIZE=4\nMPI_LOCALRANKID=1\nMPI_LOCALNRANKS=2",
    "slurm": (
        "SLURM_PROCID=2\nSLURM_STEP_NUM_TASKS=4\nSLURM_LOCALID=0\nSLURM_STEP_TASKS_PER_NODE=2(x2)\nSLURM_NODEID=1\n"
        "SLURM_STEP_NODELIST=gpu[003-004,7],x1\nSLURM_JOB_ID=17\nSLURM_STEP_ID=0"
    ),
}
HOSTS = "MULTI_HLS_IPS=box1,10.0.0.2\nDOCKER_SSHD_PORT=3022\nMPI_TCP_INCLUDE=eth0"


def read_settings(folder: Path) -> Any:
    from bertkit.recipes.resolve import resolve

    return resolve({}, env=_variables(folder / "env")).flat()


def read_world(folder: Path) -> Any:
    from bertkit.distributed.world import from_env
    from bertkit.launch.interface import refuse_nested

    env = _variables(folder / "env")
    world = from_env(env)
    try:
        refuse_nested(env)
    except Exception as error:
        from bertkit.errors import UserError

        if not isinstance(error, UserError):
            raise
    return world


def read_hosts(folder: Path) -> Any:
    from bertkit.launch.hosts import network_of

    return network_of("", 0, "", _variables(folder / "env"))


def read_topology(folder: Path) -> Any:
    from bertkit.distributed.hwloc import from_hwloc

    return from_hwloc(folder / "box.xml")


def make_sys(folder: Path) -> None:
    """The files of a box with two cores, its cgroup's limit and its memory nodes."""
    files = {
        "sys/devices/system/cpu/online": "0-1",
        "sys/devices/system/node/node0/cpulist": "0-1",
        "proc/self/cgroup": "0::/a/b",
        "sys/fs/cgroup/a/cpu.max": "150000 100000",
        "proc/cpuinfo": "model name : a chip\ncpu MHz : 2000.5\n",
        "proc/1/comm": "systemd",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: NVIDIA A100\nGPU UUID: GPU-1234\n",
        "dev/nvidia0": "",
        "sys/bus/pci/devices/0000:01:00.0/numa_node": "0",
    }
    for cpu in (0, 1):
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files |= {f"{topology}/thread_siblings_list": str(cpu), f"{topology}/physical_package_id": "0"}
    for name, text in files.items():
        _write(name, text + "\n")(folder)


def read_box(folder: Path) -> Any:
    from bertkit.distributed.topology import read_machine
    from bertkit.records.energy import Rapl
    from bertkit.records.host import box
    from bertkit_cuda.cards import read_cards, visible

    facts = {name: value for name, value in box(folder).items() if name not in ("host", "system", "memory_bytes")}
    cards = read_cards(folder)
    return read_machine(folder, (0, 1)), facts, cards, visible(cards, {}), Rapl(folder / "energy").joules()


def make_energy(folder: Path) -> None:
    make_sys(folder)
    for name, text in (("name", "package-0"), ("energy_uj", "1000"), ("max_energy_range_uj", "262143328850")):
        _write(f"energy/intel-rapl:0/{name}", text + "\n")(folder)


def read_places(folder: Path) -> Any:
    """BERTKIT_PLACES, as a rank reads it."""
    from bertkit.distributed.world import World
    from bertkit.launch.rank_process import my_place

    text = _lines(folder / "places")[0]
    return my_place(World(0, 2, 0, 2), {"BERTKIT_PLACES": text})


def read_visible(folder: Path) -> Any:
    from bertkit_cuda.cards import Card, visible

    return visible(
        [Card("a", 0, "GPU-1"), Card("b", 0, "GPU-2")], {"CUDA_VISIBLE_DEVICES": "\n".join(_lines(folder / "env"))}
    )


def read_mpirun(folder: Path) -> Any:
    from bertkit_mpi.mpirun import parse_version

    return parse_version("\n".join(_lines(folder / "said")))


def read_versions(folder: Path) -> Any:
    """What another host's Python says of itself over ssh."""
    import subprocess

    from bertkit_mpi.remote import MARK, _parse

    said = "welcome\n" + MARK + "\n".join(_lines(folder / "said"))
    return _parse("far", "python3", subprocess.CompletedProcess([], 0, said, ""))


def read_batch_options(folder: Path) -> Any:
    from bertkit.launch.interface import SlurmOptions
    from bertkit_slurm.options import check_batch, cpus_asked

    options = tuple(_lines(folder / "options"))
    check_batch(SlurmOptions(options=options))
    return cpus_asked(options)


def read_gaudi_config(folder: Path) -> Any:
    from bertkit_gaudi.gaudi_config import read_config

    return read_config(folder / "gaudi_config.json")


def read_gaudi_cards(folder: Path) -> Any:
    from bertkit_gaudi.cards import read_answer, visible

    text = "\n".join(_lines(folder / "said"))
    return read_answer(text), visible(text.partition("\n")[0], 8)


def read_words(folder: Path) -> Any:
    """A command line in other systems' spellings."""
    from bertkit.cli.hf_flags import translate

    return translate(_lines(folder / "words"))


def read_old_command(folder: Path) -> Any:
    """A command line of another system, for `bertkit migrate`."""
    from bertkit.cli.migration.translate import migrate

    made = migrate("\n".join(_lines(folder / "words")))
    return [str(one) for one in made.commands]


def read_published(folder: Path) -> Any:
    from bertkit.comparison.published import figures

    return len(figures("\n".join(_lines(folder / "name"))))


def setting_readers() -> Iterator[Reader]:
    yield Reader("--set", _write("sets", SETS), "sets", read_sets, (m.any_bytes, m.toml, m.text))
    yield Reader("settings in variables", _write("env", SETTINGS), "env", read_settings, (m.any_bytes, m.toml, m.text))
    for name, text in WORLDS.items():
        yield Reader(f"world {name}", _write("env", text), "env", read_world, TEXT)
    yield Reader("hosts", _write("env", HOSTS), "env", read_hosts, TEXT)
    topology = _write("box.xml", (GOLDEN / "topologies" / "2sockets_smt.xml").read_bytes())
    yield Reader("hwloc", topology, "box.xml", read_topology, TEXT)
    for name in (
        "sys/devices/system/cpu/online", "sys/devices/system/node/node0/cpulist", "proc/self/cgroup",
        "sys/fs/cgroup/a/cpu.max", "proc/cpuinfo", "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
        "sys/devices/system/cpu/cpu0/topology/physical_package_id", "sys/bus/pci/devices/0000:01:00.0/numa_node",
        "proc/driver/nvidia/gpus/0000:01:00.0/information", "energy/intel-rapl:0/energy_uj",
        "energy/intel-rapl:0/max_energy_range_uj",
    ):  # fmt: skip
        yield Reader(f"/{name}", make_energy, name, read_box, TEXT)
    yield Reader("places", _write("places", "0-3@0;4-7@1"), "places", read_places, TEXT)
    yield Reader("visible devices", _write("env", "1,0,GPU-2"), "env", read_visible, TEXT)
    said = "mpirun (Open MPI) 4.1.6\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
    yield Reader("mpirun --version", _write("said", said), "said", read_mpirun, TEXT)
    versions = json.dumps({"bertkit": "0.1.0", "torch": "2.13.0", "mpi4py": "4", "python": "3.12"})
    yield Reader("versions over ssh", _write("said", versions), "said", read_versions, JSON)
    options = "--time=02:00:00\n--cpus-per-task=8\n--partition=gpu\n-c 4"
    yield Reader("batch options", _write("options", options), "options", read_batch_options, TEXT)
    gaudi = json.dumps({"use_fused_adam": True, "use_fused_clip_norm": True, "autocast_bf16_ops": ["add", "linear"]})
    yield Reader("gaudi config", _write("gaudi_config.json", gaudi), "gaudi_config.json", read_gaudi_config, JSON)
    yield Reader("gaudi cards", _write("said", "0, HL-225\n1, HL-225\n"), "said", read_gaudi_cards, TEXT)
    words = "train\n--model_name_or_path\nbert\n--per_device_train_batch_size\n8\n--fp16\n--task_name=mrpc\n--do_train"
    yield Reader("spellings", _write("words", words), "words", read_words, TEXT)
    old = "python run_glue.py --model_name_or_path bert-large-uncased --task_name mrpc --max_seq_length 128 --do_train"
    yield Reader("migrate", _write("words", old), "words", read_old_command, TEXT)
    yield Reader("published", _write("name", "nvidia-a100-80gb"), "name", read_published, TEXT)


# ---- tasks' data ----

SENTENCES = ("the plot is good", "the cast was never dull", "a bold villain", "the music seems rich")


def _table(task: Any, split: str) -> str:
    """Four rows of a task's file."""
    columns = task.splits[split][0].columns
    labels = task.labels or ("0.000", "2.500", "5.000", "1.250")
    rows = []
    if not columns.header:
        for at, sentence in enumerate(SENTENCES):
            cells = ["x"] * (columns.columns or 4)
            cells[int(columns.first)] = sentence
            cells[int(columns.label)] = labels[at % len(labels)]
            rows.append("\t".join(cells))
        return "\n".join(rows) + "\n"
    names = [name for name in ("index", columns.first, columns.second, columns.label) if name]
    rows.append("\t".join(map(str, names)))
    for at, sentence in enumerate(SENTENCES):
        held = {
            "index": str(at),
            columns.first: sentence,
            columns.second: sentence,
            columns.label: labels[at % len(labels)],
        }
        rows.append("\t".join(held[name] for name in names))
    return "\n".join(rows) + "\n"


def _vocabulary(lower: bool = True) -> Any:
    from bertkit.data.tasks.sample import vocabulary
    from bertkit.model.vocabulary import Vocabulary

    return Vocabulary(Path("vocab.txt"), tuple(vocabulary()), lower)


def read_task(task: Any, split: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from bertkit.data.tasks.reading import read_split
        from bertkit.recipes.resolve import resolve
        from bertkit.training.recipe_parts import sequence_shape

        shape = sequence_shape(resolve({"data.seq_length": 48}, env={}).recipe.data, 0)
        parts = read_split(task, folder, split, _vocabulary(), shape)  # type: ignore[arg-type]
        return [(part.features, part.examples) for part in parts]

    return read


def table_readers() -> Iterator[Reader]:
    from bertkit.data.tasks.glue import GLUE

    for task in GLUE:
        split = "dev" if "dev" in task.splits else "test"
        file = f"{task.folder}/{task.splits[split][0].file}"
        more = [f"{task.folder}/{one.file}" for one in task.splits[split][1:]]

        def make(folder: Path, task: Any = task, split: str = split, files: Sequence[str] = (file, *more)) -> None:
            for name in files:
                _write(name, _table(task, split))(folder)

        yield Reader(f"table {task.name}", make, file, read_task(task, split), TEXT)


RAW = "\n".join(
    ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    + [f"{at % 2}\t{100 + at}\t{200 + at}\t{text}\t{text}" for at, text in enumerate(SENTENCES)]
)
DEV_IDS = "100\t200\n102\t202\n"


def make_raw_mrpc(folder: Path) -> None:
    _write("MRPC/msr_paraphrase_train.txt", RAW + "\n")(folder)
    _write("MRPC/dev_ids.tsv", DEV_IDS)(folder)


def _squad(version2: bool) -> str:
    from squad_files import reviews, to_squad

    return json.dumps(to_squad(reviews(2, version2), version2))


def _squad_lines() -> str:
    rows = []
    for at, sentence in enumerate(SENTENCES):
        start = sentence.rindex(" ") + 1
        answers = {"text": [sentence[start:]], "answer_start": [start]}
        rows.append({"id": f"q{at}", "title": "T", "context": sentence, "question": "what is it ?", "answers": answers})
    return "".join(json.dumps(row) + "\n" for row in rows)


def task_readers() -> Iterator[Reader]:
    from bertkit.data.tasks import find_task

    yield from table_readers()
    raw = read_task(find_task("mrpc"), "dev")
    yield Reader("mrpc raw", make_raw_mrpc, "MRPC/msr_paraphrase_train.txt", raw, TEXT)
    yield Reader("mrpc dev ids", make_raw_mrpc, "MRPC/dev_ids.tsv", raw, TEXT)
    for name, version2 in (("squad", False), ("squad2", True)):
        task = find_task(name)
        file = f"{task.folder}/{task.splits['dev'][0].file}"
        yield Reader(name, _write(file, _squad(version2)), file, read_task(task, "dev"), JSON)
    task = find_task("squad")
    file = f"{task.folder}/{task.splits['dev'][0].file}"
    yield Reader("squad lines", _write(file, _squad_lines()), file, read_task(task, "dev"), JSON_LINES)
    yield from own_readers()
    yield from score_readers()


OWN_ROWS = [
    {"review": 'fine, "so to say"\nand long', "stars": "good"}, {"review": "a dull film", "stars": "bad"},
    {"review": "ünïcode", "stars": "good"}, {"review": "again", "stars": "bad"},
]  # fmt: skip


def _own_csv(delimiter: str) -> str:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, list(OWN_ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(OWN_ROWS)
    return text.getvalue()


def _own_arrow(kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, out = pa.Table.from_pylist(OWN_ROWS), pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, out)
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(out, table.schema) as writer:
            writer.write_table(table)
    return bytes(out.getvalue())


def read_own(name: str) -> Callable[[Path], Any]:
    """A user's table, from the look at it to its examples."""

    def read(folder: Path) -> Any:
        from bertkit.data.tables.table import TableOptions
        from bertkit.data.tasks.own.base import OwnData
        from bertkit.data.tasks.own.choices import ChoiceFormat
        from bertkit.data.tasks.own.making import make_own_task
        from bertkit.data.tasks.own.rows import RowFormat, read_examples
        from bertkit.data.tasks.own.tokens import TokenFormat

        path, said = folder / name, OwnData(label="stars", text="review")
        if name.endswith(".conll"):
            said = OwnData(kind="ner", options=TableOptions(conll=True))
        if name.startswith("choices"):
            said = OwnData(kind="choice")
        task = make_own_task(path, said, lambda text: None)
        if isinstance(task.format, RowFormat):
            found = read_examples(task, task.format, path, "train")
            return task.labels, found.first, found.labels
        if isinstance(task.format, ChoiceFormat):
            return task.format.examples_of(path, "train")
        assert isinstance(task.format, TokenFormat)
        return task.labels, task.format.sentences(task, path, "train")

    return read


def own_readers() -> Iterator[Reader]:
    rows = "".join(json.dumps(row) + "\n" for row in OWN_ROWS)
    arrow = (m.any_bytes, m.any_bytes)
    for name, content, how in (
        ("a.csv", _own_csv(","), TEXT),
        ("a.tsv", _own_csv("\t"), TEXT),
        ("a.jsonl", rows, JSON_LINES),
        ("a.json", json.dumps(OWN_ROWS), JSON),
        ("a.parquet", _own_arrow("parquet"), PARQUET),
        ("a.arrow", _own_arrow("file"), arrow),
        ("stream.arrow", _own_arrow("stream"), arrow),
        ("choices.csv", "text,choice1,choice2,label\na film,good,bad,0\na book,bad,good,1\n", TEXT),
        ("choices.jsonl", '{"text": "a", "choices": ["b", "c"], "label": 1}\n' * 3, JSON_LINES),
        ("a.conll", "a X O\nb X B-P\n\nc X I-P\nd X O\n", TEXT),
    ):
        yield Reader(f"own {name}", _write(name, content), name, read_own(name), how)
    packed = gzip.compress(_own_csv(",").encode(), mtime=0)
    yield Reader("own csv.gz", _write("a.csv.gz", packed), "a.csv.gz", read_own("a.csv.gz"), (m.gzipped(m.any_bytes),))


def score_readers() -> Iterator[Reader]:
    from bertkit.data.tasks import find_task
    from squad_files import reviews

    def table(name: str, answers: Sequence[str]) -> Reader:
        def make(folder: Path) -> None:
            _write("gold.tsv", _table(find_task(name), "dev"))(folder)
            rows = [f"{at}\t{answer}" for at, answer in enumerate(answers)]
            _write("said.tsv", "\n".join(["index\tprediction", *rows]) + "\n")(folder)

        return Reader(f"predictions {name}", make, "said.tsv", _score(name, "said.tsv", "gold.tsv"), TEXT)

    yield table("mrpc", ("0", "1", "1", "0"))
    yield table("stsb", ("0.1", "2.5", "4.9", "1.0"))
    ids = [question.id for paragraph in reviews(2, True) for question in paragraph.questions]

    def make(folder: Path) -> None:
        _write("gold.json", _squad(True))(folder)
        _write("said.json", json.dumps(dict.fromkeys(ids, "good")))(folder)
        _write("odds.json", json.dumps({name: at - 1.5 for at, name in enumerate(ids)}))(folder)

    for file in ("said.json", "odds.json", "gold.json"):
        yield Reader(f"score {file}", make, file, _score("squad2", "said.json", "gold.json", "odds.json"), JSON)


def _score(task: str, said: str, gold: str, odds: str = "") -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from bertkit.data.tasks.scoring import notes, score_file

        found = score_file(folder / said, task, folder / gold, folder / odds if odds else None)
        return {name: float(value) for name, value in found.metrics.items()}, found.missing, notes(found)

    return read


# ---- data of pre-training ----


def _shard(write: Callable[..., object], name: str, **options: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        from pretraining_files import known_sequences, write_vocabulary

        write_vocabulary(folder)
        (folder / "data").mkdir()
        write(folder / "data" / name, known_sequences(5), **options)

    return make


def read_shards(folder: Path) -> Any:
    """Every sequence of the data, as training gets it."""
    from bertkit.data.pretraining.dataset import open_data
    from bertkit.model.tokenizer_files import read_vocabulary

    words = read_vocabulary(folder / "vocab.txt")
    data = open_data(folder / "data", words)
    batch = data.batch(np.arange(len(data)))
    for name in ("input_ids", "masked_labels"):
        if len(batch[name]) and not 0 <= batch[name].min() <= batch[name].max() < len(words.pieces):
            raise AssertionError(f"{name} out of range: {batch[name].min()} to {batch[name].max()}")
    if not set(np.unique(batch["labels"])) <= {-100, 0, 1}:  # -100: none is known
        raise AssertionError(f"next-sentence labels {np.unique(batch['labels'])}")
    return batch


def shard_readers() -> Iterator[Reader]:
    import pretraining_files as p

    made: Iterable[tuple[str, Callable[..., object], str, Sequence[m.Mutation], Mapping[str, Any]]] = (
        ("hdf5 padded", p.write_hdf5, "a.hdf5", HDF5, {}),
        ("hdf5 packed", p.write_packed_hdf5, "a.hdf5", HDF5, {}),
        ("hdf5 dense", p.write_dense_hdf5, "a.hdf5", HDF5, {"ignored": -1}),
        ("tfrecord padded", p.write_tfrecord, "a.tfrecord", TFRECORD, {}),
        ("tfrecord packed", p.write_packed_tfrecord, "a.tfrecord", TFRECORD, {}),
        ("parquet", p.write_parquet, "part.0.parquet", PARQUET, {}),
        ("parquet dynamic", p.write_parquet, "part.0.parquet", PARQUET, {"static": False}),
        ("parquet binned", p.write_parquet, "part.0.parquet_0", PARQUET, {"bin": 0}),
    )
    for name, write, file, how, options in made:
        yield Reader(f"shard {name}", _shard(write, file, **options), f"data/{file}", read_shards, how)


def make_prepared(folder: Path) -> None:
    """Data with its manifest."""
    from bertkit.data.pretraining.formats.manifest import Manifest, ShardEntry, SourceEntry, write_manifest
    from bertkit.files.disk import sha256_file
    from pretraining_files import write_hdf5

    _shard(write_hdf5, "a.hdf5")(folder)
    shard = folder / "data" / "a.hdf5"
    entry = ShardEntry("a.hdf5", 5, 100, 10, shard.stat().st_size, sha256_file(shard))
    source = SourceEntry("a.txt", 100, "raw", "0" * 64)
    write_manifest(folder / "data", Manifest({"seed": 1}, 1, 5, 100, 5, 6, {"long": 0}, (source,), (entry,)))


def read_prepared(folder: Path) -> Any:
    from bertkit.data.pretraining.dataset import open_data
    from bertkit.model.tokenizer_files import read_vocabulary

    data = open_data(folder / "data", read_vocabulary(folder / "vocab.txt"))
    return len(data), data.digest(), data.manifest


CORPUS = {
    "raw": "The plot is good. The cast was dull.\nIt ended well!\n\nAnother text stands here. It is short.\n",
    "sentences": "The plot is good.\nThe cast was dull.\n\nAnother text stands here.\nIt is short.\n",
    "wiki": '<doc id="1" title="A">\nA\n\nThe plot is good. It was.\n</doc>\n<doc id="2">\nB\nMore.\n</doc>\n',
    "jsonl": '{"text": "The plot is good. It was.", "id": 1}\n{"text": "More text.\\nAnd more."}\n',
}


def read_corpus(folder: Path) -> Any:
    """The sentences, by the format that the file's start looks like."""
    from bertkit.data.pretraining.prepare.sources import find_sources, plan
    from bertkit.data.pretraining.prepare.texts import Notes, documents

    found = []
    for source in find_sources([folder / "text"], None):
        notes = Notes()
        found.append((source.format, list(documents(source.path, source.format, 0, -1, notes)), notes.counts))
    plan(find_sources([folder / "text"], None))
    return found


def make_work(folder: Path) -> None:
    """What `data prepare` notes for its workers and for going on."""
    from bertkit.data.pretraining.prepare.sources import find_sources
    from bertkit.data.pretraining.prepare.work import Settings, plan_work, write_work
    from bertkit.model.tokenizer_files import read_vocabulary

    _write("text/a.txt", CORPUS["raw"])(folder)
    make_model(folder)
    words = read_vocabulary(folder / "vocab.txt", "uncased")
    work = plan_work(Settings(), words, find_sources([folder / "text"], None), folder / "out")
    work.desk.mkdir(parents=True)
    write_work(work)


def read_work(folder: Path) -> Any:
    from bertkit.data.pretraining.prepare.work import NOTE, UNFINISHED, load_work

    note = folder / "out" / UNFINISHED / NOTE
    note.write_bytes(note.read_bytes())
    found = load_work(folder / "out")
    return found.settings, [source.name for source in found.sources], found.pieces, found.shards


def pretraining_readers() -> Iterator[Reader]:
    yield from shard_readers()
    yield Reader("manifest of data", make_prepared, "data/manifest.json", read_prepared, JSON)
    for name, text in CORPUS.items():
        how = JSON_LINES if name == "jsonl" else TEXT
        yield Reader(f"text {name}", _write("text/a.txt", text), "text/a.txt", read_corpus, how)
    packed = gzip.compress(CORPUS["raw"].encode(), mtime=0)
    yield Reader(
        "text gz", _write("text/a.txt.gz", packed), "text/a.txt.gz", read_corpus, (m.any_bytes, m.gzipped(m.any_bytes))
    )
    yield Reader("work of data prepare", make_work, f"out/{_note()}", read_work, JSON)


def _note() -> str:
    from bertkit.data.pretraining.prepare.work import NOTE, UNFINISHED

    return f"{UNFINISHED}/{NOTE}"


# ---- downloads and benchmarks ----


def make_zip(folder: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/train.tsv", "sentence\tlabel\n" * 20)
        archive.writestr("top/sub/dev.tsv", "sentence\tlabel\n")
    _write("a.zip", made.getvalue())(folder)


def read_zip(folder: Path) -> Any:
    """Unpacked; whatever lands outside the folder is a fault."""
    from bertkit.files.downloads import unpack_zip

    target = folder / "in" / "target"
    target.mkdir(parents=True)
    before = set(folder.rglob("*"))
    try:
        unpack_zip(folder / "a.zip", target, "top")
    finally:
        outside = [path for path in {*folder.rglob("*")} - before if not path.is_relative_to(target)]
        if outside:
            raise AssertionError(f"outside of the folder: {outside[0].name}")
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


SUITE = """
[small]
title = "a small one"
kind = "train"

[[small.grids]]
from = "a table"
models = ["tiny", "base"]
lengths = "mrpc"
cuts = [128, 384]
batches = [8, 16]
precisions = ["fp32", "bf16"]
"""


def read_suite(folder: Path) -> Any:
    from bertkit.bench.suite import Wanted, cells, read_suites

    return cells(read_suites(str(folder / "suite.toml")), Wanted(), ("fp32", "bf16"))


def make_suite_folder(folder: Path) -> None:
    from bertkit.bench.cells import How, open_suite
    from bertkit.records.files import write
    from made_records import record

    open_suite(folder / "cells", "small", How("null", steps=4))
    case = {"model": "tiny", "lengths": "mrpc", "batch_size": 8, "loss": None}
    made = record(case=case, kind="bench")
    write(folder / "cells" / f"{_cell().name}.json", made)


def _cell() -> Any:
    from bertkit.bench.suite import Cell

    return Cell("train", "tiny", "fp32", "mrpc", 128, 8)


def read_suite_folder(folder: Path) -> Any:
    from bertkit.bench.cells import How, open_suite, read_outcome

    open_suite(folder / "cells", "small", How("null", steps=4))
    found = read_outcome(folder / "cells", _cell())
    return found and (found.status, found.reason, found.record)


def other_readers() -> Iterator[Reader]:
    yield Reader("zip", make_zip, "a.zip", read_zip, (m.any_bytes, m.zip_names, m.zipped(m.any_bytes)))
    yield Reader("suite", _write("suite.toml", SUITE), "suite.toml", read_suite, TOML)
    yield Reader("suite's index", make_suite_folder, "cells/suite.json", read_suite_folder, JSON)
    yield Reader("suite's cell", make_suite_folder, f"cells/{_cell().name}.json", read_suite_folder, JSON)


def _all() -> dict[str, Reader]:
    groups = (model_readers, kept_readers, setting_readers, task_readers, pretraining_readers, other_readers)
    found = [reader for group in groups for reader in group()]
    return {reader.name: replace(reader) for reader in found}


READERS: Mapping[str, Reader] = _all()
