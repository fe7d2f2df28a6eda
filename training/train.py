"""Arrays and a teacher -> weights: two stages, in steps or in seconds, resumable.

    python -m training.train out/mini --seconds 330          # a GPU
    python -m training.train out/mini --steps 20000          # the same everywhere, whatever the machine's speed

Stage one (up to FIRST of the time) distils the teacher and learns masked words; stage two adds every head. With --focus
it goes on with one head of weights that are there (--begin), while the others keep saying what they said; with --tagger
a copy of the teacher learns names, and the student then learns from all such taggers (out/mini/tagger-*) what texts
without labels hold. The rate of learning follows how much of the steps or seconds is used. out/mini/log.jsonl has the
losses and F1 of held-out names, state.pt the state to resume from, weights/ the averaged weights as float16.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from onepass.model.int8 import SCALE, dequantize
from training.batches import (
    Answered,
    Batch,
    Distilled,
    Labelled,
    Masked,
    Mixed,
    Named,
    Near,
    Pairs,
    Read,
    Source,
    Tagged,
)
from training.held import names_found
from training.model import Mini, Shape, Tagger, Trunk, joined, mean
from training.objectives import OBJECTIVES, Learner
from training.store import Ints, Layout, Store

FIRST = 0.42
FOCUS = ("entities", "late", "pairs", "answer", "nli", "sentiment", "toxicity", "sparse")
PARTS = 4  # files of weights, each smaller than 16 MiB
DISTILLED = {"passages": 0.5, "short": 0.2, "queries": 0.15, "texts": 0.1, "phrases": 0.05}
MASKED = {"passages": 0.7, "short": 0.3}
NAMED = {"marked.wikigold": 0.2, "marked.crossner": 0.2, "unmarked.encyclopaedic": 0.25, "unmarked.short": 0.15}
NAMED |= {"unmarked.queries": 0.05, "unmarked.passages": 0.15}


class Endless(IterableDataset[dict[str, Batch]]):
    def __init__(self, mixed: Mixed) -> None:
        self.mixed = mixed

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        worker = get_worker_info()
        return self.mixed.stream(0 if worker is None else worker.id)


def tensors(step: dict[str, Batch]) -> dict[str, dict[str, Tensor]]:
    return {name: {key: torch.as_tensor(np.asarray(value)) for key, value in one.items()} for name, one in step.items()}


def loader(mixed: Mixed, workers: int, cuda: bool) -> Iterator[dict[str, dict[str, Tensor]]]:
    return iter(
        DataLoader(
            Endless(mixed),
            batch_size=None,
            num_workers=workers,
            collate_fn=tensors,  # type: ignore[arg-type]  # without batch_size it is given one at a time
            pin_memory=cuda,
            prefetch_factor=6 if workers else None,
        )
    )


def first_stage(store: Store, tokens: int, seed: int) -> Mixed:
    half = tokens // 2
    always: dict[str, Source] = {
        "distilled": Distilled(store, DISTILLED, half),
        "masked": Masked(store, MASKED, half),
    }
    return Mixed(always, {}, 0, seed)


def second_stage(store: Store, tokens: int, seed: int, near: Mapping[str, tuple[Ints, Ints]], taught: bool) -> Mixed:
    kinds = [name.removeprefix("pairs.") for name in store.tasks if name.startswith("pairs.")]
    shares = {kind: len(store.tasks["pairs." + kind]) ** 0.5 for kind in kinds}
    third = tokens // 3
    at_times: dict[str, tuple[float, Source]] = {
        "entities": (0.24, Tagged(store, third)),
        "late": (0.16, Near(store, near, third)),
        "pairs": (0.08, Pairs(store, shares, third)),
        "answer": (0.14, Answered(store, third)),
        "nli": (0.14, Labelled(store, {"nli": 0.5, "nli.topics": 0.5}, third)),
        "sentiment": (0.12, Labelled(store, {"sentiment.short": 0.4, "sentiment": 0.6}, third, balanced=True)),
        "toxicity": (0.06, Labelled(store, {"toxicity": 1.0}, third, balanced=True)),
        "sparse": (0.06, Pairs(store, shares, third // 2)),
    }
    always: dict[str, Source] = {
        "distilled": Distilled(store, DISTILLED, third // 2),
        "masked": Masked(store, MASKED, third // 2),
    }
    if taught:
        at_times["named"] = 0.12, Named(store, NAMED, third // 2)
    return Mixed(always, at_times, 3, seed + 1)


def focused(mixed: Mixed, name: str, store: Store, tokens: int) -> Mixed:
    """In each step `name`, and something that keeps the other heads where they are."""
    few = tokens // 4
    kept: dict[str, tuple[float, Source]] = {
        "kept": (0.5, Read(store, DISTILLED, few)),
        "masked": (0.25, Masked(store, MASKED, few)),
    }
    if name != "answer":
        kept["kept_answers"] = 0.25, Answered(store, few)
    if name != "entities" or "named" not in mixed.at_times:
        return Mixed({name: mixed.at_times[name][1]}, kept, 1, mixed.seed)
    # labels are few, and learned by heart if they come in each step
    return Mixed({"named": Named(store, NAMED, tokens // 2)}, kept | {name: (0.2, Tagged(store, few))}, 2, mixed.seed)


def names(training: Training, store: Store, device: str) -> Mixed:
    """What the tagger learns from."""
    options = training.options
    return Mixed({"entities": Tagged(store, options.tokens, reader="teacher_")}, {}, 0, options.seed + training.step)


@torch.no_grad()
def vectors_of(learner: Learner, store: Store, texts: np.ndarray[Any, Any], longest: int, device: str) -> Tensor:
    """The student's unit vectors of texts by number, float16 [texts, width]."""
    layer, found = Layout(store), []
    order = np.argsort(store.texts.lengths()[texts], kind="stable")
    for begin in range(0, len(order), 2048):
        rows = layer.lay([store.texts[text] for text in texts[order[begin : begin + 2048]]], "cased", longest)
        ids, lengths = (torch.from_numpy(array).to(device) for array in (rows.ids, rows.lengths))
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            found.append(learner.model.vectors(learner.model.trunk(ids, lengths), lengths).half())
    vectors = torch.cat(found)
    back = torch.empty(len(order), dtype=torch.long, device=device)
    back[torch.from_numpy(order).to(device)] = torch.arange(len(order), device=device)
    return vectors[back]


