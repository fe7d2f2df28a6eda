"""Which examples are kept away from training: by a hash of a key, so that every run and every machine agrees."""

import re
from hashlib import blake2b
from typing import Literal

Split = Literal["train", "held"]


def held_out(key: str, share: float = 0.1) -> bool:
    """Whether `key` is held out; keys that differ only in case, punctuation and spaces fall on the same side."""
    normal = " ".join(re.findall(r"\w+", key.lower())) or key
    digest = blake2b(normal.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def split_of(key: str, share: float = 0.1) -> Split:
    return "held" if held_out(key, share) else "train"
