"""WordPiece with a memory: the ids of `bertkit/model/tokenizer.py`, each word looked up once and then remembered.

The names of special tokens are text here, as in google-research/bert: "[MASK]" in a corpus is a bracket, a word and a
bracket, never the token, which would be something to predict that no text holds. Other added tokens are tokens.

Where a vocabulary has no added tokens, a space ends a word whatever stands around it, so text may be encoded word by
word and the ids be joined. Of plain ASCII words the pieces are found here, longest match first; all others go through
the `tokenizers` library, as do whole sentences where there are added tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from bertkit.model.long_texts import encode_long
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import LONGEST_WORD, SPECIAL, Vocabulary

REMEMBERED = 400_000  # words, about 80 MB
PARTS = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")  # what the tokenizer splits ASCII at


class WordCache(dict[str, bytes]):
    """word -> its ids as bytes, for joining."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.lower = vocabulary.lower_case
        self.dtype = np.dtype(np.uint16 if len(vocabulary.pieces) <= 1 << 16 else np.int32)
        self.ids = {piece: np.array(number, self.dtype).tobytes() for number, piece in enumerate(vocabulary.pieces)}
        self.longest = max(map(len, vocabulary.pieces))
        self.library = tokenizer(vocabulary, names_are_text=True)
        own = [token for token in vocabulary.added if token.content not in vocabulary.special]
        # a token of its own may stand within a word or reach over several
        self.whole = bool(own) or vocabulary.special != SPECIAL or not vocabulary.clean_text
        self.parts: dict[str, bytes] = {}

    def __missing__(self, word: str) -> bytes:
        if word.isascii() and word.isprintable():
            text = word.lower() if self.lower else word
            found = b"".join([self.parts.get(part) or self._pieces(part) for part in PARTS.findall(text)])
        else:
            found = encode_long(self.library, word)[0].astype(self.dtype).tobytes()
        if len(self) < REMEMBERED and len(word) <= LONGEST_WORD:
            self[word] = found
        return found

    def _pieces(self, part: str) -> bytes:
        """Greedy longest match of a word without punctuation; [UNK] where it fails."""
        found, start, before = [], 0, ""
        if len(part) > LONGEST_WORD:
            return self.ids["[UNK]"]
        while start < len(part):
            for end in range(min(len(part), start + self.longest), start, -1):
                if piece := self.ids.get(before + part[start:end]):
                    break
            else:
                return self.ids["[UNK]"]
            found.append(piece)
            start, before = end, "##"
        ids = b"".join(found)
        if len(self.parts) < REMEMBERED:
            self.parts[part] = ids
        return ids

    def encode(self, sentences: Iterable[str]) -> list[bytes]:
        """Each sentence's ids; words stand one space apart."""
        if self.whole:
            found = self.library.encode_batch(list(sentences), add_special_tokens=False)
            return [np.array(encoding.ids, self.dtype).tobytes() for encoding in found]
        look_up = self.__getitem__
        return [b"".join(map(look_up, sentence.split(" "))) for sentence in sentences]
