"""The encoder and its heads in PyTorch, for training alone; onepass itself reads the checkpoint that export.py writes.

The trunk is BERT's, with its names, so that its weights are a checkpoint of the family "bert"; the teacher is one, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.shapes import SHAPES

TAGS = ("O", "PER", "ORG", "LOC", "MISC")
SENTIMENTS = ("negative", "neutral", "positive")
ENTAILMENTS = ("entailment", "neutral", "contradiction")
TEMPERATURE = 0.05
LATE = 128  # width of the vectors that rerank compares token by token


@dataclass(frozen=True)
class Shape:
    """Sizes of a trunk, named as in config.json."""

    vocab_size: int
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


class Embeddings(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.position_embeddings = nn.Embedding(shape.max_position_embeddings, shape.hidden_size)
        self.token_type_embeddings = nn.Embedding(shape.type_vocab_size, shape.hidden_size)
        self.LayerNorm = nn.LayerNorm(shape.hidden_size, shape.layer_norm_eps)
        self.shapes: nn.Embedding | None = None  # of how words are written: a tagger's alone

    def forward(self, ids: Tensor, types: Tensor | None, shapes: Tensor | None) -> Tensor:
        kinds = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types.long())
        if self.shapes is not None and shapes is not None:
            kinds = kinds + self.shapes(shapes.long())
        return self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings.weight[: ids.shape[1]] + kinds)


def dropped(x: Tensor, share: float) -> Tensor:
    return functional.dropout(x, share) if share else x


class Layer(nn.Module):
    """One layer; its modules have the names of transformers' BertLayer, but that query, key and value are `qkv`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, inner, eps = shape.hidden_size, shape.intermediate_size, shape.layer_norm_eps
        self.heads = shape.num_attention_heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)}),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, eps)})

    def forward(self, x: Tensor, seen: Tensor, dropout: float) -> Tensor:
        rows, length, width = x.shape
        part = self.get_submodule
        qkv = part("attention.self.qkv")(x).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        x = part("attention.output.LayerNorm")(x + dropped(part("attention.output.dense")(mixed), dropout))
        y = functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + dropped(self.output["dense"](y), dropout))


PARTS = ("query", "key", "value")


def joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights named as in transformers -> as here."""
    found = {name: tensor for name, tensor in weights.items() if not set(name.split(".")) & set(PARTS)}
    for name in weights:
        if ".query." in name:
            parts = [weights[name.replace("query", part)] for part in PARTS]
            found[name.replace("query", "qkv")] = torch.cat(parts)
    return found


def parted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights named as here -> as in transformers."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        own = [name.replace("qkv", part) for part in PARTS] if ".qkv." in name else [name]
        found |= dict(zip(own, tensor.chunk(len(own)), strict=True))
    return found


class Trunk(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))})

    def forward(
        self,
        ids: Tensor,
        lengths: Tensor,
        types: Tensor | None = None,
        dropout: float = 0.0,
        shapes: Tensor | None = None,
    ) -> Tensor:
        """States [rows, longest, width] of ids [rows, longest], of which the first `lengths` [rows] are real."""
        seen = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])[:, None, None, :]
        x = dropped(self.embeddings(ids, types, shapes), dropout)
        for layer in self.encoder["layer"].children():
            x = layer(x, seen, dropout)
        return x


def mean(states: Tensor, lengths: Tensor) -> Tensor:
    """The mean of each row's real states, special tokens included, as sentence-transformers pools."""
    real = (torch.arange(states.shape[1], device=states.device) < lengths[:, None]).unsqueeze(-1)
    return (states * real).sum(1, dtype=torch.float32) / lengths[:, None]


class RowHead(nn.Module):
    """Scores of a row: its first and its mean state side by side, a hidden layer, `labels` outputs."""

    def __init__(self, width: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, hidden)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, lengths: Tensor, dropout: float = 0.0) -> Tensor:
        pooled = torch.cat([states[:, 0].float(), mean(states, lengths)], 1)
        return self.out(dropped(functional.gelu(self.hidden(pooled)), dropout)).float()


class TokenHead(nn.Module):
    """Scores of each token: a hidden layer, `labels` outputs."""

    def __init__(self, width: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, dropout: float = 0.0) -> Tensor:
        return self.out(dropped(functional.gelu(self.hidden(dropped(states, dropout))), dropout)).float()


class WordHead(nn.Module):
    """Scores against the vocabulary: a layer, a norm, the trunk's own word table, a bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, shape.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        return functional.linear(self.norm(functional.gelu(self.dense(states))), words, self.bias)


class Mini(nn.Module):
    """The trunk and all heads. `words` maps to the teacher's states and is not exported."""

    def __init__(self, shape: Shape, hidden: int = 128) -> None:
        super().__init__()
        width = shape.hidden_size
        self.trunk = Trunk(shape)
        self.embed = nn.Linear(width, width)
        self.words = nn.Linear(width, width)
        self.fill = WordHead(shape)
        self.sparse = WordHead(shape)
        self.rerank = nn.Linear(width, LATE)
        self.entities = TokenHead(width, hidden, len(TAGS))
        self.answer = TokenHead(width, hidden, 2)
        self.sentiment = RowHead(width, hidden, len(SENTIMENTS))
        self.toxicity = RowHead(width, hidden, 1)
        self.nli = RowHead(width, hidden, len(ENTAILMENTS))

    def start(self, vectors: Tensor | None) -> None:
        """Random weights; the word table from the teacher's vectors of the words [vocabulary, width], if given."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.eye_(self.embed.weight)
        nn.init.eye_(self.words.weight)
        nn.init.constant_(self.sparse.bias, -3.0)  # else every word weighs something at first
        if vectors is not None:
            with torch.no_grad():
                self.trunk.embeddings.word_embeddings.weight.copy_(vectors * (0.05 * vectors.shape[1] ** 0.5))

    def vectors(self, states: Tensor, lengths: Tensor) -> Tensor:
        return functional.normalize(self.embed(mean(states, lengths)).float(), dim=-1)

    def late(self, states: Tensor) -> Tensor:
        """A unit vector for each token, as ColBERT compares them."""
        return functional.normalize(self.rerank(states).float(), dim=-1)

    def lexical(self, states: Tensor, lengths: Tensor) -> Tensor:
        """SPLADE's weights of the vocabulary [rows, vocabulary]: the maximum over tokens of log(1 + relu)."""
        scores = self.sparse(states, self.trunk.embeddings.word_embeddings.weight)
        real = (torch.arange(states.shape[1], device=states.device) < lengths[:, None]).unsqueeze(-1)
        return torch.log1p(functional.relu(scores.masked_fill(~real, 0).amax(1).float()))


class Tagger(nn.Module):
    """The teacher, learning names alone: what it then says of texts without labels, the student learns, too.

    Its tokens are in lower case, so it is told how each word is written; of that the teacher knew nothing.
    """

    def __init__(self, teacher: Trunk, hidden: int = 128) -> None:
        super().__init__()
        self.trunk = teacher
        self.trunk.embeddings.shapes = nn.Embedding(SHAPES, teacher.shape.hidden_size)
        nn.init.zeros_(self.trunk.embeddings.shapes.weight)
        self.entities = TokenHead(teacher.shape.hidden_size, hidden, len(TAGS))