@torch.no_grad()
def word_vectors(teacher: Trunk, store: Store, device: str) -> Tensor:
    """The teacher's unit vector of each entry of the vocabulary by itself, float32 [vocabulary, width]."""
    layout, entries, found = Layout(store, "teacher_"), np.arange(store.special["vocabulary"]), []
    for begin in range(0, len(entries), 1024):
        rows = layout.lay(list(entries[begin : begin + 1024, None]), "entries", 32)
        ids, lengths = (torch.from_numpy(array).to(device) for array in (rows.ids, rows.lengths))
        found.append(functional.normalize(mean(teacher(ids, lengths), lengths), dim=-1))
    return torch.cat(found)


def nearest(
    learner: Learner, store: Store, device: str, most: int = 40, pairs_of_a_kind: int = 4000
) -> dict[str, tuple[Ints, Ints]]:
    """Of each kind the numbers of some pairs, and for each the `most` whose texts are nearest to its query, its own
    group's left out."""
    found: dict[str, tuple[Ints, Ints]] = {}
    for name, every in store.tasks.items():
        if not name.startswith("pairs.") or len(np.unique(every[:, 1])) <= 4 * most:
            continue
        chosen = np.random.default_rng(8).permutation(len(every))[:pairs_of_a_kind]
        pairs = every[chosen]
        queries = vectors_of(learner, store, pairs[:, 0], 48, device)
        texts = vectors_of(learner, store, pairs[:, 1], 64, device)
        group = torch.from_numpy(pairs[:, 2]).to(device)
        kept = []
        for begin in range(0, len(pairs), 1024):
            cosines = queries[begin : begin + 1024].float() @ texts.float().T
            cosines[group[begin : begin + 1024, None] == group] = -2
            kept.append(cosines.topk(most).indices.cpu().numpy())
        found[name.removeprefix("pairs.")] = chosen, chosen[np.concatenate(kept)]
    return found


def rate(progress: float, peak: float, warm: float = 0.03) -> float:
    """Linear up to the peak, a cosine down to a hundredth of it."""
    if progress < warm:
        return peak * progress / warm
    return peak * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * (progress - warm) / (1 - warm))))


