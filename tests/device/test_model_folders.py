"""Kinds of folders that people bring: transformers and bertkit cut text into the same ids and compute the same logits.

Each kind is a way to leave a model; what it writes is what programs write: transformers' `save_pretrained`, or files
as they lie in published folders. Every kind is also trained for an update and converted, and read again by both.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.data.encoding import encode
from bertkit.engine.interface import BatchLimits, Limits
from bertkit.model.config import Head
from bertkit.model.formats.convert import convert
from bertkit.model.loading import ModelSource, find_source, starting_weights
from bertkit.model.saving import write_model
from bertkit.model.vocabulary import SPECIAL

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

HEAD = Head("classification", 2)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
UNCASED = [
    *SPECIAL, *"the tea was good not cafe naive istanbul covid new york resume uber".split(),
    *"münchen é ü ##é ##ü café ß ##ß 中 国 ##国 ##中 中国 茶 😀 ! , . ' - # @ [ ] < > ( ) e1".split(),
    *LETTERS, *(f"##{letter}" for letter in LETTERS), "##ing", "##19",
]  # fmt: skip
CASED = [
    *UNCASED,
    *"The Tea Was New York Istanbul É Ü".split(),
    *LETTERS[:26].upper(),
    *(f"##{c}" for c in LETTERS[:26].upper()),
]
TEXTS = [
    "The tea was GOOD, the café wasn't.",
    "Café CAFE\u0301 naïve München ÜBER über ß Straße İstanbul ISTANBUL",
    "中国茶 tea中国tea 茶! 日本語 かな 한국어",
    "covid covid19 COVID-19 newcovid [e1] tea[e1]tea [E1]e1 [E2]. New York new  york  newyork <S> tea",
    "tea\x00tea \x07 t\ufffdea te\u200da tea\u00a0tea\u3000tea\ttea\r\ntea \u2028 x",
    "😀 tea😀tea 🏳️‍🌈 \U0001f468\u200d\U0001f469\u200d\U0001f467 \ud7ff \ue000",
    "a" * 100 + " " + "a" * 101 + " " + "teas " * 90,
    "[MASK] tea [SEP] the[CLS]tea [PAD] [UNK] <mask> <unk> </s> <s>",
    "", " ", "\u3000", "#19 ##ing ing @tea (tea) [tea]",
]  # fmt: skip
PAIRS = [(text, other or "x") for text, other in zip(TEXTS, TEXTS[::-1], strict=True)]  # "" is no second text there


REFERENCE = "reference"  # the same model as transformers reads it, where it does not read the folder's weights


def write_vocab(folder: Path, pieces: list[str]) -> None:
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")


def say(folder: Path, name: str = "tokenizer_config.json", **content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def write_bert(folder: Path, rows: int, **config: Any) -> Any:
    """A random BERT as transformers saves it; its words' embeddings are large, so another id is another logit."""
    torch.manual_seed(rows)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    made = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=rows, **sizes, **config))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    made.save_pretrained(folder)
    return made


def rename_weights(folder: Path, rename: Callable[[str], str]) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    save_file({rename(name): array for name, array in arrays.items()}, folder / "model.safetensors", {"format": "pt"})


# The kinds


def vocab_txt_only(folder: Path) -> None:
    write_vocab(folder, UNCASED)
    write_bert(folder, len(UNCASED))


def tokenizer_json_only(folder: Path) -> None:
    write_vocab(folder, UNCASED)
    write_bert(folder, len(UNCASED))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "vocab.txt").unlink()


def added_tokens(folder: Path) -> None:
    """As transformers 4 left them: three files."""
    write_vocab(folder, UNCASED)
    size = len(UNCASED)
    say(folder, do_lower_case=True)
    say(folder, "added_tokens.json", **{"[e1]": size, "covid19": size + 1, "[E2]": size + 2})
    say(folder, "special_tokens_map.json", additional_special_tokens=["[E2]"], unk_token="[UNK]")
    write_bert(folder, size + 3)


def added_tokens_saved(folder: Path) -> None:
    """With every flag, as transformers 5 saves them."""
    write_vocab(folder, UNCASED)
    made = transformers.BertTokenizer(str(folder / "vocab.txt"))
    token = transformers.AddedToken
    made.add_tokens([token("[e1]", normalized=True), token("covid", single_word=True), token("New York", lstrip=True)])
    made.add_tokens([token("19", rstrip=True, normalized=False), token("teas", normalized=False)])
    made.add_special_tokens({"additional_special_tokens": ["<S>", "[E2]"]})
    made.save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    write_bert(folder, len(made))


