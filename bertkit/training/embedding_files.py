"""Embeddings as files: .npy, .parquet and .jsonl of texts, .npz and .jsonl of tokens; and as JSON lines.

Legend: N texts, T tokens of all texts, K layers side by side, D = K H the width of an embedding.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import in_utf8, to_json, write_atomically
from bertkit.files.inputs import exists, is_folder
from bertkit.training.encoder import EmbeddedTexts, TokenEmbeddings

Shape = tuple[int, ...]


def check_output(path: Path, tokens: bool, source: Path | None) -> None:
    """Raises UserError, before anything is computed, where embeddings cannot be written to `path`.

    `tokens`: of tokens, not of texts; `source`: the input, which is not to be overwritten.
    """
    known: Sequence[str] = list(TOKEN_WRITERS if tokens else TEXT_WRITERS)
    if path.suffix.lower() not in known:
        what = "embeddings of tokens" if tokens else "embeddings of texts"
        raise UserError(f"{path}: no format for {what} is known by this suffix", f"choose {', '.join(known)}")
    if is_folder(path):
        raise UserError(f"{path}: is a folder", "name a file")
    if source is not None and exists(source) and exists(path) and os.path.samefile(path, source):
        raise UserError(f"{path}: is the input too, and would be overwritten", "name another file with -o")
    if path.suffix.lower() == ".parquet":
        _pyarrow(path)


def write_texts(path: Path, parts: Iterable[EmbeddedTexts], width: int) -> int:
    """Write the embeddings to `path`, whole or not at all. Returns N. The suffix is one that `check_output` knows."""
    written = [0]

    def write(temporary: Path) -> None:
        written[0] = TEXT_WRITERS[path.suffix.lower()](temporary, parts, width)

    write_atomically(path, write)
    return written[0]


def write_tokens(path: Path, texts: Iterable[TokenEmbeddings], layers: Sequence[int], width: int) -> int:
    """As `write_texts`, of tokens. Returns N. `layers`: (K,) by the numbers that stand in JSON lines."""
    written = [0]

    def write(temporary: Path) -> None:
        written[0] = TOKEN_WRITERS[path.suffix.lower()](temporary, texts, layers, width)

    write_atomically(path, write)
    return written[0]


# ---- JSON lines ----


def text_line(text: str, embedding: np.ndarray) -> str:
    """A text and its embedding (D,) as a line of JSON."""
    return f'{{"text": {to_json(text)}, "embedding": {_numbers(embedding)}}}'


def token_line(number: int, text: TokenEmbeddings, layers: Sequence[int]) -> str:
    """A text's tokens with the values of each layer, as Google's extract_features.py writes them."""
    features = ", ".join(
        f'{{"token": {to_json(token)}, "layers": [{_of_layers(row, layers)}]}}'
        for token, row in zip(text.tokens, text.embeddings, strict=True)
    )
    return f'{{"linex_index": {number}, "features": [{features}]}}'


def _of_layers(row: np.ndarray, layers: Sequence[int]) -> str:
    parts = np.split(row, len(layers))
    return ", ".join(
        f'{{"index": {layer}, "values": {_numbers(part)}}}' for layer, part in zip(layers, parts, strict=True)
    )


def _numbers(values: np.ndarray) -> str:
    """In the fewest digits that give the same float32."""
    return f"[{', '.join(values.astype('U').tolist())}]"


def _write_text_lines(path: Path, parts: Iterable[EmbeddedTexts], width: int) -> int:
    count = 0
    with path.open("wb") as file:
        for part in parts:
            for text, row in zip(part.texts, part.embeddings, strict=True):
                file.write(in_utf8(text_line(text, row) + "\n"))
            count += len(part.texts)
    return count


def _write_token_lines(path: Path, texts: Iterable[TokenEmbeddings], layers: Sequence[int], width: int) -> int:
    count = 0
    with path.open("wb") as file:
        for number, text in enumerate(texts):
            file.write(in_utf8(token_line(number, text, layers) + "\n"))
            count = number + 1
    return count


# ---- NumPy's files ----


def _write_npy(path: Path, parts: Iterable[EmbeddedTexts], width: int) -> int:
    """Piece by piece behind a header that is written once more when N is known."""
    count = 0
    with path.open("wb") as file:
        _npy_header(file, (0, width))
        begin = file.tell()
        for part in parts:
            file.write(_bytes(part.embeddings))
            count += len(part.embeddings)
        file.seek(0)
        _npy_header(file, (count, width))
        if file.tell() != begin:  # NumPy leaves room for the digits of N
            raise RuntimeError(f"the header of {path} has another length")
    return count


def _npy_header(file: IO[bytes], shape: Shape) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data


def _write_npz(path: Path, texts: Iterable[TokenEmbeddings], layers: Sequence[int], width: int) -> int:
    """embeddings (T, D), input_ids (T,), cu_seqlens (N + 1,) and layers (K,); text i has the tokens
    cu_seqlens[i] to cu_seqlens[i + 1]."""
    ids: list[np.ndarray] = [np.empty(0, np.int32)]
    with tempfile.TemporaryFile(dir=path.parent) as held:  # a member's header needs T, which the last text tells
        for text in texts:
            held.write(_bytes(text.embeddings))
            ids.append(text.ids)
        tokens = np.concatenate(ids)
        starts = np.cumsum([len(each) for each in ids], dtype=np.int64)
        held.seek(0)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                _npy_header(member, (len(tokens), width))
                shutil.copyfileobj(held, member, 1 << 20)
            for name, values in (("input_ids", tokens), ("cu_seqlens", starts), ("layers", np.array(layers))):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values)
    return len(ids) - 1


# ---- Parquet ----


def _write_parquet(path: Path, parts: Iterable[EmbeddedTexts], width: int) -> int:
    """Columns text and embedding, a list of float32; a row group for each part."""
    pa, pq = _pyarrow(path)
    schema = pa.schema([("text", pa.string()), ("embedding", pa.list_(pa.float32()))])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            texts = pa.array([in_utf8(text).decode("utf-8", "replace") for text in part.texts], pa.string())
            values = pa.array(part.embeddings.reshape(-1), pa.float32())
            ends = pa.array(np.arange(len(texts) + 1, dtype=np.int32) * width)
            lists = pa.ListArray.from_arrays(ends, values)
            writer.write_table(pa.table([texts, lists], schema=schema))
            count += len(texts)
    return count


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow", "pip install pyarrow") from None
    return pa, pq


TEXT_WRITERS: Mapping[str, Callable[[Path, Iterable[EmbeddedTexts], int], int]] = {
    ".npy": _write_npy,
    ".parquet": _write_parquet,
    ".jsonl": _write_text_lines,
}
TOKEN_WRITERS: Mapping[str, Callable[[Path, Iterable[TokenEmbeddings], Sequence[int], int], int]] = {
    ".npz": _write_npz,
    ".jsonl": _write_token_lines,
}
