# The C++ side, native/bindings.cpp.

import enum
from collections.abc import Sequence

from onepass.engines.batch import Floats, Ints

class Format(enum.Enum):
    float32 = 0
    bfloat16 = 1

class Activation(enum.Enum):
    identity = 0
    gelu = 1
    gelu_tanh = 2
    quick_gelu = 3
    gelu_clipped = 4
    silu = 5
    relu = 6
    relu2 = 7
    tanh = 8
    sigmoid = 9
    relu_log1p = 10

class PositionRule(enum.Enum):
    arange = 0
    after_pad = 1

class Pooling(enum.Enum):
    first = 0
    last = 1
    last_not_pad = 2
    mean = 3
    max = 4
    mean_sqrt = 5
    weighted_mean = 6
    tokens = 7

class Finish(enum.Enum):
    none = 0
    l2 = 1
    softmax = 2
    sigmoid = 3

class Linear:
    def __init__(self, kernels: str, dtype: Format, parts: Sequence[tuple[Floats, Floats | None]]) -> None: ...

class Norm:
    def __init__(self, weight: Floats, bias: Floats | None, eps: float) -> None: ...

class Positions:
    def __init__(self, rule: PositionRule, start: int, table: Floats) -> None: ...

class Embedding:
    def __init__(
        self,
        word: Floats,
        scale: float,
        positions: Positions | None,
        types: Floats | None,
        norm: Norm | None,
        project: Linear | None,
    ) -> None: ...

class LayerWeights:
    def __init__(
        self, query_key_value: Linear, output: Linear, up: Linear, down: Linear, norm1: Norm, norm2: Norm
    ) -> None: ...

class Layer:
    def __init__(
        self, weights: LayerWeights, heads: int, head_size: int, scale: float, activation: Activation
    ) -> None: ...

class LinearStep:
    def __init__(
        self, linear: Linear, activation: Activation, residual: bool, residual_linear: Linear | None
    ) -> None: ...

class ActivationStep:
    def __init__(self, kind: Activation) -> None: ...

class L2Step:
    def __init__(self) -> None: ...

class TruncateStep:
    def __init__(self, width: int) -> None: ...

class Head:
    def __init__(
        self,
        kernels: str,
        width: int,
        pool: Sequence[Pooling],
        pad_id: int,
        skip_prompt: bool,
        per_token: Sequence[LinearStep | ActivationStep | Norm | L2Step | TruncateStep],
        per_row: Sequence[LinearStep | ActivationStep | Norm | L2Step | TruncateStep],
        finish: Finish,
    ) -> None: ...

class Read:
    def __init__(
        self,
        head: int,
        rows: Ints,
        positions: Ints | None,
        offsets: Ints | None,
        skip: Ints | None,
        finish: Finish | None,
    ) -> None: ...

class Encoder:
    def __init__(
        self, kernels: str, width: int, embedding: Embedding, layers: Sequence[Layer], heads: Sequence[Head]
    ) -> None: ...
    def run(
        self, ids: Ints, types: Ints, offsets: Ints, visible: Ints, reads: Sequence[Read], cores: int
    ) -> list[tuple[Floats, Ints]]: ...
    @property
    def weight_bytes(self) -> int: ...

def instruction_sets() -> dict[str, str]: ...
def bfloat16_products(kernels: str) -> bool: ...
def compute_threads() -> int: ...
