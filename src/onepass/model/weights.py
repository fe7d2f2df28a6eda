"""Tensors under onepass's own names, the same for every family.

    embed.word [vocab, width]            embed.position [rows, ...]      embed.type, embed.task
    embed.norm.weight, .bias             embed.project.weight, .bias
    layers.{g}.attention.query.weight, .bias     also key, value, output (query [heads * head_size, width], ...)
    layers.{g}.norm1.weight, .bias               norm2; a sandwich has norm1_after and norm2_after too
    layers.{g}.ff.up.weight, .bias               down, and gate where gated
    final_norm.weight, .bias
    head tensors: "{head}.{...}", as the head's steps name them, e.g. classify.0.weight, classify.1.bias

Every linear weight is [out, in]; all are float32 and C-contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]
