"""What each batch teaches: one function per objective, from a model and a batch to a loss.

Sources: cosines of states to the teacher's as in DistilBERT (Sanh et al. 2019); in-batch negatives (Henderson et al.
2017); late interaction as in ColBERT (Khattab and Zaharia 2020); SPLADE's penalty on FLOPS (Formal et al. 2021); masked
words as in BERT (Devlin et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.model import TEMPERATURE, Mini, Tagger, Trunk, mean

Given = dict[str, Tensor]
DROPOUT = 0.1
STATES = 2.0  # the weight of a tagger's states beside what it says


@dataclass
class Learner:
    """The model, its teachers (None where there is none): of vectors, of names, and the model as it was at the
    beginning; which head alone learns; how far training is, from 0 to 1, and its stage."""

    model: Mini
    teacher: Trunk | None
    taggers: Sequence[Tagger] = ()
    before: Mini | None = None
    focus: str | None = None
    progress: float = 0.0
    stage: int = 1

    def states(self, batch: Given, name: str, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        lengths = batch[f"{name}.lengths"]
        types, shapes = (batch.get(f"{name}.{what}") for what in ("types", "shapes"))
        return self.model.trunk(batch[f"{name}.ids"], lengths, types, dropout, shapes), lengths

    @torch.no_grad()
    def taught(self, batch: Given, name: str) -> tuple[Tensor, Tensor]:
        """(states, unit vectors) of the teacher."""
        assert self.teacher is not None
        lengths = batch[f"{name}.lengths"]
        with torch.autocast(lengths.device.type, enabled=False):  # its weights have the type it computes in
            states = self.teacher(batch[f"{name}.ids"], lengths)
        return states, functional.normalize(mean(states, lengths), dim=-1)


def by_word(states: Tensor, words: Tensor, count: int) -> Tensor:
    """The mean state of each word's pieces, [count, width]; words [rows, longest] is -1 at special tokens."""
    flat = torch.where(words < 0, count, words).long().flatten()
    sums = states.new_zeros(count + 1, states.shape[-1], dtype=torch.float32)
    sums.index_add_(0, flat, states.flatten(0, 1).float())
    pieces = torch.bincount(flat, minlength=count + 1).clamp(min=1)
    return (sums / pieces[:, None])[:count]


def products(a: Tensor, b: Tensor) -> Tensor:
    """a b^T in float32: divided by a temperature, the rounding of bfloat16 would show."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T


def alike(vectors: Tensor, wanted: Tensor) -> Tensor:
    """How far cosines among the rows are from the teacher's, as distributions over the batch."""
    diagonal = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    ours = (products(vectors, vectors) / TEMPERATURE).masked_fill(diagonal, -1e4)
    theirs = (products(wanted, wanted) / TEMPERATURE).masked_fill(diagonal, -1e4)
    return functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean")


def distilled(learner: Learner, batch: Given) -> Tensor:
    """The teacher's vectors, and in stage one the states of its words, too: in its last layer these know more of the
    sentence than of themselves, which is a good beginning, but holds back heads that read tokens."""
    states, lengths = learner.states(batch, "student")
    theirs, wanted = learner.taught(batch, "teacher")
    vectors = learner.model.vectors(states, lengths)
    loss = 8 * (1 - (vectors * wanted).sum(-1)).mean() + 0.5 * alike(vectors, wanted)
    if learner.stage > 1:
        return loss
    count = int(batch["count"])
    ours = by_word(learner.model.words(states), batch["student.words"], count)
    goal = by_word(theirs, batch["teacher.words"], count)
    return loss + 4 * apart(ours, goal)


def masked(learner: Learner, batch: Given) -> Tensor:
    model = learner.model
    states = model.trunk(batch["ids"], batch["lengths"])
    chosen = batch["targets"] >= 0
    scores = model.fill(states[chosen], model.trunk.embeddings.word_embeddings.weight)
    return 0.7 * functional.cross_entropy(scores.float(), batch["targets"][chosen])


