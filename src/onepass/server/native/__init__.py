"""onepass's own format: each task at /onepass/v1/<task>, its arguments by the names they have in Python."""

from onepass.server.native import (
    answer,
    classify,
    embed,
    embed_chunks,
    fill,
    log_probs,
    moderate,
    multivector,
    rerank,
    run,
    similarity,
    sparse,
    tag,
)

TASKS = (
    embed,
    embed_chunks,
    similarity,
    rerank,
    classify,
    moderate,
    tag,
    fill,
    answer,
    log_probs,
    sparse,
    multivector,
    run,
)
OPERATIONS = tuple(task.OPERATION for task in TASKS)
