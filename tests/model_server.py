"""A server in this process that has what the model hub and the publishers have, as tiny stand-ins; no network is used.

The hub's layout is that of its client; a publisher's file lies under its host's name, as BERTKIT_MIRROR asks for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bertkit.data.tasks.sample import vocabulary
from bertkit.files.disk import write_arrays, write_json
from bertkit.files.downloads import load_sources
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.formats.tf1 import write_tf1
from bertkit.model.parameters import initial
from in_thread import in_thread
from squad_files import reviews, write_squad

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOGLE = "storage.googleapis.com/bert_models"
CONFIG = ModelConfig(16, 2, 2, 32, vocab_size=len(vocabulary()), max_position_embeddings=512)
CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What was asked and how much of it was sent."""

    method: str
    path: str
    start: int  # of the range that was asked for
    sent: int


class ModelServer(ThreadingHTTPServer):
    """`files`: path -> content. `pause`: seconds between pieces of an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.pause = 0.0
        self.always = 0  # a status to answer everything with
        self.answers: list[Answer] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sent(self, ending: str) -> list[Answer]:
        """The answers to GET of what ends so, that sent something."""
        return [one for one in self.answers if one.method == "GET" and one.path.endswith(ending) and one.sent]


def serving() -> AbstractContextManager[ModelServer]:
    return in_thread(ModelServer())


class Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, head: bool) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if self.server.always:
            self.reply(self.server.always, b"", {}, head, path, start)
            return
        content, headers = self.find(path)
        if content is None:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, head, path, start)
        elif start >= len(content) > 0:
            self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"}, head, path, start)
        else:
            where = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self.reply(206 if start else 200, content[start:], headers | where, head, path, start)

    def find(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        if path.startswith(("api/models/", "api/datasets/")):  # a data set is kept as datasets/OWNER/NAME
            name, tree, _ = path.removeprefix("api/").removeprefix("models/").partition("/tree/")
            name = name.partition("/revision/")[0]
            files = self.server.repositories.get(name)
            if files is None:
                return None, {}
            siblings = [{"rfilename": file, "size": len(content)} | _stored(content) for file, content in files.items()]
            if tree:
                listed = [{"type": "file", "path": each, "size": len(files[each]), "oid": COMMIT} for each in files]
                return json.dumps(listed).encode(), {"Content-Type": "application/json"}
            name = name.removeprefix("datasets/")
            told = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            return json.dumps(told).encode(), {"Content-Type": "application/json"}
        repository, resolve, rest = path.partition("/resolve/")
        if resolve:
            content = self.server.repositories.get(repository, {}).get(rest.partition("/")[2])
            tag = hashlib.sha256(content or b"").hexdigest()
            return content, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        return self.server.files.get(path), {"Accept-Ranges": "bytes"}

    def reply(self, status: int, content: bytes, headers: Mapping[str, str], head: bool, path: str, start: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = 0
        with contextlib.suppress(OSError):  # who asked was killed
            while not head and sent < len(content):
                piece = content[sent : sent + CHUNK]
                self.wfile.write(piece)
                self.wfile.flush()
                sent += len(piece)
                time.sleep(self.server.pause)
        self.server.answers.append(Answer(self.command, path, start, sent))

    def log_message(self, format: str, *args: object) -> None:
        pass


def _stored(content: bytes) -> dict[str, object]:
    """What the hub tells of a large file besides."""
    stored = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return {"lfs": stored} if len(content) > 10_000 else {}


# ---- what is served ----


def hub_files(seed: int = 3, filling: int = 0) -> dict[str, bytes]:
    """A model as the hub has it, in both forms of weights; `filling`: bytes by which the weights are longer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head = Head("pretraining", 2)
        write_json(folder / "config.json", to_mapping(CONFIG, head, ()))
        write_json(folder / "tokenizer_config.json", {"do_lower_case": True})
        (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
        write_arrays(folder / "model.safetensors", initial(CONFIG, head, seed), {"filling": "x" * filling})
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"pytorch_model.bin": b"the same weights again, which nobody needs", "README.md": b"# A model"}


