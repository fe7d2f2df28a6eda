"""Search the lines of a text file by meaning: vectors find candidates, a head that reads pairs puts the best first.

python examples/search.py FILE "a question" [EMBEDDER RERANKER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from onepass import Encoder
from onepass.settings import DEFAULT_MODEL

CANDIDATES = 20
SHOWN = 3


def main(
    file: str,
    question: str,
    embedder: str = DEFAULT_MODEL,
    reranker: str = DEFAULT_MODEL,
) -> None:
    lines = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line]
    with Encoder(embedder) as encoder:
        (cosines,) = encoder.similarity(question, lines)
    candidates = [lines[index] for index in np.argsort(-cosines)[:CANDIDATES]]
    with Encoder(reranker) as encoder:
        for best in encoder.rerank(question, candidates, top_n=SHOWN):
            sys.stdout.write(f"{best.score:.3f}  {candidates[best.index]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
