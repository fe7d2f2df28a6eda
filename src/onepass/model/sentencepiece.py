"""A sentencepiece model's file, read without the library that writes it.

It is one protocol buffer, a ModelProto of google/sentencepiece (src/sentencepiece_model.proto); of its fields the few
below are read. On the wire a message is a row of (number * 8 + kind, value): https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onepass.errors import BadCheckpoint

PieceKind = Literal["normal", "unknown", "control", "user", "unused", "byte"]
KINDS: dict[int | bytes, PieceKind] = {1: "normal", 2: "unknown", 3: "control", 4: "user", 5: "unused", 6: "byte"}
UNIGRAM, BPE = 1, 2


@dataclass(frozen=True, slots=True)
class Piece:
    """score: log probability of a unigram model; minus the merge's rank in a BPE model."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary in the order of its ids.

    bpe: joined by ranked merges; otherwise the likeliest path of a unigram model.  byte_fallback: characters it lacks
    are spelt in the pieces <0x00> to <0xFF>.  charsmap: compiled replacements of characters, empty if there are none.
    """

    pieces: tuple[Piece, ...]
    bpe: bool
    byte_fallback: bool
    charsmap: bytes


def read_pieces(path: Path) -> Pieces:
    """Raises BadCheckpoint for a file that is no sentencepiece model, or one of whole words or characters."""
    try:
        model = list(_fields(path.read_bytes()))
        pieces = tuple(_piece(_bytes(value)) for number, value in model if number == 1)
        trainer = {number: value for field, spec in model if field == 2 for number, value in _fields(_bytes(spec))}
        normaliser = {number: value for field, spec in model if field == 3 for number, value in _fields(_bytes(spec))}
        charsmap = _bytes(normaliser.get(2, b""))
    except (ValueError, IndexError) as error:
        reason = "it ends too early" if isinstance(error, IndexError) else error
        raise BadCheckpoint(f"{path.name} is not a sentencepiece model ({reason}); download it again") from error
    algorithm = trainer.get(3, UNIGRAM)
    if not pieces or algorithm not in (UNIGRAM, BPE):
        raise BadCheckpoint(
            f"{path.name} holds {len(pieces)} pieces of the model_type {algorithm!r}, but only "
            f"{UNIGRAM} (unigram) and {BPE} (BPE) split text into pieces; save a tokenizer.json beside it"
        )
    return Pieces(pieces, algorithm == BPE, bool(trainer.get(35, 0)), charsmap)


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    text, score, kind = _bytes(fields.get(1, b"")), _bytes(fields.get(2, bytes(4))), fields.get(3, 1)
    if kind not in KINDS or len(score) != 4:
        raise ValueError(f"the piece {text!r} has the type {kind!r}")
    return Piece(text.decode(), struct.unpack("<f", score)[0], KINDS[kind])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; numbers of fixed size stay bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"byte {at} starts a field of the unknown kind {kind}")
        if at + size > len(message):
            raise IndexError
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"byte {at} is in a number of more than 64 bits")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where text or a message should")
    return value
