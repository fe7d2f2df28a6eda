"""Tiny checkpoints with real tokenizers, written to disk as transformers and sentence-transformers write them.

Freshly initialised weights hide mistakes: with their small values a wrong activation moves a result by 1e-6. Parameters
are therefore redrawn, matrices with standard deviation 2 / sqrt(fan-in), gains and biases shifted by N(0, 0.3).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from onepass.errors import OnepassError
from onepass.model.checkpoint import load_checkpoint
from onepass.model.heads import Activation, HeadSpec, Linear, Norm, Pool, Vocabulary
from onepass.model.own_heads import write_heads
from onepass.model.spec import NormSpec

Head = Literal["embed", "classify", "multilabel", "rerank", "trunk", "tag", "answer", "fill", "next"]
Family = str
"""A key of KINDS."""

USABLE = 64
"""Tokens of the longest row of a tiny checkpoint, special tokens included, unless `config` changes its positions."""

LABELS: dict[Head, tuple[str, ...]] = {
    "classify": ("negative", "neutral", "positive"),
    "multilabel": ("joy", "anger", "fear", "surprise"),
    "rerank": ("relevance",),
    "tag": ("nothing", "person", "place", "time"),
}

TEXT = """
The encoder reads a sentence once and answers with numbers. A river runs past the old mill, and the miller counts sacks.
Search engines compare a question with many passages; the best passage should stand first, whatever its length.
Who wrote the letter that never arrived? Nobody knows, but three neighbours claim to have seen the postman on Tuesday.
Cats sleep for sixteen hours a day, dogs for twelve, and giraffes for hardly more than half an hour at a time.
In 1969 two people walked on the moon; in 2024 a small robot landed there upside down and took one photograph.
I loved this film. I hated this film. The film was long, loud and expensive, and yet I would gladly watch it again.
Prices rose by 3.5 % in March, fell in April (nobody could say why) and stayed where they were until the autumn.
Café, naïve, façade, Zürich, Ångström: words with accents are words too, and so are don't, can't and mother-in-law's.
To bake bread you need flour, water, salt, yeast and patience; to bake good bread you need more of the last one.
The train to the coast leaves at seven, the train to the mountains at eight, the bus to nowhere whenever it is full.
""".strip().splitlines()


@dataclass(frozen=True)
class Kind:
    """What sets the files of one family apart from another's."""

    vocabulary: Literal["wordpiece", "bytes", "unigram"]
    tokenizer: str
    config: dict[str, Any]
    sizes: tuple[str, str, str, str] = (
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "intermediate_size",
    )
    scale: float = 1.0
    """Of the parameters, where states would grow from layer to layer until the smallest rounding decides a softmax."""


FAST = "PreTrainedTokenizerFast"
DECODER = {"num_key_value_heads": 2, "max_position_embeddings": USABLE}
T5 = {"d_kv": 12, "num_decoder_layers": 1, "relative_attention_num_buckets": 12, "relative_attention_max_distance": 40}
T5_SIZES = ("d_model", "num_heads", "num_layers", "d_ff")
BART = {
    "max_position_embeddings": USABLE,
    "decoder_layers": 1,
    "decoder_ffn_dim": 8,
    "decoder_attention_heads": 2,
}
BART_SIZES = ("d_model", "encoder_attention_heads", "encoder_layers", "encoder_ffn_dim")
DISENTANGLED = {
    "type_vocab_size": 2,
    "max_position_embeddings": USABLE,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}