class Training:
    """Everything that changes while training: the model, its averaged weights, the optimiser, how far it is."""

    def __init__(self, learner: Learner, options: argparse.Namespace) -> None:
        self.learner, self.options = learner, options
        self.parameters = [p for p in learner.model.parameters() if p.requires_grad]
        trunk = {id(p) for p in learner.model.trunk.parameters()}
        groups = [
            {
                "params": [p for p in self.parameters if (id(p) in trunk) == of_trunk and (p.ndim > 1) == matrix],
                "weight_decay": 0.02 if matrix else 0.0,
                "faster": 1.0 if of_trunk else options.heads_faster,
            }
            for of_trunk in (True, False)
            for matrix in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-9, betas=(0.9, 0.98), eps=1e-8, fused=True)
        self.averaged = [p.detach().clone() for p in self.parameters]
        self.step, self.used = 0, 0.0

    @property
    def progress(self) -> float:
        of_steps = self.step / self.options.steps if self.options.steps else 0.0
        return max(of_steps, self.used / self.options.seconds if self.options.seconds else 0.0)

    def learn(self, step: dict[str, dict[str, Tensor]], device: str) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["faster"] * rate(self.progress, self.options.rate)
        self.learner.progress = self.progress
        losses = {}
        for name, batch in step.items():
            here = {
                key: value if key in ("count", "each") else value.to(device, non_blocking=True)
                for key, value in batch.items()
            }
            with torch.autocast(device.partition(":")[0], torch.bfloat16):
                loss = OBJECTIVES[name](self.learner, here)
            loss.backward()
            losses[name] = loss.detach()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        keep = min(0.999, 1 - 1 / (self.step / 10 + 1))
        torch._foreach_lerp_(self.averaged, [p.detach() for p in self.parameters], 1 - keep)
        self.step += 1
        return losses

    def state(self) -> dict[str, Any]:
        return {
            "model": self.learner.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
            "used": self.used,
        }

    def resume(self, path: Path, device: str) -> None:
        state = torch.load(path, map_location=device, weights_only=True)
        self.learner.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = [tensor.to(device) for tensor in state["averaged"]]
        self.step, self.used = state["step"], state["used"]

    def average(self) -> None:
        """The model takes its averaged weights."""
        with torch.no_grad():
            for own, averaged in zip(self.parameters, self.averaged, strict=True):
                own.copy_(averaged)


def planned(training: Training, store: Store, device: str) -> Mixed:
    """What the steps of the stage that has come learn from."""
    options, seed = training.options, training.options.seed + training.step
    if training.learner.stage == 1:
        return first_stage(store, options.tokens, seed)
    near = {}
    if options.focus in (None, "late"):
        near = nearest(training.learner, store, device, pairs_of_a_kind=options.pairs)
    mixed = second_stage(store, options.tokens, seed, near, bool(training.learner.taggers))
    return mixed if options.focus is None else focused(mixed, options.focus, store, options.tokens)


Plan = Callable[[Training, Store, str], Mixed]


def run(training: Training, store: Store, folder: Path, device: str, plan: Plan) -> None:
    options, began, before = training.options, time.monotonic(), training.used
    source: Iterator[dict[str, dict[str, Tensor]]] | None = None
    stage, saved = 0, time.monotonic()
    sums: dict[str, tuple[Tensor | float, int]] = {}
    with (folder / "log.jsonl").open("a") as log:
        while training.progress < 1:
            wanted = 1 if training.progress < options.first else 2
            if wanted != stage or source is None:
                stage = training.learner.stage = wanted
                source = loader(plan(training, store, device), options.workers, device.startswith("cuda"))
            losses = training.learn(next(source), device)
            training.used = before + time.monotonic() - began
            for name, loss in losses.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + loss, count + 1)
            if training.step % options.every == 0:
                shown = {name: round(float(total) / count, 4) for name, (total, count) in sums.items()}
                line = {"step": training.step, "seconds": round(training.used, 1), "stage": stage} | shown
                line["f1"] = names_found(training.learner.model, store, device)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(json.dumps(line), flush=True)  # noqa: T201
                if not all(map(math.isfinite, shown.values())):
                    sys.exit("a loss is no longer a number: lower --rate, or resume from an earlier state")
                sums = {}
            if options.save_every and time.monotonic() - saved > options.save_every:
                torch.save(training.state(), folder / "state.part")
                (folder / "state.part").replace(folder / "state.pt")
                saved = time.monotonic()


def save_weights(model: Mini | Tagger, folder: Path) -> None:
    """float16, in PARTS files of about equal size, so that each is small enough to be carried."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Tensor]] = [{} for _ in range(PARTS)]
    sizes = [0] * PARTS
    for name, tensor in sorted(model.state_dict().items(), key=lambda item: -item[1].numel()):
        part = sizes.index(min(sizes))
        parts[part][name] = tensor.detach().half().cpu().contiguous()
        sizes[part] += tensor.numel()
    for number, own in enumerate(parts):
        save_file(own, folder / f"weights-{number}.safetensors")


def load_weights(folder: Path) -> dict[str, Tensor]:
    """float32, of files of float16, or of int8 with a scale per row."""
    stored: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= load_file(path)
    return dequantized(stored)


def dequantized(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32, without the scales of what is int8."""
    found = {}
    for name, tensor in stored.items():
        scale = stored.get(name + SCALE)
        if scale is not None:
            found[name] = torch.from_numpy(dequantize(tensor.numpy(), scale.float().numpy()))
        elif not name.endswith(SCALE):
            found[name] = tensor.float()
    return found


