"""What the name of an embedded model stands for, forever: its files by their hashes, and its vectors of a few texts.

`python tests/pinned.py` writes pinned.json for a model that is not in it yet. One that is there stays as it is: a
changed model gets another name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from onepass import Encoder
from onepass.model.hub import EMBEDDED

FILE = Path(__file__).with_name("pinned.json")
FILES = ("config.json", "model.safetensors", "onepass_heads.json", "tokenizer.json", "tokenizer_config.json")
TEXTS = (
    "hello",
    "The miller turns grain into flour.",
    "How do I list the files of a folder, hidden ones too?",
    "Anna Berg left Zürich on Tuesday; the fever had lasted for nine days.",
    "std::vector<int> numbers{1, 2, 3};  // naïve, but 100 % correct",
)


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def pinned() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else {}


def main() -> None:
    known = pinned()
    for name, folder in EMBEDDED.items():
        if name not in known:
            with Encoder(name, dtype="float32", engine="reference") as encoder:
                vectors = [[round(float(value), 5) for value in encoder.embed(text)] for text in TEXTS]
            known[name] = {"sha256": hashes(folder), "vectors": dict(zip(TEXTS, vectors, strict=True))}
    FILE.write_text(json.dumps(known, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