def accents_kept(folder: Path) -> None:
    write_vocab(folder, UNCASED)
    say(folder, do_lower_case=True, strip_accents=False)
    write_bert(folder, len(UNCASED))


def accents_stripped_and_cased(folder: Path) -> None:
    write_vocab(folder, CASED)
    say(folder, do_lower_case=False, strip_accents=True)
    write_bert(folder, len(CASED))


def chinese_not_split(folder: Path) -> None:
    write_vocab(folder, UNCASED)
    say(folder, do_lower_case=True, tokenize_chinese_chars=False, tokenizer_class="BertTokenizer")
    write_bert(folder, len(UNCASED))


def cased(folder: Path) -> None:
    write_vocab(folder, CASED)
    say(folder, do_lower_case=False)
    write_bert(folder, len(CASED))


def cased_against_tokenizer_json(folder: Path) -> None:
    """tokenizer.json says lower-case, tokenizer_config.json the other: the latter counts."""
    write_vocab(folder, CASED)
    transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    write_vocab(folder, CASED)
    say(folder, do_lower_case=False, tokenizer_class="BertTokenizer")
    write_bert(folder, len(CASED))


def tokenizer_json_as_it_is(folder: Path) -> None:
    """Of the class that takes tokenizer.json whole, where tokenizer_config.json does not count."""
    write_vocab(folder, CASED)
    transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False, strip_accents=True).save_pretrained(
        folder
    )
    (folder / "vocab.txt").unlink(missing_ok=True)
    segments = ["input_ids", "token_type_ids", "attention_mask"]  # transformers 5 leaves them out of this class
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    say(folder, do_lower_case=True, tokenizer_class="PreTrainedTokenizerFast", model_input_names=segments, **names)
    write_bert(folder, len(CASED))


def special_tokens_renamed(folder: Path) -> None:
    names = dict(zip(SPECIAL, ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True))
    write_vocab(folder, [*(names.get(piece, piece) for piece in UNCASED[5:]), *names.values()])
    roles = {f"{role[1:-1].lower()}_token": name for role, name in names.items()}
    say(folder, do_lower_case=True, **roles)
    write_bert(folder, len(UNCASED), pad_token_id=len(UNCASED) - 5)


def doubled_pieces(folder: Path) -> None:
    write_vocab(folder, [*UNCASED, "tea", "", "zebra", "", "good"])
    say(folder, do_lower_case=True)
    write_bert(folder, len(UNCASED) + 5)


def surplus_rows(folder: Path) -> None:
    write_vocab(folder, UNCASED)
    say(folder, do_lower_case=True)
    write_bert(folder, len(UNCASED) + 1000)


def gamma_and_beta(folder: Path) -> None:
    vocab_txt_only(folder)
    rename_weights(
        folder, lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    )


def sharded_safetensors(folder: Path) -> None:
    write_vocab(folder, UNCASED)
    write_bert(folder, len(UNCASED)).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()


def labels_reversed(folder: Path) -> None:
    """Logits are as the model has them; whose they are is asked of `bertkit predict`."""
    write_vocab(folder, UNCASED)
    write_bert(folder, len(UNCASED), id2label={0: "1", 1: "0"}, label2id={"1": 0, "0": 1})


def compiled(folder: Path) -> None:
    """As torch.compile names its weights; transformers itself reads them without the prefix alone."""
    vocab_txt_only(folder)
    shutil.copytree(folder, folder / REFERENCE)
    rename_weights(folder, lambda name: f"_orig_mod.{name}")


def sharded_bin(folder: Path) -> None:
    """As transformers 4 saved a large model: two pickles and their index."""
    from safetensors.torch import load_file

    vocab_txt_only(folder)
    arrays = load_file(folder / "model.safetensors")
    files = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    where = {name: files[number % 2] for number, name in enumerate(arrays)}
    for file in files:
        torch.save({name: array for name, array in arrays.items() if where[name] == file}, folder / file)
    say(folder, "pytorch_model.bin.index.json", metadata={"total_size": 1}, weight_map=where)
    (folder / "model.safetensors").unlink()


KINDS = [
    vocab_txt_only, tokenizer_json_only, added_tokens, added_tokens_saved, accents_kept, accents_stripped_and_cased,
    chinese_not_split, cased, cased_against_tokenizer_json, tokenizer_json_as_it_is, special_tokens_renamed,
    doubled_pieces, surplus_rows, gamma_and_beta, sharded_safetensors, labels_reversed, compiled, sharded_bin,
]  # fmt: skip


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    request.param(place)
    return place


