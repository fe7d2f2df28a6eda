"""onepass's own format: each task at /onepass/v1/<task>, its arguments by the names they have in Python."""

from onepass.server.native import answer, classify, embed, fill, log_probs, multivector, rerank, run, similarity, tag

OPERATIONS = tuple(
    task.OPERATION for task in (embed, similarity, rerank, classify, tag, fill, answer, log_probs, multivector, run)
)
