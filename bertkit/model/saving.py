"""A model written as a folder that Hugging Face's transformers loads."""

from __future__ import annotations

from pathlib import Path

from bertkit.files.disk import write_arrays, write_json, write_text
from bertkit.model.config import Arrays, Head, ModelConfig, to_mapping
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import tokenizer_config, write_vocabulary
from bertkit.model.vocabulary import Vocabulary


def write_model(
    folder: Path,
    config: ModelConfig,
    head: Head,
    labels: tuple[str, ...],
    vocabulary: Vocabulary,
    weights: Arrays,
) -> None:
    """Write the model in Hugging Face's layout; `transformers` loads it and computes the same logits.

    Without words there is neither vocabulary nor tokenizer to write.
    """
    write_arrays(folder / "model.safetensors", weights, {"format": "pt"})
    pad = vocabulary.special_ids["[PAD]"]
    write_json(folder / "config.json", to_mapping(config, head, labels, pad))
    if vocabulary.has_words:
        write_vocabulary(folder / "vocab.txt", vocabulary, added=False)
        write_tokenizer(folder, config, vocabulary)


def write_tokenizer(folder: Path, config: ModelConfig, vocabulary: Vocabulary) -> None:
    """What transformers makes the same tokenizer of; settings that it alone reads are written as they were read."""
    write_text(folder / "tokenizer.json", tokenizer(vocabulary).to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", tokenizer_config(vocabulary, config.max_position_embeddings))
