"""Weights -> a checkpoint of onepass's own, int8 (docs/checkpoints.md).

    python -m training.export out/mini src/onepass/embedded/onepass-mini-1

int8 and bfloat16 rows are written by --stored; --heads leaves heads out that did not beat what is trivial.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file
from tokenizers import Tokenizer

from onepass.model.heads import Activation, Finish, HeadSpec, Linear, Norm, Pool, Step, Vocabulary
from onepass.model.int8 import SCALE, quantized
from onepass.model.own_heads import write_heads
from onepass.model.spec import NormSpec
from training.model import ENTAILMENTS, SENTIMENTS, TAGS, Mini, Shape, parted
from training.train import load_weights

LONGEST = 512
EPS = 1e-12
BOTH = Pool(("first", "mean"))


def hidden_steps(name: str) -> tuple[Step, ...]:
    return (
        Linear(f"{name}.hidden.weight", f"{name}.hidden.bias"),
        Activation("gelu"),
        Linear(f"{name}.out.weight", f"{name}.out.bias"),
    )


def row_head(name: str, labels: tuple[str, ...], *, pairs: bool) -> HeadSpec:
    finish: Finish = "softmax" if len(labels) > 1 else "sigmoid"
    return HeadSpec("classify", BOTH, per_row=hidden_steps(name), finish=finish, labels=labels, pairs=pairs)


def word_steps(name: str) -> tuple[Step, ...]:
    return (
        Linear(f"{name}.dense.weight", f"{name}.dense.bias"),
        Activation("gelu"),
        Norm(NormSpec("layer", EPS), f"{name}.norm.weight", f"{name}.norm.bias"),
        Vocabulary(bias=f"{name}.bias"),
    )


TOKENS = Pool(("tokens",))
HEADS = {
    "embed": HeadSpec("embed", Pool(("mean",)), per_row=(Linear("embed.weight", "embed.bias"),), finish="l2"),
    "fill": HeadSpec("fill", TOKENS, per_token=word_steps("fill"), finish="softmax"),
    "sparse": HeadSpec(
        "sparse", Pool(("max",)), per_token=(*word_steps("sparse"), Activation("relu_log1p")), sparse=True
    ),
    "sentiment": row_head("sentiment", SENTIMENTS, pairs=False),
    "toxicity": row_head("toxicity", ("toxic",), pairs=False),
    "entities": HeadSpec(
        "tag", TOKENS, per_token=hidden_steps("entities"), finish="softmax", labels=TAGS, aggregation="viterbi"
    ),
    "rerank": HeadSpec("multivector", TOKENS, per_token=(Linear("rerank.weight", "rerank.bias"),), finish="l2"),
    "nli": row_head("nli", ENTAILMENTS, pairs=True),
    "answer": HeadSpec("answer", TOKENS, per_token=hidden_steps("answer"), labels=("start", "end")),
}
DEFAULTS = {"classify": "sentiment", "labels": "embed", "moderate": "toxicity", "rerank": "rerank"}
MODERATION = {"toxicity": ["toxic"]}


def export(folder: Path, out: Path, stored: str = "int8", heads: tuple[str, ...] = tuple(HEADS)) -> None:
    """Write the checkpoint. stored: "int8", "bfloat16" or "float32"."""
    shape = Shape(**json.loads((folder / "shape.json").read_text()))
    weights = load_weights(folder / "weights")
    Mini(shape).load_state_dict(weights)  # names and shapes are the model's
    kept = {
        name.removeprefix("trunk."): tensor
        for name, tensor in parted(weights).items()
        if name.split(".")[0] in ("trunk", *heads)
    }
    out.mkdir(parents=True, exist_ok=True)
    if stored == "int8":
        arrays = {name: tensor.contiguous().numpy() for name, tensor in kept.items()}
        save_file(smaller(quantized(arrays)), out / "model.safetensors")
    else:
        of_type = {name: tensor.to(getattr(torch, stored)).contiguous() for name, tensor in kept.items()}
        save_torch_file(of_type, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config(shape), indent=2) + "\n")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    names = {name: f"[{name.removesuffix('_token').upper()}]" for name in ("pad_token", "unk_token", "cls_token")}
    names |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    files = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST, **names}
    (out / "tokenizer_config.json").write_text(json.dumps(files, indent=2) + "\n")
    chosen = {name: head for name, head in HEADS.items() if name in heads}
    defaults = {task: name for task, name in DEFAULTS.items() if name in heads}
    write_heads(out, chosen, defaults=defaults, moderation=MODERATION if "toxicity" in heads else None)
    shutil.copy(Path(__file__).parents[1] / "LICENSE", out / "LICENSE")


def smaller(tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Vectors as float16; scales stay float32."""
    return {
        name: tensor if tensor.dtype == np.int8 or name.endswith(SCALE) else tensor.astype(np.float16)
        for name, tensor in tensors.items()
    }


def config(shape: Shape) -> dict[str, Any]:
    sizes = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        **sizes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stored", choices=("int8", "bfloat16", "float32"), default="int8")
    parser.add_argument("--heads", nargs="+", choices=tuple(HEADS), default=tuple(HEADS))
    options = parser.parse_args()
    export(options.folder, options.out, options.stored, tuple(options.heads))


if __name__ == "__main__":
    main()
