"""Bytes of any file, changed."""

from __future__ import annotations

from random import Random


def flip(data: bytes, rng: Random) -> bytes:
    """Up to eight bytes are replaced."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flip_bit(data: bytes, rng: Random) -> bytes:
    """One bit is turned over."""
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_head(data: bytes, rng: Random) -> bytes:
    """One of the first 64 bytes is replaced: sizes and kinds stand there."""
    changed = bytearray(data)
    changed[rng.randrange(min(64, len(changed)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(changed)


def cut(data: bytes, rng: Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def drop(data: bytes, rng: Random) -> bytes:
    """Some bytes in the middle are missing."""
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.randint(1, 64) :]


def repeat(data: bytes, rng: Random) -> bytes:
    """Some bytes stand there twice."""
    place = rng.randrange(len(data))
    return data[:place] + data[place : place + rng.randint(1, 64)] + data[place:]


def blank(data: bytes, rng: Random) -> bytes:
    """Some bytes are zero, as on a failing disk."""
    place, length = rng.randrange(len(data)), rng.randint(1, 512)
    return (data[:place] + bytes(length) + data[place + length :])[: len(data)]


BYTES = (flip, flip_bit, flip_head, cut, drop, repeat, blank)