def pairs(learner: Learner, batch: Given) -> Tensor:
    model = learner.model
    queries, texts = (model.vectors(*learner.states(batch, name, DROPOUT / 2)) for name in ("query", "text"))
    asked, known = (learner.taught(batch, f"{name}.teacher")[1] for name in ("query", "text"))
    taught = products(asked, known)
    others = ~torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    same = (batch["group"][:, None] == batch["group"]) | (taught > taught.diagonal()[:, None] + 0.1)
    scores = (products(queries, texts) / TEMPERATURE).masked_fill(same & others, -1e4)
    own = torch.arange(len(queries), device=queries.device)
    found = functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)
    far = 2 - (queries * asked).sum(-1).mean() - (texts * known).sum(-1).mean()
    return 0.25 * found + 8 * far


def sparse(learner: Learner, batch: Given) -> Tensor:
    model = learner.model
    queries, texts = (model.lexical(*learner.states(batch, name)) for name in ("query", "text"))
    scores = 0.1 * products(queries, texts)
    own = torch.arange(len(queries), device=queries.device)
    same = (batch["group"][:, None] == batch["group"]) & ~torch.eye(len(own), dtype=torch.bool, device=own.device)
    scores = scores.masked_fill(same, -1e4)
    found = functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)
    penalty = 0.03 * (queries.mean(0) ** 2).sum() + 0.01 * (texts.mean(0) ** 2).sum()
    return 0.5 * found + penalty * min(1.0, 2 * learner.progress) ** 2


def late(learner: Learner, batch: Given) -> Tensor:
    """ColBERT's scores (Khattab and Zaharia 2020) among queries and texts that are near each other."""
    (queries, asked), (texts, known) = (learner.states(batch, name, DROPOUT) for name in ("query", "text"))
    q, d = learner.model.late(queries), learner.model.late(texts)
    with torch.autocast(q.device.type, enabled=False):
        products = torch.einsum("qik,djk->qdij", q, d)
    unread = torch.arange(d.shape[1], device=d.device) >= known[:, None]
    best = products.masked_fill(unread[None, :, None], -2).amax(-1)
    unasked = torch.arange(q.shape[1], device=q.device) >= asked[:, None]
    scores = best.masked_fill(unasked[:, None], 0).sum(-1) / asked[:, None]
    own = torch.arange(len(scores), device=scores.device)
    same = (batch["group"][:, None] == batch["group"]) & ~torch.eye(len(own), dtype=torch.bool, device=own.device)
    scores = (scores / 0.03).masked_fill(same, -1e4)
    return functional.cross_entropy(scores, own) + 0.5 * functional.cross_entropy(scores.T, own)


def sentiment(learner: Learner, batch: Given) -> Tensor:
    scores = learner.model.sentiment(*learner.states(batch, "text", DROPOUT), DROPOUT)
    return functional.cross_entropy(scores, batch["label"], label_smoothing=0.05)


def toxicity(learner: Learner, batch: Given) -> Tensor:
    scores = learner.model.toxicity(*learner.states(batch, "text", DROPOUT), DROPOUT)[:, 0]
    return functional.binary_cross_entropy_with_logits(scores, 0.025 + 0.95 * batch["label"].float())


def nli(learner: Learner, batch: Given) -> Tensor:
    scores = learner.model.nli(*learner.states(batch, "text", DROPOUT), DROPOUT)
    return functional.cross_entropy(scores, batch["label"], label_smoothing=0.05)


def entities(learner: Learner, batch: Given) -> Tensor:
    states, _ = learner.states(batch, "text", DROPOUT)
    scores = learner.model.entities(states, DROPOUT).log_softmax(-1)
    # where MISC was not looked for, "O" may be it
    other = torch.logsumexp(scores[..., [0, -1]], -1)
    outside = torch.where(batch["partial"][:, None], other, scores[..., 0])
    scores = torch.cat([outside[..., None], scores[..., 1:]], -1)
    return 2 * functional.nll_loss(scores.flatten(0, 1), batch["targets"].flatten())


