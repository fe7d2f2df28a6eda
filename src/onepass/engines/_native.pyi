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

class NormKind(enum.Enum):
    layer = 0
    rms = 1
    affine = 2

class Widen(enum.Enum):
    word = 0
    sum = 1
    after = 2

class Place(enum.Enum):
    post = 0
    pre = 1
    sandwich = 2
    bottleneck = 3

class Shares(enum.Enum):
    all = 0
    query_key = 1
    none = 2

class Pooling(enum.Enum):
    first = 0
    last = 1
    last_not_pad = 2
    mean = 3
    sum = 4
    max = 5
    mean_sqrt = 6
    weighted_mean = 7
    tokens = 8
    spans = 9
    max_by_token = 10

class Finish(enum.Enum):
    none = 0
    l2 = 1
    softmax = 2
    sigmoid = 3

class Linear:
    def __init__(self, kernels: str, dtype: Format, parts: Sequence[tuple[Floats, Floats | None]]) -> None: ...
    @staticmethod
    def gated(
        kernels: str, dtype: Format, gate: tuple[Floats, Floats | None], up: tuple[Floats, Floats | None]
    ) -> Linear: ...
    @property
    def bytes(self) -> int: ...

class Norm:
    def __init__(self, kind: NormKind, weight: Floats, bias: Floats | None, eps: float) -> None: ...

class Positions:
    def __init__(self, rule: PositionRule, start: int, table: Floats) -> None: ...

class Embedding:
    def __init__(
        self,
        word: Floats,
        scale: float,
        ngram: int,
        positions: Positions | None,
        types: Floats | None,
        task: Floats | None,
        norm: Norm | None,
        project: Linear | None,
        place: Widen,
    ) -> None: ...

class RelativeScores:
    def __init__(
        self, reach: int, content_to_position: Sequence[Linear], position_to_content: Sequence[Linear]
    ) -> None: ...

class SelfAttention:
    def __init__(
        self,
        query_key_value: Linear,
        value: Linear | None,
        query_norm: Norm | None,
        key_norm: Norm | None,
        relative: RelativeScores | None,
        heads: int,
        kv_heads: int,
        head_size: int,
        scale: float,
        causal: bool,
        window: int,
        softcap: float,
        rotary: int,
        distance_bias: int,
    ) -> None: ...

class Dense:
    def __init__(self, up: Linear, down: Linear, activation: Activation) -> None: ...

class Experts:
    def __init__(self, router: Linear, experts: Sequence[Dense], bias: Floats | None, top: int) -> None: ...

class Link:
    def __init__(self, feed_forward: Dense, norm: Norm) -> None: ...

class Bottleneck:
    def __init__(
        self,
        shares: Shares,
        input_linear: Linear,
        shared_linear: Linear | None,
        output_linear: Linear,
        input_norm: Norm,
        shared_norm: Norm | None,
        output_norm: Norm,
    ) -> None: ...

class Layer:
    def __init__(
        self,
        place: Place,
        attention: SelfAttention,
        output: Linear,
        chain: Sequence[Link],
        feed_forward: Dense | Experts,
        norm1: Norm | None,
        norm1_after: Norm | None,
        norm2: Norm,
        norm2_after: Norm | None,
        bottleneck: Bottleneck | None,
    ) -> None: ...

class Convolution:
    def __init__(self, weight: Linear, kernel: int, activation: Activation, norm: Norm) -> None: ...

class LinearStep:
    def __init__(
        self, linear: Linear, activation: Activation, residual: bool, residual_linear: Linear | None
    ) -> None: ...

class ActivationStep:
    def __init__(self, kind: Activation) -> None: ...

class VocabularyStep:
    def __init__(self, scores: Linear) -> None: ...

class L2Step:
    def __init__(self) -> None: ...

class TruncateStep:
    def __init__(self, width: int) -> None: ...

Step = LinearStep | ActivationStep | VocabularyStep | Norm | L2Step | TruncateStep

class Head:
    def __init__(
        self,
        kernels: str,
        width: int,
        pool: Sequence[Pooling],
        per_token: Sequence[Step],
        per_row: Sequence[Step],
        pad_id: int,
        skip_prompt: bool,
        without: Sequence[int],
        sparse: bool,
        finish: Finish,
    ) -> None: ...

class Read:
    def __init__(
        self,
        head: Head,
        rows: Ints,
        positions: Ints | None,
        spans: Ints | None,
        offsets: Ints | None,
        vocabulary: Ints | None,
        skip: Ints | None,
        targets: Ints | None,
        finish: Finish | None,
    ) -> None: ...

class Encoder:
    def __init__(
        self,
        kernels: str,
        width: int,
        embedding: Embedding,
        layers: Sequence[Layer],
        convolution: Convolution | None,
        final_norm: Norm | None,
    ) -> None: ...
    def run(
        self,
        ids: Ints,
        types: Ints,
        offsets: Ints,
        visible: Ints,
        rotary: Sequence[tuple[Floats, Floats, Ints]],
        distance: Sequence[Floats],
        reads: Sequence[Read],
        cores: int,
    ) -> list[tuple[Floats, Ints, Ints | None]]: ...

def instruction_sets() -> dict[str, str]: ...
def bfloat16_products(kernels: str) -> bool: ...
def compute_threads() -> int: ...
def max_similarity(kernels: str, query: Floats, documents: Floats, offsets: Ints, cores: int) -> Floats: ...
