"""The routes of text-embeddings-inference, a file for what each group of them answers."""

from onepass.server.tei import embed, predict, tokenize
from onepass.server.tei.form import TEI

__all__ = ["OPERATIONS", "TEI"]

OPERATIONS = (*embed.OPERATIONS, *predict.OPERATIONS, *tokenize.OPERATIONS)