def named(learner: Learner, batch: Given) -> Tensor:
    """What the taggers say of each word on average, of texts without labels (Hinton et al. 2015), and the first one's
    states of it (Jiao et al. 2020): five numbers tell little of a name."""
    count = int(batch["count"])
    with torch.no_grad():
        given = batch["teacher.ids"], batch["teacher.lengths"], None, 0.0, batch["teacher.shapes"]
        known = [tagger.trunk(*given) for tagger in learner.taggers]
        said = [tagger.entities(one).softmax(-1) for tagger, one in zip(learner.taggers, known, strict=True)]
        wanted = by_word(torch.stack(said).mean(0), batch["teacher.words"], count)
        goal = by_word(known[0], batch["teacher.words"], count)
    states, _ = learner.states(batch, "student", DROPOUT)
    scores = learner.model.entities(states, DROPOUT).log_softmax(-1)
    goals = wanted[batch["student.words"].clamp(min=0).long()]
    met = (batch["student.words"] >= 0) & (goals.sum(-1) > 0)  # the end of a row may be cut for one of the two
    loss = -2 * ((goals * scores).sum(-1) * met).sum() / met.sum()
    ours = by_word(learner.model.words(states), batch["student.words"], count)
    return loss + STATES * apart(ours, goal)


def apart(ours: Tensor, goal: Tensor) -> Tensor:
    """1 - cosine on average over words that both have read: the end of a row may be cut for one of the two."""
    met = (ours.abs().sum(-1) > 0) & (goal.abs().sum(-1) > 0)
    return ((1 - functional.cosine_similarity(ours, goal, dim=-1)) * met).sum() / met.sum()


def kept(learner: Learner, batch: Given) -> Tensor:
    """What the heads said of a text at the beginning (Li and Hoiem 2016), but for the one that is to learn."""
    model, before = learner.model, learner.before
    assert before is not None
    states, lengths = learner.states(batch, "text")
    with torch.no_grad():
        old = before.trunk(batch["text.ids"], lengths)
    real = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
    losses = {
        "pairs": 8 * (1 - (model.vectors(states, lengths) * before.vectors(old, lengths)).sum(-1)).mean(),
        "late": 4 * (1 - (model.late(states) * before.late(old)).sum(-1))[real].mean(),
        "sentiment": functional.cross_entropy(
            model.sentiment(states, lengths), before.sentiment(old, lengths).softmax(-1)
        ),
        "toxicity": functional.binary_cross_entropy_with_logits(
            model.toxicity(states, lengths), before.toxicity(old, lengths).sigmoid()
        ),
    }
    return torch.stack([loss for name, loss in losses.items() if name != learner.focus]).sum()


def kept_answers(learner: Learner, batch: Given) -> Tensor:
    """Where the head of answers saw them begin and end at the beginning."""
    assert learner.before is not None
    states, lengths = learner.states(batch, "pair")
    with torch.no_grad():
        old = learner.before.trunk(batch["pair.ids"], lengths, batch["pair.types"])
        wanted = ends(learner.before, old, lengths).softmax(1)
    return functional.cross_entropy(ends(learner.model, states, lengths), wanted)


def answer(learner: Learner, batch: Given) -> Tensor:
    states, lengths = learner.states(batch, "pair", DROPOUT)
    starts, stops = ends(learner.model, states, lengths, DROPOUT).unbind(-1)
    return 0.5 * (functional.cross_entropy(starts, batch["start"]) + functional.cross_entropy(stops, batch["stop"]))


def ends(model: Mini, states: Tensor, lengths: Tensor, dropout: float = 0.0) -> Tensor:
    """Scores of each token as an answer's first and last, [rows, longest, 2]; none behind a row's end."""
    outside = torch.arange(states.shape[1], device=states.device) >= lengths[:, None]
    return model.answer(states, dropout).masked_fill(outside[..., None], -1e4)


OBJECTIVES: dict[str, Callable[[Learner, dict[str, Any]], Tensor]] = {
    objective.__name__: objective
    for objective in (
        distilled, masked, pairs, sparse, late, sentiment, toxicity, nli, entities, named, answer, kept, kept_answers,
    )
}  # fmt: skip