def google_files(seed: int = 3) -> dict[str, bytes]:
    """A model as Google has it, unpacked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "bert_config.json", dataclasses.asdict(CONFIG))
        (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
        write_tf1(folder / "bert_model.ckpt", initial(CONFIG, Head("pretraining", 2), seed), {})
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"bert_model.ckpt.meta": b"a graph, which nobody reads"}


def zipped(files: Mapping[str, bytes], folder: str = "") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}" if folder else name, content)
    return made.getvalue()


def mrpc_files() -> dict[str, bytes]:
    """Microsoft's two files and GLUE's list of what is its dev set, with texts of the sample task's words."""
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"

    def row(number: int) -> str:
        one = f"the plot is {'good' if number % 2 else 'dull'}"
        return f"{number % 2}\t{number}\t{number + 1000}\t{one} .\tthe plot is good ."

    train = "\n".join([head, *map(row, range(48))]) + "\n"
    test = "\n".join([head, *map(row, range(100, 108))]) + "\n"
    ids = "\n".join(f"{number}\t{number + 1000}" for number in range(0, 48, 3)) + "\n"
    return {
        "dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_train.txt": train.encode(),
        "dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_test.txt": test.encode(),
        "dl.fbaipublicfiles.com/glue/data/mrpc_dev_ids.tsv": ids.encode(),
    }


def glue_files() -> dict[str, bytes]:
    """Archives of GLUE: SST-2 with rows to train on, the others with a line in each of their files."""
    sentences = "sentence\tlabel\n" + "the plot is good .\t1\nthe plot is dull .\t0\n" * 12
    mnli = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")
    tables = {
        "CoLA": {f"{split}.tsv": b"x\t1\t\tthe plot is good .\n" for split in ("train", "dev", "test")},
        "SST-2": {f"{split}.tsv": sentences.encode() for split in ("train", "dev", "test")},
        "MNLI": {f"{split}.tsv": b"index\tsentence1\tsentence2\tgold_label\n" for split in mnli},
    }
    return {f"dl.fbaipublicfiles.com/glue/data/{name}.zip": zipped(files, name) for name, files in tables.items()}


def squad_files(folder: Path, version: str = "v1.1") -> dict[str, bytes]:
    made = {}
    for split, count in (("train", 12), ("dev", 6)):
        path = write_squad(folder / f"{split}-{version}.json", reviews(count, version == "v2.0"), version == "v2.0")
        made[f"rajpurkar.github.io/SQuAD-explorer/dataset/{path.name}"] = path.read_bytes()
    return made


def own_table(files: Mapping[str, bytes]) -> str:
    """A table of sources for stand-ins of published files: their own checksums under the published names."""
    lines = []
    for name, source in load_sources({}).items():
        urls = [download.url.removeprefix("https://") for download in source.downloads]
        if not urls or not set(urls) <= set(files):
            continue
        digests = {url: hashlib.sha256(files[url]).hexdigest() for url in urls}
        sums = {d.name: digests[url] for d, url in zip(source.downloads, urls, strict=True) if not d.unpack}
        listed = [f'{{ name = "{file.name}", sha256 = "{sums.get(file.name, "")}" }}' for file in source.files]
        aliases = ", ".join(f'"{alias}"' for alias in source.aliases)
        lines += [
            f"[{name}]", f'title = "{source.title}"', f'terms = "{source.terms}"', f'homepage = "{source.homepage}"',
            f'folder = "{source.folder}"', f"files = [{', '.join(listed)}]", f'architecture = "{source.architecture}"',
            f"aliases = [{aliases}]", f'hub = "{source.hub}"', f'casing = "{source.casing}"',
        ]  # fmt: skip
        for download, url in zip(source.downloads, urls, strict=True):
            lines += [
                f"[[{name}.downloads]]", f'url = "{download.url}"', f'name = "{download.name}"',
                f'sha256 = "{digests[url]}"', f"size = {len(files[url])}", f'unpack = "{download.unpack}"',
                f'strip = "{download.strip}"',
            ]  # fmt: skip
    return "\n".join(lines) + "\n"