def begin(model: Mini | Tagger, weights: Mapping[str, Tensor]) -> None:
    """Take over what fits; the others keep what they have, and are named."""
    own = model.state_dict()
    fits = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(own | fits)
    print("begun anew:", ", ".join(name for name in own if name not in fits) or "nothing", flush=True)  # noqa: T201


def load_teacher(path: Path) -> Trunk:
    """A BERT whose matrices are stored as int8 with a scale per row (prepare.py writes it so)."""
    weights = dequantized(load_file(path))
    words, width = weights["embeddings.word_embeddings.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    inner = len(weights["encoder.layer.0.intermediate.dense.weight"])
    places = len(weights["embeddings.position_embeddings.weight"])
    teacher = Trunk(Shape(words, width, layers, 12, inner, places))
    teacher.load_state_dict(joined(weights))
    return teacher.eval().requires_grad_(False)


def parsed(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what prepare.py wrote; losses, state and weights go there, too")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--first", type=float, default=FIRST, help="share of stage one")
    parser.add_argument(
        "--focus", choices=FOCUS, help="what alone stage two learns; the other heads say what they said"
    )
    parser.add_argument("--tagger", type=int, default=0, help="teach a copy of the teacher names, into tagger-NUMBER")
    parser.add_argument("--pairs", type=int, default=4000, help="of each kind, to look for near texts among")
    parser.add_argument("--begin", type=Path, help="folder of weights to begin with; heads of other shapes begin anew")
    parser.add_argument("--tokens", type=int, default=98_304, help="of a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest")
    parser.add_argument("--heads-faster", type=float, default=3.0, help="their rate by the trunk's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--every", type=int, default=100, help="steps between two lines of the log")
    parser.add_argument("--save-every", type=float, default=300, help="seconds between two saved states; 0: never")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--inner", type=int, default=1152)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    options = parsed(given)
    if not options.steps and not options.seconds:
        sys.exit("say how long to train: --steps or --seconds")
    if options.focus and not options.begin:
        sys.exit("--focus goes on with weights that are there: name their folder with --begin")
    options.seed += 1000 * options.tagger
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans each shape for a tenth of a second
    store = Store.load(options.folder)
    teacher = load_teacher(options.folder / "teacher.safetensors").to(options.device)
    out: Path = options.folder
    if options.tagger:
        out, options.first = out / f"tagger-{options.tagger}", 0.0
    out.mkdir(exist_ok=True)
    learner = of_names(teacher, options) if options.tagger else of_all(teacher, store, options)
    training = Training(learner, options)
    if (out / "state.pt").exists():
        training.resume(out / "state.pt", options.device)
    run(training, store, out, options.device, names if options.tagger else planned)
    training.average()
    print("F1 of held-out names:", names_found(learner.model, store, options.device), flush=True)  # noqa: T201
    save_weights(learner.model, out / "weights")


def of_names(teacher: Trunk, options: argparse.Namespace) -> Learner:
    tagger = Tagger(teacher.requires_grad_(True))
    if options.begin:
        begin(tagger, load_weights(options.begin))
    tagger.to(options.device).train()
    return Learner(cast(Mini, tagger), None, stage=2)  # it has what the objective `entities` reads


def of_all(teacher: Trunk, store: Store, options: argparse.Namespace) -> Learner:
    shape = Shape(store.special["vocabulary"], num_hidden_layers=options.layers, intermediate_size=options.inner)
    (options.folder / "shape.json").write_text(json.dumps(asdict(shape)))
    model = Mini(shape)
    model.start(None if options.begin else word_vectors(teacher, store, options.device).cpu())
    if options.begin:
        begin(model, load_weights(options.begin))
    model.to(options.device)
    before = copy.deepcopy(model).eval().requires_grad_(False) if options.focus else None
    taught = sorted(options.folder.glob("tagger-*/weights"))
    taggers = [load_tagger(teacher, weights).to(options.device) for weights in taught]
    if options.device.startswith("cuda"):
        teacher = teacher.bfloat16()
    return Learner(model.train(), teacher, taggers, before, options.focus)


def load_tagger(teacher: Trunk, folder: Path) -> Tagger:
    tagger = Tagger(copy.deepcopy(teacher))
    tagger.load_state_dict(load_weights(folder))
    return tagger.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