def theirs(folder: Path, texts: list[Any]) -> tuple[list[list[int]], np.ndarray]:
    """transformers' ids and logits, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    weights = folder / REFERENCE if (folder / REFERENCE).exists() else folder
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(weights, output_loading_info=True)
    assert not report["missing_keys"]
    ids, logits = [], []
    for text in texts:
        one = text if isinstance(text, tuple) else (text,)
        encoded = tokenizer(*one, truncation="longest_first", max_length=64, return_tensors="pt")
        ids.append(encoded["input_ids"][0].tolist())
        with torch.no_grad():
            logits.append(model.eval()(**encoded).logits[0].numpy())
    return ids, np.array(logits)


def ours(source: ModelSource, texts: list[Any]) -> tuple[list[list[int]], np.ndarray]:
    from bertkit.distributed.world import World
    from bertkit.engine.interface import Job
    from bertkit_cpu import CpuBackend

    pairs = isinstance(texts[0], tuple)
    first, second = ([text[0] for text in texts], [text[1] for text in texts]) if pairs else (texts, None)
    features = encode(source.vocabulary, first, second, {}, 64)
    fit = starting_weights(source, HEAD, 1)
    assert not fit.missing
    limits = Limits((), (BatchLimits(len(texts), 64),))
    job = Job(source.config.without_dropout(), HEAD, fit.weights, precision="fp32", limits=limits)
    logits = CpuBackend().engine(job, World()).predict(features.batch(np.arange(len(texts))))["logits"]
    starts = features.cu_seqlens
    return [features.input_ids[a:b].tolist() for a, b in itertools.pairwise(starts)], logits


def same(folder: Path, source: ModelSource) -> None:
    for texts in (TEXTS, PAIRS):
        their_ids, their_logits = theirs(folder, texts)
        our_ids, our_logits = ours(source, texts)
        for text, mine, other in zip(texts, our_ids, their_ids, strict=True):
            assert mine == other, text
        assert np.abs(our_logits - their_logits).max() < 1e-5


def test_transformers_and_bertkit_read_the_folder_alike(folder: Path) -> None:
    same(folder, find_source(str(folder)))


def test_what_a_run_writes_of_it_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    source = find_source(str(folder))
    weights = starting_weights(source, HEAD, 1).weights
    run = tmp_path / "run"
    run.mkdir()
    write_model(run, source.config, HEAD, ("0", "1"), source.vocabulary, weights)
    assert ours(find_source(str(run)), TEXTS)[0] == theirs(folder, TEXTS)[0]
    same(run, find_source(str(run)))
    read_again = find_source(str(run)).vocabulary
    assert (read_again.digest, read_again.variant) == (source.vocabulary.digest, source.vocabulary.variant)


def test_what_is_converted_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "hf")
    assert ours(find_source(str(tmp_path / "hf")), TEXTS)[0] == theirs(folder, TEXTS)[0]
    same(tmp_path / "hf", find_source(str(tmp_path / "hf")))
    report = convert(folder, tmp_path / "google" / "bert_model.ckpt")
    vocabulary = find_source(str(folder)).vocabulary
    assert any("no place for the tokenizer's rules" in note for note in report.notes) != vocabulary.plain
    lines = (tmp_path / "google" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert tuple(lines[:-1]) == vocabulary.pieces


def test_the_texts_tell_the_kinds_apart(tmp_path: Path) -> None:
    """Where a setting were ignored, ids would differ: each setting changes those of some text."""
    place = tmp_path / "model"
    place.mkdir()
    added_tokens_saved(place)
    vocabulary = find_source(str(place)).vocabulary

    def ids(**changed: Any) -> list[int]:
        return encode(dataclasses.replace(vocabulary, **changed), TEXTS, None, {}, 64).input_ids.tolist()

    usual = ids()
    assert ids(strip_accents=False) != usual
    assert ids(split_chinese=False) != usual
    assert ids(lower_case=False) != usual
    assert ids(clean_text=False) != usual
    for content, name in (("covid", "single_word"), ("[e1]", "normalized"), ("19", "normalized")):
        added = [
            dataclasses.replace(token, **{name: not getattr(token, name)}) if token.content == content else token
            for token in vocabulary.added
        ]
        assert (ids(added=tuple(added)) != usual) == (content != "19"), content  # "19" is alike in both cases
    assert ids(added=vocabulary.added[:-1]) != usual


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    added_tokens(place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    shutil.copytree(place, tmp_path / "copy")
    convert(place, tmp_path / "hf")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
