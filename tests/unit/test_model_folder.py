"""What a model's folder says is honoured, or refused by name; where its files contradict, one counts and is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bertkit.data.encoding import encode
from bertkit.errors import UserError
from bertkit.model.config import ModelConfig, from_mapping, read_config
from bertkit.model.folder import read_configuration
from bertkit.model.loading import find_source
from bertkit.model.saving import write_tokenizer
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import read_vocabulary, write_rules
from bertkit.model.vocabulary import SPECIAL, Vocabulary

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PIECES = [*SPECIAL, *"the tea good cafe café e ##s a b x y [ ] e1".split()]
CONFIG = ModelConfig(8, 1, 2, 16)
TWO = "[E1]", "[E2]"


def folder_with(place: Path, files: Mapping[str, Any], pieces: list[str] | None = None) -> Path:
    """A folder with `vocab.txt` and JSON files."""
    place.mkdir(exist_ok=True)
    (place / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces or PIECES), encoding="utf-8")
    for name, content in files.items():
        (place / name).write_text(json.dumps(content), encoding="utf-8")
    return place


def read(place: Path, files: Mapping[str, Any], pieces: list[str] | None = None) -> Vocabulary:
    return read_vocabulary(folder_with(place, files, pieces) / "vocab.txt")


def whole(**changed: Any) -> dict[str, Any]:
    """A `tokenizer.json` of PIECES; `changed`: parts of it by name, as in normalizer__lowercase."""
    made: dict[str, Any] = json.loads(tokenizer(Vocabulary(Path("vocab.txt"), tuple(PIECES), True)).to_str())
    for name, value in changed.items():
        part, _, key = name.partition("__")
        if key:
            made[part][key] = value
        else:
            made[part] = value
    return made


def pieces_of(vocabulary: Vocabulary, text: str) -> str:
    return " ".join(vocabulary.pieces[i] for i in encode(vocabulary, [text], None, {}, 64).input_ids[1:-1])


# config.json


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"is_decoder": True}, "is_decoder is True, not False"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is True"),
        ({"is_decoder": 1}, "is_decoder is 1"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is an object"),
        ({"position_embedding_type": "relative_key_query"}, "position_embedding_type is 'relative_key_query'"),
        ({"position_embedding_type": 5}, "position_embedding_type is 5"),
        ({"model_type": None}, "model_type is null, not 'bert'"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"chunk_size_feed_forward": -1}, "chunk_size_feed_forward is -1"),
        ({"embedding_size": 4}, "embedding_size 4 is not hidden_size"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map says that a program"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class is 'BertJapaneseTokenizer'"),
        ({"hidden_act": "swish"}, "hidden_act 'swish' is not known"),
        ({"hidden_act": ["gelu"]}, "hidden_act ['gelu'] is not known"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1, not at least 0 and below 1"),
        ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob is -0.1"),
        ({"attention_probs_dropout_prob": 2}, "attention_probs_dropout_prob is 2"),
        ({"classifier_dropout": 1}, "classifier_dropout is 1"),
        ({"classifier_dropout": float("nan")}, "classifier_dropout is nan"),
        ({"initializer_range": float("inf")}, "initializer_range is inf"),
        ({"initializer_range": -0.02}, "initializer_range is -0.02"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0, not a whole number"),
        ({"hidden_size": True}, "hidden_size is True, not a whole number"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
        ({"type_vocab_size": 0}, "type_vocab_size is 0"),
        ({"hidden_size": 60000, "intermediate_size": 10**6, "num_hidden_layers": 1000}, "billion parameters"),
        ({"softmax": "fast"}, "softmax 'fast' is not known"),
    ],
    ids=str,
)
def test_a_key_that_asks_for_another_model_is_refused_by_name(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        from_mapping(SIZES | {"model_type": "bert"} | changed, "m/config.json")
    assert caught.value.cause.startswith("m/config.json: ")
    assert said in caught.value.cause


def test_keys_that_change_nothing_are_taken(tmp_path: Path) -> None:
    usual = {
        "is_decoder": False, "add_cross_attention": False, "pruned_heads": {}, "position_embedding_type": "absolute",
        "chunk_size_feed_forward": 64, "tie_word_embeddings": False, "classifier_dropout": None, "use_cache": True,
        "tokenizer_class": "BertTokenizerFast", "directionality": "bidi", "pooler_type": "first_token_transform",
        "id2label": {"0": "a"}, "torch_dtype": "float16", "transformers_version": "4.6.0", "hidden_dropout_prob": 0,
    }  # fmt: skip
    folder = folder_with(tmp_path / "m", {"config.json": SIZES | usual})
    found = read_configuration(folder)
    assert found.warnings == ()
    assert found.model == ModelConfig(8, 1, 2, 16, hidden_dropout_prob=0)


def test_keys_that_are_not_known_are_told(tmp_path: Path) -> None:
    keys = SIZES | {"rotary_dim": 4, "problem_type": "multi_label_classification"}
    folder = folder_with(tmp_path / "m", {"config.json": keys, "bert_config.json": SIZES | {"hidden_size": 16}})
    said = read_configuration(folder).warnings
    assert "not known, so not read: rotary_dim" in said[0]
    assert said[1].endswith("config.json and bert_config.json differ in hidden_size; the first counts")


def test_another_pad_is_told(tmp_path: Path) -> None:
    pieces = [*PIECES[1:], "[PAD]"]
    files = {"config.json": SIZES | {"vocab_size": len(pieces), "pad_token_id": 0}}
    (said,) = find_source(str(folder_with(tmp_path / "m", files, pieces))).warnings
    assert "pad_token_id 0, but" in said
    assert f"[PAD] at {len(pieces) - 1}" in said


@pytest.mark.parametrize("place", ["folder", "pipe", "closed"])
def test_a_configuration_that_cannot_be_read_is_one_line(place: str, tmp_path: Path) -> None:
    import os

    path = tmp_path / "config.json"
    if place == "folder":
        path.mkdir()
    elif place == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("config.json")  # to itself
    with pytest.raises(UserError, match=r"config\.json: "):
        read_config(path)


# the tokenizer's files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, "tokenizer_class is 'RobertaTokenizer'"),
        ({"tokenizer_class": 5}, "tokenizer_class is 5"),
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes', not true or false"),
        ({"strip_accents": 0}, "strip_accents is a number, not true or false"),
        ({"tokenize_chinese_chars": []}, "tokenize_chinese_chars is a list"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is False"),
        ({"split_special_tokens": True}, "split_special_tokens is True"),
        ({"truncation_side": "left"}, "truncation_side is 'left'"),
        ({"never_split": ["tea"]}, "never_split names 'tea'"),
        ({"never_split": "tea"}, "never_split is a text, not a list"),
        ({"model_max_length": 0}, "model_max_length is 0"),
        ({"model_max_length": "512"}, "model_max_length is '512'"),
        ({"auto_map": {"AutoTokenizer": ["tok.Tok", None]}}, "auto_map says that a program"),
        ({"unk_token": 7}, "unk_token is a number, not a token's text"),
        ({"unk_token": {"text": "x"}}, "unk_token is null"),
        ({"unk_token": "<unk>"}, "lacks <unk>"),
        ({"added_tokens_decoder": {"x": "[E1]"}}, "the id of 'added_tokens_decoder' is 'x'"),
        ({"added_tokens_decoder": {"19": {"content": "[E1]", "lstrip": 1}}}, "lstrip of '[E1]' is a number"),
        ({"added_tokens_decoder": {"99": {"content": "[E1]"}}}, "'[E1]' is to have the id 99, but the next"),
        ({"added_tokens_decoder": {"7": {"content": "tea"}}}, "'tea' is to have the id 7"),
        ({"added_tokens_decoder": []}, ""),
        ({"additional_special_tokens": "[E1]"}, "additional_special_tokens is a text"),
    ],
    ids=str,
)
def test_a_setting_that_bertkit_has_not_is_refused_by_name(content: dict[str, Any], said: str, tmp_path: Path) -> None:
    if not said:
        assert read(tmp_path / "m", {"tokenizer_config.json": content}).plain
        return
    with pytest.raises(UserError) as caught:
        read(tmp_path / "m", {"tokenizer_config.json": content})
    assert said in caught.value.cause


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": {"type": "BPE", "vocab": {}}}, "its model is BPE, not WordPiece"),
        ({"model": {"type": "Unigram", "vocab": []}}, "its model is Unigram"),
        ({"model": None}, "model is null, not an object"),
        ({"model__continuing_subword_prefix": "@@"}, "continuing_subword_prefix is '@@'"),
        ({"model__max_input_chars_per_word": 200}, "max_input_chars_per_word is 200"),
        ({"model__unk_token": 3}, "unk_token is a number"),
        ({"model__vocab": {}}, "its vocabulary is empty"),
        ({"model__vocab": {"a": 1, "b": 1}}, "'a' and 'b' both have the id 1"),
        ({"model__vocab": {"a": -1}}, "the id of 'a' is -1"),
        ({"model__vocab": {"a": 0, "b": 10_000_000}}, "2 pieces have ids up to 10,000,000"),
        ({"normalizer": None}, "its normalizer is null, not BertNormalizer"),
        ({"normalizer": {"type": "NFC"}}, "its normalizer is NFC"),
        ({"normalizer__lowercase": "no"}, "lowercase is 'no'"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "its pre_tokenizer is ByteLevel"),
        ({"post_processor": {"type": "RobertaProcessing"}}, "its post_processor (RobertaProcessing)"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [], "pair": []}}, "its post_processor"),
        ({"truncation": {"direction": "Left"}}, "truncation is from the left"),
        ({"added_tokens": {"a": 1}}, "added_tokens is an object, not a list"),
        ({"added_tokens": ["a"]}, "a token of added_tokens is a text"),
        ({"added_tokens": [{"id": 1.5, "content": "a"}]}, "the id of 'a' is 1.5"),
    ],
    ids=str,
)
def test_a_tokenizer_json_that_is_not_berts_is_refused_by_name(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path / "m", {"tokenizer.json": whole(**changed)})
    for path in (folder / "vocab.txt", folder / "tokenizer.json"):
        with pytest.raises(UserError) as caught:
            read_vocabulary(path)
        assert said in caught.value.cause
        assert "tokenizer.json" in caught.value.cause


def test_rules_of_tokenizer_config_count_before_those_of_tokenizer_json(tmp_path: Path) -> None:
    own = whole(normalizer__lowercase=False, normalizer__strip_accents=True)
    config = {"do_lower_case": True, "strip_accents": False}
    vocabulary = read(tmp_path / "m", {"tokenizer.json": own, "tokenizer_config.json": config})
    assert (vocabulary.lower_case, vocabulary.strip_accents) == (True, False)
    assert "do_lower_case is otherwise than in" in vocabulary.warnings[0]
    assert "strip_accents is otherwise than in" in vocabulary.warnings[1]
    as_it_is = config | {"tokenizer_class": "PreTrainedTokenizerFast"}
    vocabulary = read(tmp_path / "m", {"tokenizer.json": own, "tokenizer_config.json": as_it_is})
    assert (vocabulary.lower_case, vocabulary.strip_accents) == (False, True)


def test_rules_that_tokenizer_json_alone_says_count_and_that_is_told(tmp_path: Path) -> None:
    vocabulary = read(tmp_path / "m", {"tokenizer.json": whole(normalizer__handle_chinese_chars=False)})
    assert not vocabulary.split_chinese
    (said,) = vocabulary.warnings
    assert "tokenize_chinese_chars False, which counts; transformers reads it in tokenizer_config.json alone" in said


def test_of_two_vocabularies_that_differ_tokenizer_json_counts(tmp_path: Path) -> None:
    other = [*PIECES[:5], *PIECES[6:], PIECES[5]]
    vocabulary = read(tmp_path / "m", {"tokenizer.json": whole()}, other)
    assert vocabulary.pieces == tuple(PIECES)
    assert "differ ('tea' is 5 and 6); the latter counts" in vocabulary.warnings[0]
    longer = read(tmp_path / "m", {"tokenizer.json": whole()}, [*PIECES, "zebra"])
    assert "differ ('zebra' is 19 and absent)" in longer.warnings[0]


def test_a_vocab_txt_that_holds_the_added_tokens_too_is_no_contradiction(tmp_path: Path) -> None:
    added = {"content": "[E1]", "id": len(PIECES), "special": True, "normalized": False}
    files = {"tokenizer.json": whole(added_tokens=[added])}
    vocabulary = read(tmp_path / "m", files, [*PIECES, "[E1]"])
    assert (vocabulary.warnings, vocabulary.word_pieces) == ((), len(PIECES))


def test_special_tokens_of_two_files_that_differ(tmp_path: Path) -> None:
    pieces = [*PIECES, "<unk>", "<x>"]
    files = {"tokenizer_config.json": {"unk_token": "<unk>"}, "special_tokens_map.json": {"unk_token": "<x>"}}
    vocabulary = read(tmp_path / "m", files, pieces)
    assert vocabulary.special[1] == "<x>"
    assert "'<unk>' is to be [UNK]" in vocabulary.warnings[0]
    files["tokenizer_config.json"]["added_tokens_decoder"] = {}  # type: ignore[assignment]
    assert read(tmp_path / "m", files, pieces).special[1] == "<unk>"
    assert pieces_of(vocabulary, "zebra tea") == "<x> tea"


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"])
def test_added_tokens_are_read_from_each_file(name: str, tmp_path: Path) -> None:
    size = len(PIECES)
    content = {
        "added_tokens.json": {"[E2]": size + 1, "[E1]": size},
        "special_tokens_map.json": {"additional_special_tokens": [*TWO]},
        "tokenizer_config.json": {"do_lower_case": True, "extra_special_tokens": {"one": "[E1]", "two": "[E2]"}},
    }[name]
    vocabulary = read(tmp_path / "m", {name: content})
    assert vocabulary.pieces[size:] == TWO
    assert pieces_of(vocabulary, "tea[E1]s [E2]") == "tea [E1] [UNK] [E2]"
    lowered = "[E1]" if name == "added_tokens.json" else "[ e1 ]"  # no special token: looked for in lower-cased text
    assert pieces_of(vocabulary, "[e1]") == lowered
    again = folder_with(tmp_path / "again", {})
    write_tokenizer(again, CONFIG, vocabulary)
    assert read_vocabulary(again / "vocab.txt").digest == vocabulary.digest


def test_flags_of_tokenizer_json_count_before_those_beside_a_name(tmp_path: Path) -> None:
    mask = {"content": "[MASK]", "id": 4, "special": True, "normalized": False, "lstrip": True}
    config = {"mask_token": {"content": "[MASK]", "rstrip": True, "normalized": False}}
    files = {"tokenizer.json": whole(added_tokens=[mask]), "tokenizer_config.json": config}
    vocabulary = read(tmp_path / "m", files)
    (token,) = vocabulary.added
    assert (token.lstrip, token.rstrip) == (True, False)
    assert "tokenizer_config.json: '[MASK]' has other flags than in" in vocabulary.warnings[0]
    config["added_tokens_decoder"] = {"4": {"content": "[MASK]", "single_word": True, "special": True}}
    (token,) = read(tmp_path / "m", files).added
    assert (token.lstrip, token.rstrip, token.single_word) == (False, False, True)


def test_ids_of_an_added_token_that_differ_are_refused(tmp_path: Path) -> None:
    size = len(PIECES)
    tokens = {str(size): {"content": "[E1]"}, str(size + 1): {"content": "[E2]"}}
    files = {
        "tokenizer_config.json": {"added_tokens_decoder": tokens},
        "added_tokens.json": {"[E1]": size + 1, "[E2]": size},
    }
    with pytest.raises(UserError, match=rf"added_tokens\.json: '\[E1\]' has the id {size + 1}, but {size} in"):
        read(tmp_path / "m", files)


def test_every_setting_is_in_the_digest_and_a_plain_vocabulary_keeps_its_own(tmp_path: Path) -> None:
    plain = read(tmp_path / "m", {})
    configs: list[dict[str, Any]] = [
        {"strip_accents": False}, {"strip_accents": True}, {"tokenize_chinese_chars": False}, {"clean_text": False},
        {"extra_special_tokens": ["[E1]"]}, {"added_tokens_decoder": {"7": {"content": "good"}}},
        {"added_tokens_decoder": {"7": {"content": "good", "single_word": True}}},
        {"unk_token": "x"}, {"model_input_names": ["input_ids"]},
    ]  # fmt: skip
    digests = {read(tmp_path / "m", {"tokenizer_config.json": config}).digest for config in configs}
    assert len(digests | {plain.digest}) == len(configs) + 1
    usual = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "model_max_length": 512}
    same = read(tmp_path / "m", {"tokenizer_config.json": usual, "tokenizer.json": whole()})
    assert (same.digest, same.plain, same.longest) == (plain.digest, True, 512)


def test_settings_of_others_are_written_back(tmp_path: Path) -> None:
    given = {
        "do_lower_case": True,
        "chat_template": "x",
        "clean_up_tokenization_spaces": False,
        "name_or_path": "/home",
    }
    vocabulary = read(tmp_path / "m", {"tokenizer_config.json": given | {"model_max_length": 100}})
    write_tokenizer(tmp_path / "m", CONFIG, vocabulary)
    written = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert written["chat_template"] == "x"
    assert written["clean_up_tokenization_spaces"] is False
    assert written["model_max_length"] == 100
    assert "name_or_path" not in written


def test_rules_go_with_prepared_data(tmp_path: Path) -> None:
    out = folder_with(tmp_path / "out", {"tokenizer_config.json": {}})
    plain = read(tmp_path / "m", {})
    write_rules(out, plain)
    assert not (out / "tokenizer_config.json").exists()
    for config in ({"strip_accents": False}, {"do_lower_case": False}, {"extra_special_tokens": ["[E1]"]}):
        vocabulary = read(tmp_path / "m", {"tokenizer_config.json": config})
        write_rules(out, vocabulary)
        found = read_vocabulary(out / "vocab.txt")
        assert (found.digest, found.lower_case, found.longest) == (vocabulary.digest, vocabulary.lower_case, None)


# casing


@pytest.mark.parametrize(
    ("more", "lower", "guess"),
    [
        (["<S>", "<T>", "[CLS2]", "{X}", "(Y)"], True, False),
        (["Tea", "Good", "Cafe"], False, False),
        (["Tea", *(f"w{number}" for number in range(200))], True, True),  # strays
        (["Tea", "Good", *(f"w{number}" for number in range(60))], False, True),
    ],
    ids=["special-looking", "cased", "strays", "few"],
)
def test_casing_is_guessed_from_words_alone(more: list[str], lower: bool, guess: bool, tmp_path: Path) -> None:
    vocabulary = read(tmp_path / "m", {}, [*PIECES, *more])
    assert vocabulary.lower_case == lower
    assert [True for said in vocabulary.warnings if "no file says the casing" in said] == [True] * guess


def test_a_vocabulary_without_letters_is_a_guess(tmp_path: Path) -> None:
    vocabulary = read(tmp_path / "m", {}, [*SPECIAL, "中", "国"])
    assert vocabulary.lower_case
    assert "it has no letters" in vocabulary.warnings[0]
    said = read(tmp_path / "m", {"tokenizer_config.json": {"do_lower_case": True}}, [*SPECIAL, "中", "国"])
    assert said.warnings == ()
