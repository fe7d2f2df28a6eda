"""Low-rank adapters that a file holds beside its matrices, one for each task: one of them is merged in at load.

Hu et al. 2021, in the layout of Jina Embeddings v3: W + alpha / rank * B[t] A[t], and A[t] B[t] for a table, with A and
B of task t under torch's names for parametrizations.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onepass.errors import BadSetting
from onepass.model.config import Config
from onepass.model.families.family import Tensors
from onepass.model.families.recipes import Floats
from onepass.model.spec import EncoderSpec
from onepass.model.tensor_files import StoredTensor
from onepass.model.weights import Made, Source, files_of


def with_adapter(
    sources: Tensors, stored: Mapping[str, StoredTensor], config: Config, asked: str | None, notes: list[str]
) -> Tensors:
    """`sources` with the adapter of the task `asked` merged into every matrix that has one; None leaves them plain.

    Raises BadSetting for a task that the model has no adapter for.
    """
    tasks = config.get("lora_adaptations") or []
    if asked is None:
        if tasks:
            notes.append(f"The adapters for {', '.join(tasks)} are not used; the setting `adapter` chooses one.")
        return sources
    if asked not in tasks:
        known = f"it has adapters for {', '.join(tasks)}" if tasks else "it has none; leave the setting out"
        raise BadSetting(f"adapter is {asked!r}, which this model does not have; {known}")
    scale = config.number("lora_alpha", 1) / config.integer("lora_rank", 4, least=1)
    return {name: _merged(name, source, stored, tasks.index(asked), scale) for name, source in sources.items()}


def _merged(name: str, source: Source, stored: Mapping[str, StoredTensor], task: int, scale: float) -> Source:
    file = files_of(source)[0]
    low, high = (f"{file.removesuffix('weight')}parametrizations.weight.0.lora_{letter}" for letter in "AB")
    if low not in stored:
        return source
    make = source.make if isinstance(source, Made) else lambda spec, matrix: matrix

    def merge(spec: EncoderSpec, matrix: Floats, a: Floats, b: Floats) -> Floats:
        left, right = (a, b) if name.startswith("embed.") else (b, a)
        return make(spec, matrix + np.float32(scale) * left[task] @ right[task])

    return Made((file, low, high), merge)
