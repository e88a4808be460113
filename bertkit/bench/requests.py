"""What a server is sent: requests of random token ids in the lengths of real data, the same for the same seed.

Legend: N sequences, B sequences of a request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bertkit.data.lengths import find_distribution
from bertkit.data.lengths import lengths as drawn
from bertkit.engine.remote import InputSpecs, RemoteModel, encoded, padded_tensors
from bertkit.errors import UserError

POOL = 512  # requests made ahead of a measurement; they come again in turn
MIXED = "mixed"
PARTS = ("sst2", "mrpc", "squad384")  # of `mixed`, in equal shares


@dataclass(frozen=True)
class Requests:
    """Bodies to send in turn, and what is in them."""

    title: str  # where the lengths come from
    bodies: tuple[tuple[bytes, dict[str, str]], ...]
    lengths: np.ndarray  # (requests, B) tokens of each sequence

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    def tokens(self, number: int) -> int:
        """Real tokens of a load's request of this number."""
        return int(self.lengths[number % len(self.bodies)].sum())


def parts_of(name: str) -> tuple[str, ...]:
    """The distributions that a name of ``--lengths`` means, in equal shares. Raises UserError for an unknown one."""
    parts = PARTS if name == MIXED else tuple(name.split("+"))
    for part in parts:
        find_distribution(part)
    return parts


def make_requests(
    model: RemoteModel, specs: InputSpecs, name: str, size: int, longest: int, vocab_size: int, seed: int
) -> Requests:
    """`size`: sequences of a request; `longest`: what they are cut to, 0: not. Raises UserError where the model takes
    shorter ones only."""
    parts = parts_of(name)
    size = specs.batch or size * specs.each
    count = POOL * size
    cut = longest or specs.length
    each = [drawn(part, -(-count // len(parts)), seed + number, cut) for number, part in enumerate(parts)]
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, count, len(parts)])))
    found = stream.permutation(np.stack(each, 1).reshape(-1)[:count]).reshape(POOL, size)
    if specs.length and found.max() > specs.length:
        raise UserError(
            f"the server's model {model.name} takes sequences of {specs.length} tokens, not {int(found.max())}",
            f"cut them: -s {specs.length}",
        )
    bodies = []
    for row in found:
        ids = [stream.integers(0, vocab_size, length, dtype=np.int64) for length in row]
        types = [np.zeros(length, np.int64) for length in row]
        bodies.append(encoded(model, padded_tensors(specs, ids, types)[0]))
    title = "; ".join(find_distribution(part).title for part in parts)
    return Requests(title, tuple(bodies), found)
