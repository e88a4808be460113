"""TensorFlow's table file, LevelDB's format: sorted keys and values in blocks, each with a CRC32C.

A block: entries (shared, unshared and value lengths as varints, the rest of the key, the value), the places where
keys begin anew, their number; then one byte for the compression and the masked CRC. The last block lists the blocks,
and the footer says where it is. Format: tensorflow/core/lib/io/format.cc, block_builder.cc, table_builder.cc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import google_crc32c

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two handles, padded, and the magic number
BLOCK = 262144  # bytes after which a block is closed; TensorFlow's own default
KEYS = 16  # most bytes of keys for each byte of a file: a key repeats what it shares with the one before
RESTART = 16  # every so many keys of a block, one is written whole


class Damaged(ValueError):
    """The bytes are not what the format says; the message says what is wrong."""


class Unsupported(ValueError):
    """The bytes are sound, but of a kind that is not read here; the message says which."""


def masked_crc(data: bytes) -> int:
    """CRC32C as these files store it, turned so that a CRC over CRCs stays sound."""
    return mask(google_crc32c.value(data))


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and the place behind it. Raises Damaged where it does not end within 64 bits."""
    value = 0
    for count, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, place + count + 1
    raise Damaged(f"the number at byte {place} does not end")


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys and values, in the file's order. Raises Damaged, or Unsupported for compressed blocks."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise Damaged("it does not end as a table file does")
    footer = data[-FOOTER:]
    place = 0
    handle = []
    for _ in range(4):  # offset and size of the block of metadata, which is empty, and of the list of blocks
        number, place = read_varint(footer, place)
        handle.append(number)
    found: dict[bytes, bytes] = {}
    last, room = None, KEYS * len(data) + BLOCK
    for _, value in _entries(_block(data, handle[2], handle[3])):
        offset, place = read_varint(value, 0)
        for key, entry in _entries(_block(data, offset, read_varint(value, place)[0])):
            if last is not None and key <= last:  # here, since a list may name one block a million times
                raise Damaged("its keys are not in order")
            room -= len(key)
            if room < 0:
                raise Damaged("its keys are far longer than the file")
            found[key] = entry
            last = key
    return found


def _block(data: bytes, offset: int, size: int) -> bytes:
    """The block without its trailer, its CRC checked."""
    end = offset + size
    if end + 5 > len(data) - FOOTER:
        raise Damaged(f"a block of {size} bytes at byte {offset} reaches beyond its end")
    (stored,) = struct.unpack_from("<I", data, end + 1)
    if masked_crc(data[offset : end + 1]) != stored:
        raise Damaged(f"the block at byte {offset} does not match its CRC")
    if data[end]:
        raise Unsupported(f"the block at byte {offset} is compressed ({'snappy' if data[end] == 1 else data[end]})")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise Damaged("a block is too short")
    end = len(block) - 4 - 4 * int(struct.unpack("<I", block[-4:])[0])
    if end < 0:
        raise Damaged("a block says that it restarts more often than it is long")
    place, key = 0, b""
    while place < end:
        shared, place = read_varint(block, place)
        rest, place = read_varint(block, place)
        length, place = read_varint(block, place)
        if shared > len(key) or place + rest + length > end:
            raise Damaged("an entry reaches beyond its block")
        key = key[:shared] + block[place : place + rest]
        place += rest + length
        yield key, block[place - length : place]


def write_table(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The file's bytes, the same as TensorFlow writes. The keys must ascend."""
    made, ends, last = bytearray(), [], b""
    block = _Block(RESTART)
    pending: bytes | None = None  # where the block before lies, until the key behind it is known
    for key, value in items:
        if pending is not None:
            ends.append((_between(last, key), pending))
            pending = None
        block.add(key, value)
        last = key
        if block.size >= BLOCK:
            pending, block = _put(made, block), _Block(RESTART)
    if block.size > 8 or (not ends and pending is None):
        pending = _put(made, block)
    meta = _put(made, _Block(1))
    index = _Block(1)
    for key, handle in [*ends, *([(_after(last), pending)] if pending is not None else [])]:
        index.add(key, handle)
    footer = meta + _put(made, index)
    return bytes(made) + footer.ljust(FOOTER - 8, b"\0") + struct.pack("<Q", MAGIC)


class _Block:
    """A block under way."""

    def __init__(self, restart: int) -> None:
        self.restart, self.count, self.last = restart, 0, b""
        self.entries, self.restarts = bytearray(), [0]

    @property
    def size(self) -> int:
        return len(self.entries) + 4 * len(self.restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.count and self.count % self.restart == 0:
            self.restarts.append(len(self.entries))
        elif self.count:
            shared = _shared(self.last, key)
        self.entries += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self.last, self.count = key, self.count + 1


def _put(made: bytearray, block: _Block) -> bytes:
    """Append a block with its trailer; its handle."""
    numbers = [*block.restarts, len(block.restarts)]
    whole = bytes(block.entries) + struct.pack(f"<{len(numbers)}I", *numbers)
    handle = varint(len(made)) + varint(len(whole))
    made += whole + b"\0" + struct.pack("<I", masked_crc(whole + b"\0"))
    return handle


def _shared(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _between(low: bytes, high: bytes) -> bytes:
    """A short key from `low` up to but not `high`."""
    same = _shared(low, high)
    if same < min(len(low), len(high)) and low[same] + 1 < high[same]:
        return low[:same] + bytes([low[same] + 1])
    return low


def _after(key: bytes) -> bytes:
    """A short key from `key` upwards."""
    for place, byte in enumerate(key):
        if byte != 0xFF:
            return key[:place] + bytes([byte + 1])
    return key