AFTER_PAD = {"type_vocab_size": 1, "max_position_embeddings": USABLE + 2}
KINDS: dict[Family, Kind] = {
    "bert": Kind("wordpiece", "BertTokenizer", {"type_vocab_size": 2, "max_position_embeddings": USABLE}),
    "electra": Kind(
        "wordpiece",
        "ElectraTokenizer",
        {"type_vocab_size": 2, "max_position_embeddings": USABLE, "embedding_size": 24},
    ),
    "ernie": Kind(
        "wordpiece",
        "BertTokenizer",
        {"type_vocab_size": 2, "max_position_embeddings": USABLE, "use_task_id": True},
    ),
    "distilbert": Kind(
        "wordpiece",
        "DistilBertTokenizer",
        {"max_position_embeddings": USABLE},
        sizes=("dim", "n_heads", "n_layers", "hidden_dim"),
    ),
    "roberta": Kind("bytes", "RobertaTokenizer", AFTER_PAD),
    "xlm-roberta": Kind("unigram", "XLMRobertaTokenizer", AFTER_PAD),
    "camembert": Kind("unigram", "CamembertTokenizer", AFTER_PAD),
    # encoders with relative or rotary positions
    "mpnet": Kind("unigram", FAST, {"max_position_embeddings": USABLE + 2}),
    "modernbert": Kind("bytes", FAST, {"max_position_embeddings": USABLE, "local_attention": 12}),
    "deberta": Kind("wordpiece", "BertTokenizer", {**DISENTANGLED, "max_relative_positions": 24}),
    "deberta-v2": Kind(
        "wordpiece",
        "BertTokenizer",
        {**DISENTANGLED, "position_buckets": 10, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    "nomic_bert": Kind("wordpiece", "BertTokenizer", {"type_vocab_size": 2, "max_position_embeddings": USABLE}),
    "gte": Kind("unigram", "XLMRobertaTokenizer", {"type_vocab_size": 1, "max_position_embeddings": USABLE}),
    "jina_embeddings_v3": Kind(
        "unigram", "XLMRobertaTokenizer", {"type_vocab_size": 1, "max_position_embeddings": USABLE}
    ),
    "mobilebert": Kind(
        "wordpiece",
        "BertTokenizer",
        {
            "type_vocab_size": 2,
            "max_position_embeddings": USABLE,
            "embedding_size": 24,
            "intra_bottleneck_size": 16,
            "num_feedforward_networks": 3,
        },
        scale=0.7,
    ),
    # encoders of other layouts, decoders, the encoders of encoder-decoders
    "albert": Kind(
        "wordpiece",
        "BertTokenizer",
        {"type_vocab_size": 2, "max_position_embeddings": USABLE, "embedding_size": 24},
    ),
    "rembert": Kind(
        "wordpiece",
        "BertTokenizer",
        {
            "type_vocab_size": 2,
            "max_position_embeddings": USABLE,
            "input_embedding_size": 24,
            "output_embedding_size": 40,
        },
    ),
    "xlm-roberta-xl": Kind("unigram", "XLMRobertaTokenizer", AFTER_PAD),
    "eurobert": Kind("bytes", FAST, DECODER),
    "llama": Kind("bytes", FAST, DECODER),
    "mistral": Kind("bytes", FAST, {**DECODER, "sliding_window": 9}),
    "qwen2": Kind("bytes", FAST, {**DECODER, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "qwen3": Kind("bytes", FAST, {**DECODER, "head_dim": 16}),
    "gemma": Kind("bytes", FAST, {**DECODER, "head_dim": 16}),
    "gemma2": Kind("bytes", FAST, {**DECODER, "head_dim": 16, "sliding_window": 9, "query_pre_attn_scalar": 20}),
    "gemma3_text": Kind("bytes", FAST, {**DECODER, "head_dim": 16, "sliding_window": 9, "sliding_window_pattern": 2}),
    "gpt2": Kind("bytes", FAST, {"n_positions": USABLE}, sizes=("n_embd", "n_head", "n_layer", "n_inner")),
    "t5": Kind("unigram", FAST, T5, T5_SIZES),
    "mt5": Kind("unigram", FAST, T5, T5_SIZES),
    "umt5": Kind("unigram", FAST, T5, T5_SIZES),
    "bart": Kind("bytes", FAST, BART, BART_SIZES),
    "mbart": Kind("unigram", FAST, BART, BART_SIZES),
    "m2m_100": Kind("unigram", FAST, BART, BART_SIZES),
}


def tiny_checkpoint(
    folder: Path,
    family: Family = "bert",
    head: Head = "embed",
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    scale: float = 1.0,
    **config: Any,
) -> Path:
    """Write a checkpoint of two layers, width 32, into `folder` and return it; `config` overrides config.json's keys.

    embed: a trunk with sentence-transformers' mean pooling and Normalize.  trunk: the model alone.
    classify, multilabel, rerank, tag: with `labels`, or with the names in LABELS.  scale: of the parameters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(family)
    auto: Any = transformers  # its from_config functions carry no types
    settings = _config(family, tokenizer, config)
    if head in ("embed", "trunk"):
        model = auto.AutoModel.from_config(settings)
    else:
        if head in LABELS:
            names = tuple(labels) or LABELS[head]
            settings.id2label = dict(enumerate(names))
            settings.label2id = {name: index for index, name in enumerate(names)}
            settings.problem_type = "multi_label_classification" if head == "multilabel" else None
        model = getattr(auto, AUTO.get(head, "AutoModelForSequenceClassification")).from_config(settings)
    redraw(model, seed, scale * KINDS[family].scale)
    model.save_pretrained(folder)
    write_tokenizer(folder, family)
    if head == "embed":
        write_modules(folder, model.config.hidden_size)
    return folder


AUTO: dict[Head, str] = {
    "tag": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
    "fill": "AutoModelForMaskedLM",
    "next": "AutoModelForCausalLM",
}
"""Which of transformers' automatic classes loads a head; classifiers are sequence classifiers."""


def splade_checkpoint(
    folder: Path,
    family: Family = "bert",
    *,
    pooling: Literal["max", "sum"] = "max",
    activation: Literal["relu", "log1p_relu"] = "relu",
    queries: bool = False,
    **config: Any,
) -> Path:
    """A masked language model with SpladePooling.

    queries: weighed by a table, in files as the OpenSearch models have them: a Router beside the model that it names.
    """
    tiny_checkpoint(folder, family, "fill", **config)
    module = "sentence_transformers.sparse_encoder.modules"
    own = {"pooling_strategy": pooling, "activation_function": activation, "embedding_dimension": None}
    write_json(folder / "document_1_SpladePooling" / "config.json", own)
    types = {"": f"{module}.Transformer", "document_1_SpladePooling": f"{module}.SpladePooling"}
    write_json(folder / "sentence_bert_config.json", {"transformer_task": "fill-mask", "max_seq_length": USABLE})
    if queries:
        table = folder / "query_0_SparseStaticEmbedding"
        write_json(table / "config.json", {"frozen": True})
        write_tokenizer(table, family)
        weights = torch.rand(tiny_tokenizer(family).get_vocab_size(), generator=torch.Generator().manual_seed(0))
        save_file({"weight": weights * 5}, table / "model.safetensors")
        router: dict[str, Any] = {"types": types | {table.name: f"{module}.SparseStaticEmbedding"}}
        router |= {"structure": {"query": [table.name], "document": list(types)}, "parameters": {}}
        write_json(folder / "router_config.json", router)
        types = {"": "sentence_transformers.base.modules.router.Router"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": types[path]} for index, path in enumerate(types)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    return folder


def bge_m3_checkpoint(folder: Path, **config: Any) -> Path:
    """XLM-RoBERTa with a vector per text, and beside it BGE-M3's two layers over tokens."""
    tiny_checkpoint(folder, "xlm-roberta", "embed", **config)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    for seed, (name, outputs) in enumerate((("sparse", 1), ("colbert", width)), start=4):  # weights of either sign
        layer = torch.nn.Linear(width, outputs)
        redraw(layer, seed)
        torch.save(layer.state_dict(), folder / f"{name}_linear.pt")
    return folder


MARKERS = ("[unused0]", "[unused1]")
"""Of queries and documents, in Stanford's files."""


def colbert_checkpoint(folder: Path, *, width: int = 12, **metadata: Any) -> Path:
    """BERT as Stanford's ColBERT writes it: the projection beside the trunk, markers among the ordinary words.

    metadata: of artifact.metadata, whose queries are 14 tokens long and documents 40 otherwise.
    """
    tiny_checkpoint(folder, "bert", "trunk")
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    projection = torch.nn.Linear(32, width, bias=False)
    redraw(projection, seed=1)
    save_file(tensors | {"linear.weight": projection.weight.detach()}, folder / "model.safetensors", {"format": "pt"})
    change_json(folder / "config.json", architectures=["HF_ColBERT"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    ids = {id: word for word, id in tokenizer["model"]["vocab"].items()}
    spelt = {max(ids) - 1: MARKERS[0], max(ids): MARKERS[1]}
    tokenizer["model"]["vocab"] = {word: id for id, word in (ids | spelt).items()}
    write_json(folder / "tokenizer.json", tokenizer)
    said = {"query_token_id": MARKERS[0], "doc_token_id": MARKERS[1], "query_maxlen": 14, "doc_maxlen": 40}
    write_json(folder / "artifact.metadata", said | {"mask_punctuation": True, "similarity": "cosine"} | metadata)
    return folder


def redraw(model: torch.nn.Module, seed: int, size: float = 1.0) -> None:
    """Give every parameter of `model` new values; `size` scales all of them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (2 / math.sqrt(parameter.shape[-1])) * size)
            else:
                parameter.copy_((parameter + noise * 0.3) * size)


def write_modules(folder: Path, width: int) -> None:
    """sentence-transformers' files for mean pooling and Normalize, in the spelling that most checkpoints carry."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": USABLE, "do_lower_case": False})


QWEN_TEMPLATE = """\
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first
    | default("Find what answers the query") -%}
{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}
<s>Judge. {{ instruction }}
<Query>: {{ query }}
<Document>: {{ document }}</s>
<think>

</think>


"""
"""As Qwen3-Reranker's, in fewer words."""


def asked_checkpoint(folder: Path, rows: int = 256) -> Path:
    """A language model that reranks through its chat template, with sentence-transformers' files; rows: of tokens."""
    tiny_checkpoint(folder, "qwen3", "next", max_position_embeddings=rows)
    change_json(folder / "tokenizer_config.json", model_max_length=rows)
    (folder / "chat_template.jinja").write_text(QWEN_TEMPLATE)
    modules = [("", "base.modules.transformer.Transformer"), ("1_LogitScore", "modules.logit_score.LogitScore")]
    write_json(
        folder / "modules.json", [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in modules]
    )
    write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": 40, "false_token_id": 12})
    entry = {"method": "forward", "method_output_name": "logits"}
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": entry, "message": entry | {"format": "flat"}},
            "module_output_name": "causal_logits",
        },
    )
    return folder


def answering_checkpoint(folder: Path, family: Family, rows: int = 512) -> Path:
    """A plain language model that has the tokens with which rerankers answer."""
    tiny_checkpoint(folder, family, "next", max_position_embeddings=rows, vocab_size=520)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["yes", "no", "Yes"])
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<bos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    change_json(folder / "tokenizer_config.json", model_max_length=rows)
    return folder


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object on disk; a value of None removes the key."""
    value = json.loads(path.read_text()) | changes
    write_json(path, {key: item for key, item in value.items() if item is not None})


def refused(folder: Path | str, kind: type[OnepassError], **options: Any) -> str:
    """The sentence with which load_checkpoint refuses `folder`, by exactly this kind of error."""
    with pytest.raises(kind) as caught:
        load_checkpoint(folder, **options)
    assert type(caught.value) is kind
    return str(caught.value)


def write_tokenizer(folder: Path, family: Family) -> None:
    """tokenizer.json and tokenizer_config.json of the family, as its hub checkpoints have them."""
    tokenizer = tiny_tokenizer(family)
    tokenizer.save(str(folder / "tokenizer.json"))
    bert = KINDS[family].vocabulary == "wordpiece"
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    if not bert:
        special = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
        special |= {"cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>"}
    case = {"do_lower_case": True} if bert else {}
    settings = {"tokenizer_class": KINDS[family].tokenizer, "model_max_length": USABLE}
    write_json(folder / "tokenizer_config.json", settings | special | case)


def tiny_tokenizer(family: Family) -> Tokenizer:
    """A fresh tokenizer of vocabularies/, trained on TEXT, that frames sentences and pairs as the family does."""
    vocabulary = KINDS[family].vocabulary
    return Tokenizer.from_str(_trained(vocabulary))


@functools.cache
def _trained(vocabulary: Literal["wordpiece", "bytes", "unigram"]) -> str:
    return (Path(__file__).parent / "vocabularies" / f"{vocabulary}.json").read_text()


def _config(family: Family, tokenizer: Tokenizer, given: dict[str, Any]) -> Any:
    kind = KINDS[family]
    sizes = dict(zip(kind.sizes, (32, 4, 2, 64), strict=True))
    special = {} if kind.vocabulary == "wordpiece" else {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return transformers.AutoConfig.for_model(
        family, **({"vocab_size": tokenizer.get_vocab_size()} | sizes | kind.config | special | given)
    )


def heads_checkpoint(
    folder: Path, family: Family = "bert", *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Path:
    """A trunk with SEVERAL heads of its own, as model/own_heads.py reads them, stored as `dtype`."""
    tiny_checkpoint(folder, family, "trunk", seed=seed)
    width, vocabulary = 32, tiny_tokenizer(family).get_vocab_size()
    sizes = {"embed": 16, "mood": 3, "harm": 1, "inference": 3, "relevance": 1, "entities": 5, "answer": 2}
    shapes = {
        f"{name}.0.{part}": shape
        for name, n in sizes.items()
        for part, shape in (("weight", (n, width)), ("bias", (n,)))
    }
    shapes |= {"words.dense.weight": (width, width), "words.dense.bias": (width,), "words.bias": (vocabulary,)}
    shapes |= {"words.norm.weight": (width,), "words.norm.bias": (width,)}
    generator = torch.Generator().manual_seed(seed)
    heads = {
        name: torch.randn(shape, generator=generator) * (2 / math.sqrt(shape[-1])) for name, shape in shapes.items()
    }
    stored = load_file(folder / "model.safetensors") | heads
    save_file({name: tensor.to(dtype) for name, tensor in stored.items()}, folder / "model.safetensors")
    write_heads(folder, SEVERAL)
    return folder


def _linear(head: str) -> tuple[Linear]:
    return (Linear(f"{head}.0.weight", f"{head}.0.bias"),)


_WORDS = (
    Linear("words.dense.weight", "words.dense.bias"),
    Activation("gelu"),
    Norm(NormSpec("layer", 1e-12), "words.norm.weight", "words.norm.bias"),
    Vocabulary("embed.word", "words.bias"),
)
SEVERAL = {
    "embed": HeadSpec("embed", Pool(("mean",)), per_row=_linear("embed"), finish="l2"),
    "mood": HeadSpec(
        "classify",
        Pool(("first",)),
        per_row=_linear("mood"),
        finish="softmax",
        labels=("negative", "neutral", "positive"),
        pairs=False,
    ),
    "harm": HeadSpec(
        "classify", Pool(("mean",)), per_row=_linear("harm"), finish="sigmoid", labels=("toxic",), pairs=False
    ),
    "inference": HeadSpec(
        "classify",
        Pool(("first",)),
        per_row=_linear("inference"),
        finish="softmax",
        labels=("contradiction", "neutral", "entailment"),
        pairs=True,
    ),
    "relevance": HeadSpec(
        "classify", Pool(("first",)), per_row=_linear("relevance"), finish="sigmoid", labels=("relevance",), pairs=True
    ),
    "entities": HeadSpec(
        "tag",
        Pool(("tokens",)),
        per_token=_linear("entities"),
        finish="softmax",
        labels=("O", "B-person", "I-person", "B-place", "I-place"),
    ),
    "answer": HeadSpec("answer", Pool(("tokens",)), per_token=_linear("answer"), labels=("start", "end")),
    "fill": HeadSpec("fill", Pool(("tokens",)), per_token=_WORDS),
    "sparse": HeadSpec("sparse", Pool(("max",)), per_token=(*_WORDS, Activation("relu_log1p")), sparse=True),
}
"""The heads of `heads_checkpoint`, two of them over tensors of their common prefix `words`."""
